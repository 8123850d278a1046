//! Every call to the API server, each bounded in time.
//!
//! It knows names, verbs and field managers, and holds no rule. Requests are never replayed here: a
//! write whose answer was lost is settled by observing again (kube's own retry would repeat a POST).

mod access;
mod changes;
mod counted;
mod error;
mod helm;
mod logs;
mod queues;
mod rows;
mod tasks;
mod webhooks;

pub use access::{Endpoint, User};
pub use changes::{Added, Expected};
pub use error::Error;
pub use helm::{Driver, Revision};
pub use logs::{LogItem, LogOptions};
pub use queues::Queues;
pub use rows::Rows;
pub use tasks::{Filter, PAGE, Page, Tasks};
pub use webhooks::{Address, Entry, SERVICE, WEBHOOK_CONFIGURATION, Webhook, host};

use crate::crd::{Agent, MANAGED_BY, TaskNames, TaskRun, reason};
use crate::metrics::Calls;
use crate::plan::{Notice, Step};
use error::{bounded, gone_is_conflict, refusal};
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, HeaderValue};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, TypeMeta,
};
use kube::core::{DeserializeGuard, GroupVersionKind, PartialObjectMeta, Request};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;
use std::future::ready;
use std::time::Duration;

/// Field manager of what the reconciler writes.
pub const FIELD_MANAGER: &str = MANAGED_BY;
/// Kueue's Workload, as newer and older ones serve it.
const WORKLOAD_VERSIONS: [&str; 2] = ["kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1"];
/// Kueue's label on a Workload: the uid of its Job.
const WORKLOAD_JOB_LABEL: &str = "kueue.x-k8s.io/job-uid";
/// What an answer is asked for as, where its object is known.
const ONLY_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// The API server ends a watch after this many seconds. Five later kube gives up one that is silent, and
/// opens it anew; if that is on a dead connection, too, the client's read timeout ends it after 30 s more.
/// So a dead watch is replaced within a minute.
pub const WATCH_SECONDS: u32 = 20;
/// The longest that a connection may be silent. Calls have their own end, but not the list and the opening
/// of a watch: on a connection that is half open they would wait for ever. It is longer than a watch may be
/// silent (`WATCH_SECONDS` and five), so that no living one is cut.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The API server.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    recorder: Recorder,
}

impl ApiServer {
    /// From `KUBECONFIG`, `~/.kube/config` or the pod's service account; calls are counted there.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn connect(calls: &Calls) -> Result<Self, Error> {
        Ok(Self::new(access::counted_client(access::infer().await?, READ_TIMEOUT, calls.clone())?))
    }

    /// The same, uncounted, with this namespace, or that which the configuration says.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn connect_in(namespace: Option<String>) -> Result<(Self, String), Error> {
        let config = access::infer().await?;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok((Self::new(access::client(config, Some(READ_TIMEOUT))?), namespace))
    }

    fn new(client: Client) -> Self {
        let reporter = Reporter { controller: MANAGED_BY.to_owned(), instance: None };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    /// The objects of a kind, in a namespace or in all.
    #[must_use]
    pub fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The same for objects that may not fit our types.
    #[must_use]
    pub fn dynamic_api<K>(&self, namespace: Option<&str>) -> (Api<DynamicObject>, ApiResource)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let resource = ApiResource::erase::<K>(&());
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        (api, resource)
    }

    /// One object as it is now, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        bounded(self.api(Some(namespace)).get_opt(name)).await
    }

    /// A ConfigMap's metadata as it is now, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch_config_map(&self, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, Error> {
        let api = self.api::<ConfigMap>(Some(namespace));
        Ok(bounded(api.get_metadata_opt(name)).await?.map(|found| found.metadata))
    }

    /// The metadata of all ConfigMaps with these labels as they are now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_config_maps(&self, namespace: &str, selector: &str) -> Result<Vec<ObjectMeta>, Error> {
        let api = self.api::<ConfigMap>(Some(namespace));
        let list = bounded(api.list_metadata(&ListParams::default().labels(selector))).await?;
        Ok(list.items.into_iter().map(|found| found.metadata).collect())
    }

    /// What Kueue made of a Job, if it did and is installed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch_workload(&self, namespace: &str, job_uid: &str) -> Result<Option<DynamicObject>, Error> {
        let of_job = ListParams::default().labels(&format!("{WORKLOAD_JOB_LABEL}={job_uid}"));
        for version in WORKLOAD_VERSIONS {
            match bounded(self.workloads(namespace, version).list(&of_job)).await {
                Ok(list) => {
                    let types = TypeMeta { api_version: version.to_owned(), kind: "Workload".to_owned() };
                    let found = list.items.into_iter().next();
                    return Ok(found.map(|workload| DynamicObject { types: Some(types), ..workload }));
                }
                Err(Error::Call(kube::Error::Api(status))) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn workloads(&self, namespace: &str, api_version: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or_default();
        let workload = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, "Workload"));
        Api::namespaced_with(self.client.clone(), namespace, &workload)
    }

    /// All objects with these labels as they are now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list<K>(&self, namespace: &str, selector: &str) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api(Some(namespace));
        Ok(bounded(api.list(&ListParams::default().labels(selector))).await?.items)
    }

    /// The first TaskRun, in bounded pages, that is named by the other scheme.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_misnamed(&self, namespace: Option<&str>, names: TaskNames) -> Result<Option<String>, Error> {
        let (api, mut page) = (self.api::<TaskRun>(namespace), ListParams::default().limit(500));
        loop {
            let list = bounded(api.list_metadata(&page)).await?;
            let misnamed = list.items.iter().map(ResourceExt::name_any).find(|name| names.is_of_the_other(name));
            match list.metadata.continue_.filter(|token| misnamed.is_none() && !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(misnamed),
            }
        }
    }

    /// Carries out one step for this TaskRun.
    ///
    /// # Errors
    /// See [`Error`]. What is to be deleted and is gone already is no error, nor is a workspace that
    /// is there already.
    pub async fn execute(&self, task_run: &TaskRun, step: &Step) -> Result<(), Error> {
        let namespace = task_run.metadata.namespace.as_deref().unwrap_or_default();
        let name = task_run.metadata.name.as_deref().unwrap_or_default();
        match step {
            Step::SetFinalizers { uid, resource_version, finalizers } => {
                self.set_finalizers(namespace, name, uid, resource_version.as_ref(), finalizers).await
            }
            Step::CreateConfigMap(config_map) => self.create(namespace, &**config_map).await,
            Step::CreateClaim(claim) => self.create_claim(namespace, claim).await,
            Step::CreateJob(job) => self.create(namespace, &**job).await,
            Step::DeleteConfigMap { name, uid } => {
                self.delete::<ConfigMap>(namespace, name, DeleteParams::background(), uid, None).await
            }
            Step::DeleteJob { name, uid, resource_version } => {
                let pods_first = DeleteParams::foreground();
                self.delete::<Job>(namespace, name, pods_first, uid, resource_version.as_ref()).await
            }
            Step::PatchJob { name, patch } => self.patch::<Job>(namespace, name, patch).await,
            Step::ReleasePod { name, patch } => self.patch::<Pod>(namespace, name, patch).await,
            Step::LabelPod { name, patch } => {
                // the pod is found by its Job, too, while that is there: a policy may forbid the label
                if let Err(error) = self.patch::<Pod>(namespace, name, patch).await {
                    tracing::warn!(%error, pod = name, namespace, "failed to label a pod of an adopted Job");
                }
                Ok(())
            }
            Step::DeletePod { name, uid, resource_version } => {
                self.delete::<Pod>(namespace, name, DeleteParams::background(), uid, resource_version.as_ref()).await
            }
            Step::PatchWorkload { name, patch } => self.patch_workload(namespace, name, patch).await,
            Step::DeleteTaskRun { uid, resource_version } => {
                let params = DeleteParams::background();
                self.delete::<TaskRun>(namespace, name, params, uid, resource_version.as_ref()).await
            }
            Step::PatchStatus(patch) => self.patch_status::<TaskRun>(namespace, name, patch).await,
            Step::Publish(notice) => {
                self.publish(&task_run.object_ref(&()), notice).await;
                Ok(())
            }
        }
    }

    async fn create<K>(&self, namespace: &str, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let object = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = Request::new(self.api::<K>(Some(namespace)).resource_url()).create(&posted(), object);
        match self.write_request(request).await {
            Ok(()) => Ok(()),
            Err(Error::Call(kube::Error::Api(status))) => match refusal(&status) {
                Some(reason) => Err(Error::Refused { reason, message: status.message.clone() }),
                None => Err(kube::Error::Api(status).into()),
            },
            Err(error) => Err(error),
        }
    }

    /// One that is there stays. A quota that many claim at once is a conflict as well, and then there is none.
    async fn create_claim(&self, namespace: &str, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        match self.create(namespace, claim).await {
            Err(Error::Conflict(message)) if message.ends_with("already exists") => Ok(()),
            other => other,
        }
    }

    async fn delete<K>(
        &self,
        namespace: &str,
        name: &str,
        params: DeleteParams,
        uid: &str,
        version: Option<&String>,
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: version.cloned() };
        let params = params.preconditions(preconditions);
        was_there(bounded(self.api::<K>(Some(namespace)).delete(name, &params)).await).map(|_| ())
    }

    async fn patch<K>(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>(Some(namespace));
        let request = Request::new(api.resource_url()).patch(name, &manager(), &Patch::Merge(patch));
        self.write_request(request).await.map_err(gone_is_conflict)
    }

    /// Sends a write, whose answer nobody reads: it is asked for without spec and status.
    async fn write_request(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<(), Error> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(ONLY_METADATA));
        bounded(self.client.request::<PartialObjectMeta>(request)).await.map(|_| ())
    }

    /// Replaces the object as it is: where the last finalizer goes, the API server (1.37) deletes what has the
    /// name by then, and only a replacement, not a patch, makes the uid a precondition of that.
    async fn set_finalizers(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        version: Option<&String>,
        finalizers: &[String],
    ) -> Result<(), Error> {
        let (api, _) = self.dynamic_api::<TaskRun>(Some(namespace));
        let Some(mut found) = bounded(api.get_opt(name)).await? else { return Ok(()) };
        if found.metadata.uid.as_deref() != Some(uid) || found.metadata.resource_version.as_ref() != version {
            return Err(Error::Conflict("the TaskRun has changed".to_owned()));
        }
        found.metadata.finalizers = Some(finalizers.to_vec());
        bounded(api.replace(name, &posted(), &found)).await.map(|_| ()).map_err(gone_is_conflict)
    }

    /// Whether a namespace is gone, or going.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn is_ending(&self, namespace: &str) -> Result<bool, Error> {
        let found = bounded(Api::<Namespace>::all(self.client.clone()).get_metadata_opt(namespace)).await?;
        Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
    }

    /// Takes a finalizer off all TaskRuns of a namespace, or of all; returns off how many, and adds to `failed` why it
    /// could not from one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_finalizer(
        &self,
        namespace: Option<&str>,
        finalizer: &str,
        failed: &mut Vec<String>,
    ) -> Result<usize, Error> {
        let (mut page, mut freed) = (ListParams::default().limit(500), 0);
        loop {
            let list = match bounded(self.api::<TaskRun>(namespace).list_metadata(&page)).await {
                Ok(list) => list,
                // the CRD is gone, and every TaskRun with it
                Err(Error::Call(kube::Error::Api(status))) if status.code == 404 => return Ok(freed),
                Err(error) => return Err(error),
            };
            for found in list.items {
                let name = found.name_any();
                match self.free(found.metadata, finalizer).await {
                    Ok(was_freed) => freed += usize::from(was_freed),
                    Err(error) => failed.push(format!("{name}: {error}")),
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(freed),
            }
        }
    }

    /// Takes a finalizer off a TaskRun; returns whether it had it.
    async fn free(&self, mut found: ObjectMeta, finalizer: &str) -> Result<bool, Error> {
        let (namespace, name) = (found.namespace.take().unwrap_or_default(), found.name.take().unwrap_or_default());
        loop {
            let (uid, mut finalizers) = (found.uid.unwrap_or_default(), found.finalizers.unwrap_or_default());
            if !finalizers.iter().any(|other| other == finalizer) {
                return Ok(false);
            }
            finalizers.retain(|other| other != finalizer);
            let version = found.resource_version.as_ref();
            match self.set_finalizers(&namespace, &name, &uid, version, &finalizers).await {
                Err(Error::Conflict(_)) => {}
                other => return other.map(|()| true),
            }
            let api = self.api::<TaskRun>(Some(&namespace));
            let Some(newer) = bounded(api.get_metadata_opt(&name)).await? else { return Ok(false) };
            found = newer.metadata;
        }
    }

    async fn patch_workload(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), Error> {
        let api = self.workloads(namespace, patch["apiVersion"].as_str().unwrap_or_default());
        bounded(api.patch(name, &manager(), &Patch::Merge(patch))).await.map(|_| ()).map_err(gone_is_conflict)
    }

    async fn patch_status<K>(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>(Some(namespace));
        let request =
            Request::new(api.resource_url()).patch_subresource("status", name, &manager(), &Patch::Merge(patch));
        self.write_request(request).await.map_err(gone_is_conflict)
    }

    /// What the API server has against this Job, which it is not to create.
    ///
    /// # Errors
    /// See [`Error`]; also where the answer does not speak of the Job itself (a quota).
    pub async fn try_job(&self, namespace: &str, job: &Job) -> Result<Result<(), String>, Error> {
        let params = PostParams { dry_run: true, ..posted() };
        match bounded(self.api::<Job>(Some(namespace)).create(&params, job)).await {
            Err(Error::Call(kube::Error::Api(status))) if refusal(&status) == Some(reason::INVALID_AGENT) => {
                Ok(Err(status.message.clone()))
            }
            other => other.map(|_| Ok(())),
        }
    }

    /// A TaskRun as it would be stored, which it is not to be, or what the API server has against it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn try_task_run(
        &self,
        namespace: &str,
        task_run: &Value,
    ) -> Result<Result<DynamicObject, String>, Error> {
        let object = serde_json::from_value(task_run.clone()).map_err(kube::Error::SerdeError)?;
        let params = PostParams { dry_run: true, ..posted() };
        match bounded(self.dynamic_api::<TaskRun>(Some(namespace)).0.create(&params, &object)).await {
            Err(Error::Call(kube::Error::Api(status))) if status.code == 422 => Ok(Err(status.message.clone())),
            other => other.map(Ok),
        }
    }

    /// Writes an Agent's status.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn patch_agent_status(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), Error> {
        self.patch_status::<DeserializeGuard<Agent>>(namespace, name, patch).await
    }

    /// Writes an Event about an object. It is told, not needed: a failure is only logged.
    pub async fn publish(&self, regarding: &ObjectReference, notice: &Notice) {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.clone(),
            note: Some(notice.note.clone()),
            action: "Reconcile".to_owned(),
            // events of different runs are not counted as one
            secondary: notice.job.as_ref().map(|job| ObjectReference {
                api_version: Some("batch/v1".to_owned()),
                kind: Some("Job".to_owned()),
                name: Some(job.clone()),
                namespace: regarding.namespace.clone(),
                ..ObjectReference::default()
            }),
        };
        if let Err(error) = bounded(self.recorder.publish(&event, regarding)).await {
            tracing::warn!(%error, reason = notice.reason, "failed to publish an event");
        }
    }

    /// Writes an object of our own, under its resourceVersion; creates it where it has none.
    ///
    /// # Errors
    /// See [`Error`]: a conflict if somebody else was faster.
    pub async fn write<K>(&self, namespace: &str, object: &K) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let (api, params) = (self.api::<K>(Some(namespace)), PostParams::default());
        match &object.meta().resource_version {
            None => bounded(api.create(&params, object)).await,
            Some(_) => bounded(api.replace(&object.name_any(), &params, object)).await,
        }
    }

    /// Deletes an object of our own; returns whether it was there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove<K>(&self, namespace: &str, name: &str) -> Result<bool, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        was_there(bounded(self.api::<K>(Some(namespace)).delete(name, &DeleteParams::default())).await)
    }
}

/// One object as it comes and goes; nothing where it is not there. Errors are told, and tried again.
pub fn watch_one<K>(api: Api<K>, name: &str) -> impl Stream<Item = Option<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let mut found = None;
    watcher(api, config).default_backoff().filter_map(move |event| {
        let told = match event {
            Ok(watcher::Event::Init) => {
                found = None;
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                found = Some(object);
                None
            }
            Ok(watcher::Event::InitDone) => Some(found.take()),
            Ok(watcher::Event::Apply(object)) => Some(Some(object)),
            Ok(watcher::Event::Delete(_)) => Some(None),
            Err(error) => {
                tracing::warn!(%error, "failed to watch");
                None
            }
        };
        ready(told)
    })
}

fn was_there<T>(deleted: Result<T, Error>) -> Result<bool, Error> {
    match deleted {
        Ok(_) => Ok(true),
        Err(Error::Call(kube::Error::Api(status))) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn posted() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
