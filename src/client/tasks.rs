//! Tasks as people see them, by calls to the API server with their own rights: the credentials are the caller's.

use super::error::{CALL_TIMEOUT, root};
use super::queues::Queues;
use super::{READ_TIMEOUT, WATCH_SECONDS, access};
use crate::crd::{Agent, MarkdownFile, Phase, TASK_RUN_UID_LABEL, TaskNames, TaskRun};
use crate::task::{self, Code, Error, Summary};
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, HeaderValue};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Event as KubernetesEvent, Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams, Request};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::{Future, ready};

/// Refusals in a row, with growing waits between them, that an API server which starts is forgiven.
pub(super) const MAX_REFUSALS: u32 = 4;
/// What a list has if the caller does not say, and the most that he may have.
pub const PAGE: (u32, u32) = (100, 500);

/// The tasks of a namespace, with somebody's rights.
#[derive(Clone)]
pub struct Tasks {
    pub(super) client: Client,
    config: Config,
    /// The namespace; all of them, for lists only, where it is empty.
    pub namespace: String,
    /// Where the API server is.
    pub server: String,
    pub(super) manager: &'static str,
    pub(super) names: TaskNames,
    pub(super) queues: Queues,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// At most so many (see [`PAGE`]).
    pub limit: Option<u32>,
    /// Where the last page ended.
    pub after: Option<String>,
}

impl Filter {
    fn params(&self) -> ListParams {
        let params = ListParams::default().limit(self.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1));
        let phase = self.phase.map(|phase| match phase {
            // those that nobody has looked at yet have no phase
            Phase::Pending => "status.phase!=Running,status.phase!=Succeeded,status.phase!=Failed".to_owned(),
            phase => format!("status.phase={}", phase.as_str()),
        });
        let service = self.service.as_ref().map(|service| format!("spec.serviceName={service}"));
        let fields = [phase, service].into_iter().flatten().reduce(|one, other| format!("{one},{other}"));
        ListParams { field_selector: fields, continue_token: self.after.clone(), ..params }
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Summary>,
    /// What to ask the next page with, if there is one.
    pub next: Option<String>,
    /// What the list is as of: a watch from here on misses nothing.
    pub version: String,
}

impl Tasks {
    /// With the rights of this configuration.
    ///
    /// # Errors
    /// If there is no client for it.
    pub fn new(
        config: Config,
        namespace: String,
        manager: &'static str,
        names: TaskNames,
        queues: Queues,
    ) -> Result<Self, Error> {
        let client = access::client(config.clone(), Some(READ_TIMEOUT)).map_err(|error| unavailable(&error))?;
        let server = config.cluster_url.to_string();
        Ok(Self { client, config, namespace, server, manager, names, queues })
    }

    pub(super) fn api(&self) -> Api<TaskRun> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Who the API server says that the caller is; nothing where the cluster does not let him ask.
    ///
    /// # Errors
    /// `Unauthenticated` if it does not know him.
    pub async fn fetch_user(&self) -> Result<Option<String>, Error> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        match call(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await {
            Ok(review) => Ok(review.status.and_then(|status| status.user_info?.username)),
            // RBAC is asked only about somebody who is known
            Err(error) if error.code == Code::Forbidden => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A task as it is now.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn get(&self, name: &str) -> Result<TaskRun, Error> {
        call(self.api().get(name)).await
    }

    /// The files of a version.
    ///
    /// # Errors
    /// `NotFound` where they are not kept: it was passed over, is beyond `historyLimit`, or has never been.
    pub async fn files(&self, task_run: &TaskRun, version: u32) -> Result<Vec<MarkdownFile>, Error> {
        if version == task_run.spec.context_version {
            return Ok(task_run.spec.markdown_files.clone());
        }
        let present = task_run.spec.context_version;
        if version > present || version == 0 {
            return Err(Error::new(Code::NotFound, format!("there is no version {version}: the newest is {present}")));
        }
        let name = task_run.spec.run_id_of(version).to_string();
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let missing = || {
            let message = format!(
                "the files of version {version} are not kept: it was never run, or is older than historyLimit keeps"
            );
            Error::new(Code::NotFound, message)
        };
        let found = call(config_maps.get_opt(&name)).await?.ok_or_else(missing)?;
        let is_ours = found.owner_references().iter().any(|owner| Some(&owner.uid) == task_run.metadata.uid.as_ref());
        if is_ours { Ok(task::files_of(found)) } else { Err(missing()) }
    }

    /// When the files of each version that is kept were stored, as far as the caller may see that.
    ///
    /// # Errors
    /// See [`Code`]; a caller without the right to list ConfigMaps is told of none.
    pub async fn stored_at(&self, task_run: &TaskRun) -> Result<BTreeMap<u32, Time>, Error> {
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let uid = task_run.metadata.uid.as_deref().unwrap_or_default();
        let of_task = ListParams::default().labels(&format!("{TASK_RUN_UID_LABEL}={uid}"));
        let found = match call(config_maps.list_metadata(&of_task)).await {
            Err(error) if error.code == Code::Forbidden => return Ok(BTreeMap::new()),
            found => found?.items.into_iter().map(|found| found.metadata),
        };
        let version = |labels: &BTreeMap<String, String>| labels.get("context-version")?.parse().ok();
        Ok(found.filter_map(|stored| Some((version(stored.labels.as_ref()?)?, stored.creation_timestamp?))).collect())
    }

    /// The Events of a task and of its present Job, as long as the cluster keeps them (an hour, mostly).
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn events(&self, task_run: &TaskRun) -> Result<Vec<KubernetesEvent>, Error> {
        let events: Api<KubernetesEvent> = Api::namespaced(self.client.clone(), &self.namespace);
        let job = task_run.present_run().and_then(|run| run.job_uid.as_ref());
        let mut found = vec![];
        for uid in task_run.metadata.uid.iter().chain(job) {
            let about = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(PAGE.1);
            found.extend(call(events.list(&about)).await?.items);
        }
        Ok(found)
    }

    /// One page of tasks, without their markdown: the API server sends their table.
    ///
    /// # Errors
    /// `InvalidRequest` if the page is too old.
    pub async fn list(&self, filter: &Filter) -> Result<Page, Error> {
        let params = filter.params();
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        // a row does not tell its namespace, but its object does
        let object = if namespace.is_some() { "None" } else { "Metadata" };
        let path = TaskRun::url_path(&(), namespace);
        let request = Request::new(path).list(&params).map_err(|error| unavailable(&error))?;
        let table: Value = call(self.client.request(as_table(request, object)?)).await?;
        let next = table["metadata"]["continue"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
        let version = table["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        Ok(Page { tasks: Summary::of_table(&table), next, version })
    }

    /// Whole objects, page by page.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn list_objects(&self, filter: &Filter) -> Result<Vec<DynamicObject>, Error> {
        let (api, mut params) = (self.dynamic_api(), filter.params());
        let mut found = vec![];
        loop {
            let list = call(api.list(&params)).await?;
            found.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    fn dynamic_api(&self) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), ApiResource::erase::<TaskRun>(&()));
        match self.namespace.as_str() {
            "" => Api::all_with(client, &resource),
            namespace => Api::namespaced_with(client, namespace, &resource),
        }
    }

    /// Whether the Agent is certainly not there: the task waits for it then.
    pub async fn lacks_agent(&self, name: &str) -> bool {
        let agents: Api<Agent> = Api::namespaced(self.client.clone(), &self.namespace);
        matches!(call(agents.get_metadata_opt(name)).await, Ok(None))
    }

    /// Whether the namespace is certainly not there: a list in it is merely empty then.
    pub async fn lacks_namespace(&self) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        !self.namespace.is_empty() && matches!(call(namespaces.get_metadata_opt(&self.namespace)).await, Ok(None))
    }

    /// What happens to a task, or to all: first all that is there, then each change, for as long as it is read. Their
    /// markdown is left out. It ends with an error that would only come again.
    pub fn watch(&self, name: Option<&str>) -> impl Stream<Item = Result<Event<DynamicObject>, Error>> + use<> {
        let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(50);
        let config = match name {
            Some(name) => config.fields(&format!("metadata.name={name}")),
            None => config,
        };
        let events =
            watcher::watcher(self.dynamic_api(), config).default_backoff().modify(|object: &mut DynamicObject| {
                object.metadata.managed_fields = None;
                object.data["spec"]["markdownFiles"] = Value::Null;
            });
        events
            .scan(Refusals::default(), |refusals, event| ready(refusals.judge(event.map_err(|error| of_watch(&error)))))
    }

    /// The pods of a task's runs.
    pub(super) async fn pods(&self, task_run: &TaskRun) -> Result<Vec<Pod>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let uid = task_run.metadata.uid.as_deref().unwrap_or_default();
        Ok(call(pods.list(&ListParams::default().labels(&format!("{TASK_RUN_UID_LABEL}={uid}")))).await?.items)
    }

    /// Pods by a connection that may be silent for as long as it likes, as logs are.
    pub(super) fn patient_pods(&self) -> Result<Api<Pod>, Error> {
        let client = access::client(self.config.clone(), None).map_err(|error| unavailable(&error))?;
        Ok(Api::namespaced(client, &self.namespace))
    }
}

/// Whether a watch goes on. A refusal ends it: at once if nothing was seen before, otherwise when it stays: an API
/// server that starts refuses what it does not know yet.
#[derive(Default)]
struct Refusals {
    has_seen: bool,
    in_a_row: u32,
    is_over: bool,
}

impl Refusals {
    fn judge<T>(&mut self, event: Result<Event<T>, Error>) -> Option<Result<Event<T>, Error>> {
        if self.is_over {
            return None;
        }
        match event {
            Err(error) if !error.is_passing() => {
                self.in_a_row += 1;
                self.is_over = !self.has_seen || self.in_a_row > MAX_REFUSALS;
                Some(Err(if self.is_over { error } else { Error { code: Code::Unavailable, ..error } }))
            }
            Ok(event) if !matches!(event, Event::Init) => {
                *self = Self { has_seen: true, ..Self::default() };
                Some(Ok(event))
            }
            other => Some(other),
        }
    }
}

/// The same request, answered by a `meta.k8s.io/v1` Table, with this much of each row's object.
pub(super) fn as_table(mut request: http::Request<Vec<u8>>, object: &str) -> Result<http::Request<Vec<u8>>, Error> {
    let with_cells = format!("{}&includeObject={object}", request.uri());
    *request.uri_mut() = with_cells.parse().map_err(|error| unavailable(&error))?;
    let accept = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
    request.headers_mut().insert(ACCEPT, accept);
    Ok(request)
}

/// A call with an end.
pub(super) async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Err(_) => Err(no_answer()),
        Ok(result) => result.map_err(|error| of(&error)),
    }
}

pub(super) fn of(error: &kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => Error::from_status(status),
        other => unavailable(other),
    }
}

fn of_watch(error: &watcher::Error) -> Error {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => of(error),
        WatchError(status) => Error::from_status(status),
        NoResourceVersion => unavailable(error),
    }
}

pub(super) fn no_answer() -> Error {
    Error::new(Code::Unavailable, "no answer from the API server in time: it may have been carried out")
}

pub(super) fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::new(Code::Unavailable, format!("failed to reach the API server: {}", root(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_ends_by_a_refusal_that_is_the_first_answer_or_stays() {
        let refusal = || Err::<Event<()>, _>(Error::new(Code::Forbidden, "no"));
        let code = |judged: Option<Result<Event<()>, Error>>| judged.and_then(Result::err).map(|error| error.code);
        let mut refusals = Refusals::default();
        assert!(matches!(refusals.judge(Ok(Event::<()>::Init)), Some(Ok(_))));
        assert_eq!(code(refusals.judge(refusal())), Some(Code::Forbidden));
        assert!(refusals.judge(Ok(Event::<()>::InitDone)).is_none());

        let mut refusals = Refusals::default();
        for _ in 0..2 {
            assert!(refusals.judge(Ok(Event::<()>::InitDone)).is_some());
            for _ in 0..MAX_REFUSALS {
                assert_eq!(code(refusals.judge(refusal())), Some(Code::Unavailable));
            }
        }
        assert_eq!(code(refusals.judge(refusal())), Some(Code::Forbidden));
        assert!(refusals.judge(refusal()).is_none());
    }
}
