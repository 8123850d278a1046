//! What people do with tasks, as calls to the API server with their own rights.
//!
//! Nothing in here has rights of its own: the credentials are the caller's. A change of a TaskRun is decided on
//! what was read, and sent on the condition that it is so still.

use super::READ_TIMEOUT;
use super::error::{CALL_TIMEOUT, root};
use crate::crd::{TASK_RUN_UID_LABEL, TaskNames, TaskRun};
use crate::task::{self, Code, Error, Files, Submission, Summary};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Request};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long one change is tried, with all its conflicts and its place in the queue.
const PATIENCE: Duration = Duration::from_secs(50);
/// Longest wait between two attempts, in milliseconds; it begins at a fiftieth.
const MAX_WAIT: u64 = 1_000;
/// Answers that say nothing about the request, after which one is given up.
const MAX_FAILURES: usize = 3;
/// Seconds after which a watch is opened anew, shorter than a connection may be silent.
const WATCH_SECONDS: u32 = 20;
/// What a list has if the caller does not say, and the most that he may have.
pub const PAGE: (u32, u32) = (100, 500);

/// The tasks of a namespace, with somebody's rights.
#[derive(Clone)]
pub struct Tasks {
    client: Client,
    /// For logs, which may be silent for as long as they like.
    patient: Client,
    /// The namespace; all of them, for lists only, where it is empty.
    pub namespace: String,
    /// Where the API server is.
    pub server: String,
    manager: &'static str,
    names: TaskNames,
    queues: Queues,
}

/// What context was added as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Name of the TaskRun.
    pub name: String,
    /// Its file.
    pub filename: String,
    /// The version that it brought.
    pub version: u32,
    /// Whether this request added it, and not an earlier one with the same id.
    pub created: bool,
    /// Why the version will not be run as things are: `cancelled` or `suspended`.
    pub held: Option<&'static str>,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those in this phase.
    pub phase: Option<String>,
    /// At most so many (see [`PAGE`]).
    pub limit: Option<u32>,
    /// Where the last page ended.
    pub after: Option<String>,
}

impl Filter {
    fn params(&self) -> ListParams {
        let params = ListParams::default().limit(self.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1));
        let field_selector = self.phase.as_ref().map(|phase| match phase.as_str() {
            // those that nobody has looked at yet have no phase
            "Pending" => "status.phase!=Running,status.phase!=Succeeded,status.phase!=Failed".to_owned(),
            phase => format!("status.phase={phase}"),
        });
        let label_selector = self.service.as_ref().map(|service| format!("service-name={service}"));
        ListParams { field_selector, label_selector, continue_token: self.after.clone(), ..params }
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Summary>,
    /// What to ask the next page with, if there is one.
    pub next: Option<String>,
}

/// The adds that wait for each other in this process, by task: otherwise all but one of them would be in vain.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<HashMap<(String, String), Place>>>);

type Place = Arc<tokio::sync::Mutex<()>>;

impl Queues {
    /// The place of a task. It is forgotten when nobody waits there any more.
    fn of(&self, namespace: &str, name: &str) -> Place {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        queues.entry((namespace.to_owned(), name.to_owned())).or_default().clone()
    }
}

impl Tasks {
    /// With the rights of this configuration.
    ///
    /// # Errors
    /// If there is no client for it.
    pub fn new(
        mut config: Config,
        namespace: String,
        manager: &'static str,
        names: TaskNames,
        queues: Queues,
    ) -> Result<Self, Error> {
        let client = |config| Client::try_from(config).map_err(|error| unavailable(&error));
        config.default_retry = false;
        config.reset_reader_on_write = true;
        config.read_timeout = None;
        let patient = client(config.clone())?;
        config.read_timeout = Some(READ_TIMEOUT);
        let server = config.cluster_url.to_string();
        Ok(Self { client: client(config)?, patient, namespace, server, manager, names, queues })
    }

    fn api(&self) -> Api<TaskRun> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A task as it is now.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn get(&self, name: &str) -> Result<TaskRun, Error> {
        call(self.api().get(name)).await
    }

    /// Creates a task, or finds that it is there already; says which.
    ///
    /// # Errors
    /// `AlreadyExists`, with all differences, where the task that is there is another one.
    pub async fn submit(&self, submission: &Submission) -> Result<(TaskRun, bool), Error> {
        let new = submission.task_run(self.names);
        let params = PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() };
        match call(self.api().create(&params, &new)).await {
            Ok(created) => return Ok((created, true)),
            Err(error) if error.code == Code::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let name = new.name_any();
        let exists = |why: &str| Error::new(Code::AlreadyExists, format!("TaskRun {name:?} exists already{why}"));
        let stored = match self.get(&name).await {
            Err(error) if error.code == Code::Forbidden => {
                return Err(exists(&format!(", and it cannot be compared: {}", error.message)));
            }
            other => other?,
        };
        if stored.metadata.deletion_timestamp.is_some() {
            return Err(exists(" and is being deleted: try again when it is gone"));
        }
        match submission.differences(&stored).join(", ") {
            none if none.is_empty() => Ok((stored, false)),
            found => Err(exists(&format!(" and is another one: {found}"))),
        }
    }

    /// Adds one file to a task's context, whatever others write meanwhile: it is appended, on the condition that the
    /// context is the one that was read. So it takes nobody's place, `context-v{N}.md` is what brought version N, and
    /// one request id adds one file, as often as it is repeated and through however many replicas.
    ///
    /// # Errors
    /// `TooLarge` if it does not fit, `Invalid` if the id was used with another text.
    pub async fn add_context(&self, name: &str, text: &str, request_id: &str) -> Result<Added, Error> {
        let place = self.queues.of(&self.namespace, name);
        let deadline = Instant::now() + PATIENCE;
        let Ok(_turn) = tokio::time::timeout_at(deadline, place.lock()).await else {
            return Err(Error::new(Code::Unavailable, "too many are adding to this task at once: try again"));
        };
        let mut refused: Option<(u32, Error)> = None;
        let mut may_be_stored = false;
        retried(deadline, Error::is_passing, async || {
            let task_run = self.get(name).await?;
            let version = task_run.spec.context_version;
            if let Some(file) = task::added_by(&task_run, request_id) {
                let is_same = file.content == text;
                let found = added(&task_run, file.filename.clone(), may_be_stored);
                return Ok(if is_same { Ok(found) } else { Err(reused()) });
            }
            if let Some((_, error)) = refused.take().filter(|(refused, _)| *refused == version) {
                return Ok(Err(error));
            }
            match self.append(&task_run, text, request_id).await {
                // its condition did not hold, which nothing tells from other refusals: was it so?
                Err(error) if error.code == Code::Invalid && error.violations.is_empty() => {
                    let again = Error::new(Code::Conflict, "the context has changed");
                    refused = Some((version, error));
                    Err(again)
                }
                Err(error) => {
                    may_be_stored |= error.code == Code::Unavailable;
                    Err(error)
                }
                Ok(added) => Ok(Ok(added)),
            }
        })
        .await
    }

    async fn append(&self, task_run: &TaskRun, text: &str, request_id: &str) -> Result<Added, Error> {
        let name = task_run.name_any();
        if task_run.metadata.deletion_timestamp.is_some() {
            return Err(Error::new(Code::NotFound, format!("TaskRun {name:?} is being deleted")));
        }
        let room = task::room(task_run);
        if !room.fits(text) {
            return Err(Error::too_large(&name, text.len(), room.bytes_left()));
        }
        let (filename, version) = (task::next_filename(task_run), task_run.spec.context_version);
        let file = json!({"filename": filename, "content": text, "requestId": request_id});
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": task_run.metadata.uid},
            {"op": "test", "path": "/spec/contextVersion", "value": version},
            {"op": "add", "path": "/spec/markdownFiles/-", "value": file},
            // as the webhook would
            {"op": "replace", "path": "/spec/contextVersion", "value": version.saturating_add(1)},
        ]);
        let patch = serde_json::from_value(patch).map_err(|error| unavailable(&error))?;
        let stored = call(self.api().patch(&name, &self.manager(), &Patch::<()>::Json(patch))).await?;
        Ok(added(&stored, filename, true))
    }

    /// Suspends a task's runs, or resumes them.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn suspend(&self, name: &str, suspend: bool) -> Result<TaskRun, Error> {
        self.change(name, |task_run| {
            let is_so = task_run.spec.suspend.unwrap_or_default() == suspend;
            Ok((!is_so).then(|| json!({"suspend": suspend})))
        })
        .await
    }

    /// Ends a task's present run for good. Nothing if that has ended: what is added later shall run.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn cancel(&self, name: &str) -> Result<TaskRun, Error> {
        self.change(name, |task_run| {
            let has_ended = task_run.present_run().is_some_and(|run| run.outcome.is_some());
            let is_so = has_ended || task_run.spec.cancel == Some(true);
            Ok((!is_so).then(|| json!({"cancel": true})))
        })
        .await
    }

    /// Runs the present context once more, as the next version, also where it was cancelled.
    ///
    /// # Errors
    /// `Conflict` if the present version is not the one that the caller speaks of.
    pub async fn rerun(&self, name: &str, version: Option<u32>) -> Result<TaskRun, Error> {
        // a change that comes in between makes a version by itself
        let wanted = match version {
            Some(version) => version,
            None => self.get(name).await?.spec.context_version,
        };
        self.change(name, |task_run| match task_run.spec.context_version {
            present if present != wanted => {
                Err(Error::new(Code::Conflict, format!("the present version is {present}, not {wanted}")))
            }
            present => Ok(Some(json!({"contextVersion": present.saturating_add(1), "cancel": null}))),
        })
        .await
    }

    /// Makes the files of an older version the present ones, as the next version, also where it was cancelled.
    /// Nothing where they are the present ones.
    ///
    /// # Errors
    /// `NotFound` if that version's files are not kept.
    pub async fn rollback(&self, name: &str, version: u32) -> Result<TaskRun, Error> {
        let files = self.files(&self.get(name).await?, version).await?;
        self.change(name, |task_run| {
            let next = task_run.spec.context_version.saturating_add(1);
            // the version says that what others have added is removed knowingly
            let patch = |files| json!({"markdownFiles": files, "contextVersion": next, "cancel": null});
            Ok(task::rolled_back(task_run, &files).map(patch))
        })
        .await
    }

    /// Deletes a task: its pod ends first.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        call(self.api().delete(name, &DeleteParams::background())).await.map(|_| ())
    }

    fn manager(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() }
    }

    /// Patches the spec with what is decided on the object as it is, if anything.
    async fn change(
        &self,
        name: &str,
        decide: impl Fn(&TaskRun) -> Result<Option<Value>, Error>,
    ) -> Result<TaskRun, Error> {
        // only what was certainly not carried out is tried again: a version more is a run more
        retried(
            Instant::now() + PATIENCE,
            |error| error.code == Code::Conflict,
            async || {
                let task_run = self.get(name).await?;
                let spec = match decide(&task_run) {
                    Ok(Some(spec)) => spec,
                    Ok(None) => return Ok(Ok(task_run)),
                    Err(error) => return Ok(Err(error)),
                };
                let metadata =
                    json!({"uid": task_run.metadata.uid, "resourceVersion": task_run.metadata.resource_version});
                let params = PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() };
                let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
                call(self.api().patch(name, &params, &patch)).await.map(Ok)
            },
        )
        .await
    }

    /// The files of a version.
    ///
    /// # Errors
    /// `NotFound` where they are not kept: it was passed over, is beyond `historyLimit`, or has never been.
    pub async fn files(&self, task_run: &TaskRun, version: u32) -> Result<Files, Error> {
        if version == task_run.spec.context_version {
            let files = task_run.spec.markdown_files.iter();
            return Ok(files.map(|file| (file.filename.clone(), file.content.clone())).collect());
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
        if is_ours { Ok(found.data.unwrap_or_default()) } else { Err(missing()) }
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
        let mut request = Request::new(path).list(&params).map_err(|error| unavailable(&error))?;
        let with_cells_only = format!("{}&includeObject={object}", request.uri());
        *request.uri_mut() = with_cells_only.parse().map_err(|error| unavailable(&error))?;
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io".parse().map_err(|error| unavailable(&error))?;
        request.headers_mut().insert("accept", accept);
        let table: Value = call(self.client.request(request)).await?;
        let next = table["metadata"]["continue"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
        Ok(Page { tasks: Summary::of_table(&table), next })
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
        let mut is_over = false;
        events.map(|event| event.map_err(|error| of_watch(&error))).take_while(move |event| {
            let was_over = is_over;
            is_over = event.as_ref().is_err_and(|error| !error.is_passing());
            std::future::ready(!was_over)
        })
    }

    /// The pods of a task's runs.
    pub(super) async fn pods(&self, task_run: &TaskRun) -> Result<Vec<Pod>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let uid = task_run.metadata.uid.as_deref().unwrap_or_default();
        Ok(call(pods.list(&ListParams::default().labels(&format!("{TASK_RUN_UID_LABEL}={uid}")))).await?.items)
    }

    /// Pods whose connection may be silent.
    pub(super) fn patient_pods(&self) -> Api<Pod> {
        Api::namespaced(self.patient.clone(), &self.namespace)
    }
}

fn reused() -> Error {
    Error::new(
        Code::Invalid,
        "the request id (Idempotency-Key) was used with another text: take a new one for each request",
    )
}

fn added(task_run: &TaskRun, filename: String, created: bool) -> Added {
    let spec = &task_run.spec;
    let held = match (spec.cancel == Some(true), spec.suspend == Some(true)) {
        (true, _) => Some("cancelled"),
        (_, true) => Some("suspended"),
        _ => None,
    };
    let version = task::version_of(&filename).unwrap_or(spec.context_version);
    Added { name: task_run.name_any(), filename, version, created, held }
}

/// Tries again, with jitter and until the deadline, what failed on what was stored just then.
async fn retried<T>(
    deadline: Instant,
    is_worth_it: impl Fn(&Error) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<Result<T, Error>, Error>,
) -> Result<T, Error> {
    let (mut longest, mut failures) = (MAX_WAIT / 50, 0);
    loop {
        let error = match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Ok(result)) => return result,
            Ok(Err(error)) => error,
            Err(_) => return Err(no_answer()),
        };
        failures += usize::from(error.code == Code::Unavailable);
        let wait = Duration::from_millis(fastrand::u64(longest / 2..=longest));
        if !is_worth_it(&error) || failures > MAX_FAILURES || Instant::now() + wait > deadline {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        longest = (longest * 2).min(MAX_WAIT);
    }
}

/// A call with an end.
pub(super) async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Err(_) => Err(no_answer()),
        Ok(result) => result.map_err(|error| of(&error)),
    }
}

fn of(error: &kube::Error) -> Error {
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

fn no_answer() -> Error {
    Error::new(Code::Unavailable, "no answer from the API server in time: it may have been carried out")
}

fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::new(Code::Unavailable, format!("failed to reach the API server: {}", root(error)))
}
