//! What clients get: the predecessor's envelope, `{success, message, data}`, and a code where something is wrong.

use crate::crd::{ContextUpdatePolicy, Outcome, Phase, RunStatus, TaskRun};
use crate::task::{Code, Error, Summary, TITLE};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// A good answer.
#[derive(Serialize, ToSchema)]
pub struct Answer<T> {
    /// `true`.
    success: bool,
    /// A sentence for people.
    message: String,
    /// What was asked for.
    data: T,
}

impl<T: Serialize> Answer<T> {
    /// With status 200.
    pub fn ok(message: impl Into<String>, data: T) -> HttpResponse {
        HttpResponse::Ok().json(Self { success: true, message: message.into(), data })
    }
}

/// A bad answer.
#[derive(Serialize, ToSchema, Clone, Debug)]
pub struct Failure {
    /// `false`.
    success: bool,
    /// What is wrong and what to do, with the API server's reason.
    message: String,
    /// For programs; stable.
    code: &'static str,
    /// The fields that are wrong, if any: paths in the TaskRun.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Wrong>,
    /// Bytes that the context has left, where it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_left: Option<usize>,
    #[serde(skip)]
    status: u16,
    #[serde(skip)]
    retry_after: Option<u32>,
    #[serde(skip)]
    allowed: Option<&'static str>,
}

/// A field that is wrong.
#[derive(Serialize, ToSchema, Clone, Debug)]
pub struct Wrong {
    /// Its path.
    field: String,
    /// Why, and what to do.
    message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let wrong =
            |violation: crate::admission::Violation| Wrong { field: violation.field, message: violation.message };
        Self {
            success: false,
            message: error.message,
            code: error.code.as_str(),
            violations: error.violations.into_iter().map(wrong).collect(),
            bytes_left: error.bytes_left,
            status: error.code.status(),
            retry_after: error.retry_after,
            allowed: None,
        }
    }
}

impl Failure {
    /// One without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error::new(code, message).into()
    }

    /// Come back after this.
    pub fn too_many(wait: std::time::Duration) -> Self {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let failure = Self::new(Code::RateLimited, format!("too many requests: come back in {seconds} s"));
        Self { retry_after: Some(seconds), ..failure }
    }

    /// A method that this path does not have (RFC 9110, 15.5.6).
    pub fn method(allowed: &'static str) -> Self {
        let failure = Self::new(Code::InvalidRequest, format!("this path has {allowed}: see /api/v1/docs/"));
        Self { status: 405, code: "method_not_allowed", allowed: Some(allowed), ..failure }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Some(methods) = self.allowed {
            response.insert_header((ALLOW, methods));
        }
        if self.status == 401 {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self)
    }
}

/// What was submitted.
#[derive(Serialize, ToSchema)]
pub struct Submitted {
    /// Name of the TaskRun.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service.
    pub service: String,
    /// Number of the task.
    pub task_id: u32,
    /// Its present version.
    pub context_version: u32,
    /// Whether it is new; otherwise the same was submitted before.
    pub created: bool,
}

/// What context was added as.
#[derive(Serialize, ToSchema)]
pub struct ContextAdded {
    /// Name of the TaskRun.
    pub name: String,
    /// The version that it brought.
    pub context_version: u32,
    /// Its file.
    pub filename: String,
    /// Whether this request added it; otherwise one with the same `Idempotency-Key` had.
    pub created: bool,
}

/// A task after it was acted on.
#[derive(Serialize, ToSchema)]
pub struct Acted {
    /// Name of the TaskRun.
    pub name: String,
    /// Its present version.
    pub context_version: u32,
}

impl From<&TaskRun> for Acted {
    fn from(task_run: &TaskRun) -> Self {
        Self { name: task_run.name_any(), context_version: task_run.spec.context_version }
    }
}

/// A task that will be gone.
#[derive(Serialize, ToSchema)]
pub struct Name {
    /// Name of the TaskRun.
    pub name: String,
}

/// A page of tasks.
#[derive(Serialize, ToSchema)]
pub struct TaskList {
    /// The tasks, by name.
    pub tasks: Vec<TaskSummary>,
    /// Ask for the next page with this; absent on the last.
    #[serde(rename = "continue")]
    pub next: Option<String>,
}

/// A task on one line.
#[derive(Serialize, ToSchema)]
pub struct TaskSummary {
    name: String,
    task_id: u32,
    service: String,
    agent_name: String,
    title: String,
    /// The newest version.
    context_version: u32,
    #[schema(value_type = Phase)]
    phase: String,
    /// Pods of the run that have started.
    attempts: u32,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    completed_at: Option<String>,
    job_name: Option<String>,
    message: String,
}

impl From<Summary> for TaskSummary {
    fn from(summary: Summary) -> Self {
        Self {
            name: summary.name,
            task_id: summary.task_id,
            service: summary.service,
            agent_name: summary.agent,
            title: summary.title,
            context_version: summary.version,
            phase: summary.phase,
            attempts: summary.attempts,
            started_at: summary.started,
            completed_at: summary.ended,
            job_name: summary.job,
            message: summary.message,
        }
    }
}

/// A page of all tasks, in a stream.
#[derive(Serialize)]
pub struct Snapshot {
    /// The tasks, by name.
    pub tasks: Vec<TaskSummary>,
    /// What was told before is old.
    pub first: bool,
    /// What is old still, is gone.
    pub last: bool,
}

/// What has happened since, in a stream.
#[derive(Serialize, Default)]
pub struct Changes {
    /// Tasks as they are now.
    pub tasks: Vec<TaskSummary>,
    /// Names of those that are gone.
    pub deleted: Vec<String>,
}

/// A whole task.
#[derive(Serialize, ToSchema)]
pub struct WholeTask {
    name: String,
    namespace: String,
    /// Another one where the task was deleted and made again.
    uid: String,
    task_id: u32,
    service: String,
    agent_name: String,
    title: String,
    /// The newest version.
    context_version: u32,
    /// Who made it.
    changed_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Time>,
    suspend: bool,
    cancel: bool,
    context_update_policy: ContextUpdatePolicy,
    env: BTreeMap<String, String>,
    markdown_files: Vec<File>,
    status: Status,
    runs: Vec<Run>,
}

impl From<TaskRun> for WholeTask {
    fn from(task_run: TaskRun) -> Self {
        let annotation = |key| task_run.annotations().get(key).cloned();
        let status = Status::from(&task_run);
        let spec = task_run.spec.clone();
        Self {
            name: task_run.name_any(),
            namespace: task_run.namespace().unwrap_or_default(),
            uid: task_run.metadata.uid.clone().unwrap_or_default(),
            task_id: spec.task_id,
            title: annotation(TITLE).unwrap_or_default(),
            changed_by: annotation(crate::crd::CHANGED_BY),
            service: spec.service_name,
            agent_name: spec.agent_name,
            context_version: spec.context_version,
            suspend: spec.suspend.unwrap_or_default(),
            created_at: task_run.metadata.creation_timestamp.clone(),
            cancel: spec.cancel.unwrap_or_default(),
            context_update_policy: spec.context_update_policy.unwrap_or_default(),
            env: spec.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
            markdown_files: spec.markdown_files.into_iter().map(File::from).collect(),
            status,
            runs: task_run.status.unwrap_or_default().runs.into_iter().map(Run::from).collect(),
        }
    }
}

/// One file of a context.
#[derive(Serialize, ToSchema)]
pub struct File {
    /// Its name.
    pub filename: String,
    /// The markdown.
    pub content: String,
    /// The request that added it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl From<crate::crd::MarkdownFile> for File {
    fn from(file: crate::crd::MarkdownFile) -> Self {
        Self { filename: file.filename, content: file.content, request_id: file.request_id }
    }
}

/// Where a task stands.
#[derive(Serialize, ToSchema, Clone, PartialEq)]
pub struct Status {
    phase: Phase,
    /// The version that `phase` speaks of.
    context_version: u32,
    /// The newest version.
    latest_context_version: u32,
    /// Whether the task is being deleted: its run ends first.
    deleting: bool,
    job_name: Option<String>,
    attempts: u32,
    message: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_updated: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    completed_at: Option<Time>,
    /// As in the TaskRun: `Complete`, `Failed`, `Suspended`, `Reconciling`, `Stalled`.
    #[schema(value_type = Vec<Object>)]
    conditions: Vec<Condition>,
}

impl From<&TaskRun> for Status {
    fn from(task_run: &TaskRun) -> Self {
        let latest = task_run.spec.context_version;
        let status = task_run.status.clone().unwrap_or_default();
        Self {
            phase: status.phase.unwrap_or(Phase::Pending),
            context_version: status.context_version.unwrap_or(latest),
            latest_context_version: latest,
            deleting: task_run.metadata.deletion_timestamp.is_some(),
            job_name: status.job_name,
            attempts: status.attempts.unwrap_or_default(),
            message: status.message.unwrap_or_else(|| "Task has not started yet".to_owned()),
            last_updated: status.last_updated,
            started_at: status.start_time,
            completed_at: status.completion_time,
            conditions: status.conditions,
        }
    }
}

/// One version that was run, or passed over.
#[derive(Serialize, ToSchema)]
pub struct Run {
    context_version: u32,
    /// How it ended; absent while it goes on.
    outcome: Option<Outcome>,
    job_name: Option<String>,
    attempts: u32,
    message: Option<String>,
    /// Who made the version.
    changed_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    completed_at: Option<Time>,
}

impl From<RunStatus> for Run {
    fn from(run: RunStatus) -> Self {
        Self {
            context_version: run.context_version,
            outcome: run.outcome,
            job_name: run.job_name,
            attempts: run.attempts.unwrap_or_default(),
            message: run.message,
            changed_by: run.changed_by,
            started_at: run.start_time,
            completed_at: run.completion_time,
        }
    }
}

/// The versions of a task.
#[derive(Serialize, ToSchema)]
pub struct History {
    /// Name of the TaskRun.
    pub name: String,
    /// The newest version.
    pub context_version: u32,
    /// Oldest first; the newest version is in it once its run was recorded.
    pub runs: Vec<Run>,
    /// When the files of each version that is kept were stored, as far as the caller may list ConfigMaps.
    #[schema(value_type = BTreeMap<String, String>)]
    pub stored_at: BTreeMap<u32, Time>,
}

/// The files of a version.
#[derive(Serialize, ToSchema)]
pub struct VersionFiles {
    /// Name of the TaskRun.
    pub name: String,
    /// The version.
    pub context_version: u32,
    /// Its files, by name.
    pub markdown_files: Vec<File>,
}

/// What the cluster has told of a task.
#[derive(Serialize, ToSchema)]
pub struct KubernetesEvents {
    /// Name of the TaskRun.
    pub name: String,
    /// Oldest first.
    pub events: Vec<KubernetesEvent>,
}

/// An Event of a task, or of its Job.
#[derive(Serialize, ToSchema)]
pub struct KubernetesEvent {
    /// `TaskRun` or `Job`.
    kind: String,
    /// `Normal` or `Warning`.
    severity: String,
    reason: String,
    message: String,
    /// How many times it was told.
    count: i32,
    /// When it was told last.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Time>,
}

impl From<Event> for KubernetesEvent {
    fn from(event: Event) -> Self {
        let series = event.series.unwrap_or_default();
        let micro = series.last_observed_time.or(event.event_time).map(|time| Time(time.0));
        Self {
            kind: event.involved_object.kind.unwrap_or_default(),
            severity: event.type_.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            count: series.count.or(event.count).unwrap_or(1),
            at: event.last_timestamp.or(micro).or(event.metadata.creation_timestamp),
        }
    }
}

impl KubernetesEvents {
    /// In the order of time.
    pub fn new(name: String, events: Vec<Event>) -> Self {
        let mut events: Vec<KubernetesEvent> = events.into_iter().map(KubernetesEvent::from).collect();
        events.sort_by_key(|event| event.at.as_ref().map(|at| at.0));
        Self { name, events }
    }
}
