//! `TaskRun`: a task, its context and what became of each version of it.

use super::name::{ENV_NAME_PATTERN, FILENAME_PATTERN, LABEL_PATTERN, SUBDOMAIN_PATTERN};
use super::{ADOPTS, DEFAULT_HISTORY_LIMIT, MAX_CONTENT_BYTES, RunId, is_subdomain};
use clap::ValueEnum;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A task for an agent: markdown files, of which each version is run once, as one Job.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "orchestrator.io",
    version = "v1",
    kind = "TaskRun",
    plural = "taskruns",
    shortname = "trun",
    namespaced,
    status = "TaskRunStatus",
    derive = "PartialEq",
    doc = "A task for an agent: markdown files, of which each version is run once, as one Job.",
    printcolumn(name = "Task", type_ = "integer", json_path = ".spec.taskId"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.serviceName"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agentName"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".spec.contextVersion"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attempts"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Job", type_ = "string", json_path = ".status.jobName", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(
        name = "Title",
        type_ = "string",
        json_path = r".metadata.annotations.orchestrator\.io/title",
        priority = 1
    ),
    printcolumn(name = "Started", type_ = "string", json_path = ".status.startTime", priority = 1),
    printcolumn(name = "Ended", type_ = "string", json_path = ".status.completionTime", priority = 1),
    selectable = ".spec.serviceName",
    selectable = ".spec.agentName",
    selectable = ".status.phase"
)]
#[x_kube(
    validation = Rule::new("self.taskId == oldSelf.taskId")
        .message("is immutable: create another TaskRun for another task").field_path(".taskId"),
    validation = Rule::new("self.serviceName == oldSelf.serviceName")
        .message("is immutable: create another TaskRun for another service").field_path(".serviceName"),
    validation = Rule::new(VERSION_RULE)
        .message("must rise by exactly 1 when the context changes and by 0 or 1 otherwise: leave it out, the admission webhook sets it (if it is installed)")
        .field_path(".contextVersion"),
)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunSpec {
    /// Number of the task. Immutable. A TaskRun must be called `task-{taskId}`, or
    /// `{serviceName}-task-{taskId}` where the operator runs with `--task-names=by-service`.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub task_id: u32,

    /// The service that the task belongs to: a DNS-1123 label. Immutable.
    #[schemars(length(min = 1, max = 40), regex(pattern = LABEL_PATTERN))]
    pub service_name: String,

    /// Name of the Agent, in the same namespace, that works on the task.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub agent_name: String,

    /// Version of the context, managed by the admission webhook: leave it out. It starts at 1 and
    /// rises by 1 with each change of a file's name or content, of `agentName` or of `env`. Written
    /// as the present value + 1 it runs the same context again.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub context_version: u32,

    /// The context: 1 to 1,000 markdown files, at most 900 KiB in sum. The agent finds them in its
    /// context folder under these names.
    #[serde(default)]
    #[schemars(length(max = 1_000))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["filename".into()]),
        validation = Rule::new(format!("self.map(f, size(f.content)).sum() <= {MAX_CONTENT_BYTES}"))
            .message("contents may have at most 900 KiB in sum: shorten them or move parts to where the agent can fetch them")
    )]
    pub markdown_files: Vec<MarkdownFile>,

    /// Environment of the agent for this task: at most 64 literal values. Secrets belong to the
    /// Agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// While true no run starts, and a running one is suspended: its pod ends, the run goes on when
    /// this is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// While true the present run is stopped for good (phase Failed, reason Cancelled), its Job
    /// kept, and nothing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,

    /// Whether new context ends the running Job (`Restart`, the default) or waits for its end
    /// (`AfterCompletion`); of several versions that wait only the newest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_update_policy: Option<ContextUpdatePolicy>,

    /// Finished runs of older versions that are kept, each with its files and, unless it was superseded,
    /// its Job. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub history_limit: Option<u32>,

    /// Seconds after the end of the newest version's run at which this TaskRun is deleted. Default:
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// The version rises by 0 or 1, and by exactly 1 when content changed: held by the API server even
/// while the webhook is away. Files are compared as a map of names to contents: neither order nor
/// `requestId` count (`transformMapEntry`: Kubernetes 1.33).
const VERSION_RULE: &str = "!has(oldSelf.contextVersion) || self.contextVersion == oldSelf.contextVersion + 1 || \
    (self.contextVersion == oldSelf.contextVersion && self.agentName == oldSelf.agentName \
    && (has(self.env) ? self.env : []) == (has(oldSelf.env) ? oldSelf.env : []) \
    && (has(self.markdownFiles) ? self.markdownFiles : []).transformMapEntry(i, f, {f.filename: f.content}) \
    == (has(oldSelf.markdownFiles) ? oldSelf.markdownFiles : []).transformMapEntry(i, f, {f.filename: f.content}))";

impl TaskRun {
    /// Which trace its present version is told in; nothing where the annotation is malformed.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        let annotation = self.metadata.annotations.as_ref()?.get(super::TRACEPARENT)?;
        Some(annotation.as_str()).filter(|text| super::is_traceparent(text))
    }

    /// The runs that are recorded, oldest first.
    #[must_use]
    pub fn runs(&self) -> &[RunStatus] {
        self.status.as_ref().map(|status| status.runs.as_slice()).unwrap_or_default()
    }

    /// The run of the present version, if one was recorded.
    #[must_use]
    pub fn present_run(&self) -> Option<&RunStatus> {
        self.status.as_ref()?.run(self.spec.context_version)
    }

    /// Where it stands: pending as long as nobody has looked at it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending)
    }

    /// Whether somebody has to act before it goes on. One that has ended does not.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        let is_on = conditions.filter(|condition| condition.status == "True").any(|on| on.type_ == "Stalled");
        is_on && matches!(self.phase(), Phase::Pending | Phase::Running)
    }

    /// The older run whose end the present version waits for.
    #[must_use]
    pub fn run_waited_for(&self) -> Option<&RunStatus> {
        let status = self.status.as_ref().filter(|_| self.present_run().is_none())?;
        let is_older = |run: &&RunStatus| run.outcome.is_none() && run.context_version < self.spec.context_version;
        status.runs.iter().rfind(|run| is_older(run) && self.is_waited_for(run))
    }

    /// Whether newer versions wait for this run's end: `AfterCompletion` says so, or its Job is somebody else's.
    #[must_use]
    pub fn is_waited_for(&self, run: &RunStatus) -> bool {
        self.spec.context_update_policy == Some(ContextUpdatePolicy::AfterCompletion) || self.is_adopted(run)
    }

    /// Whether the run's Job is somebody else's: it has not the name that we would have given it.
    #[must_use]
    pub fn is_adopted(&self, run: &RunStatus) -> bool {
        let ours = || self.spec.run_id_of(run.context_version).to_string();
        run.job_name.as_ref().is_some_and(|name| *name != ours())
    }

    /// The Job that version 1 is, as long as no run is recorded.
    #[must_use]
    pub fn adoption(&self) -> Option<Adoption<'_>> {
        self.annotations().get(ADOPTS).filter(|_| self.runs().is_empty()).map(|text| Adoption::of(text))
    }

    /// The name of the present version's Job.
    #[must_use]
    pub fn present_job(&self) -> String {
        let recorded = self.present_run().and_then(|run| run.job_name.clone());
        recorded.unwrap_or_else(|| self.spec.run_id().to_string())
    }

    /// The older runs that have ended and that `historyLimit` leaves no place for.
    #[must_use]
    pub fn surplus_runs(&self) -> &[RunStatus] {
        let present = self.spec.context_version;
        let runs = self.runs();
        let ended = runs.iter().take_while(|run| run.outcome.is_some() && run.context_version < present).count();
        &runs[..ended.saturating_sub(self.spec.history_limit())]
    }
}

/// A Job of somebody else, as the annotation [`ADOPTS`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption<'a> {
    /// Its name.
    pub job: &'a str,
    /// Its uid; absent where it is gone.
    pub uid: Option<&'a str>,
}

impl<'a> Adoption<'a> {
    /// As the annotation says it.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let (job, uid) = text.split_once('/').map_or((text, None), |(job, uid)| (job, Some(uid)));
        Self { job, uid }
    }

    /// Whether an API server could have given a Job this name and this uid: both go into calls.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_uid = |uid: &str| (1..=63).contains(&uid.len()) && uid.bytes().all(is_letter);
        is_subdomain(self.job) && self.uid.is_none_or(is_uid)
    }
}

impl TaskRunSpec {
    /// The present version as a run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.run_id_of(self.context_version)
    }

    /// Another version as a run.
    #[must_use]
    pub fn run_id_of(&self, version: u32) -> RunId {
        RunId { service_name: self.service_name.clone(), task_id: self.task_id, version }
    }

    /// Whether nothing may start: it is suspended or cancelled.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.suspend == Some(true) || self.cancel == Some(true)
    }

    /// `historyLimit` or its default.
    #[must_use]
    pub fn history_limit(&self) -> usize {
        self.history_limit.unwrap_or(DEFAULT_HISTORY_LIMIT) as usize
    }
}

/// One markdown file of the context.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MarkdownFile {
    /// Name of the file, ending in `.md`.
    #[schemars(length(max = 128), regex(pattern = FILENAME_PATTERN))]
    pub filename: String,

    /// The markdown. White space, HTML comments, front matter and link definitions alone do not
    /// count as content.
    #[schemars(length(max = 921_600))]
    pub content: String,

    /// Which request added the file: makes a retried add find its own. Not part of the content. A change
    /// that leaves the file out removes it only if it names it in the annotation
    /// `orchestrator.io/remove-files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub request_id: Option<String>,
}

/// A literal environment variable.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Name of the variable: a C identifier.
    #[schemars(length(min = 1, max = 128), regex(pattern = ENV_NAME_PATTERN))]
    pub name: String,

    /// Its value.
    #[serde(default)]
    #[schemars(length(max = 32_768))]
    pub value: String,
}

/// What new context does to a run that is going on.
#[derive(JsonSchema, ToSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextUpdatePolicy {
    /// It ends the run.
    #[default]
    Restart,
    /// It waits for the run's end.
    AfterCompletion,
}

/// A word for where the present version stands.
#[derive(JsonSchema, ToSchema, ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum Phase {
    /// Its pod has not started.
    #[value(help = None)]
    Pending,
    /// Its pod runs.
    #[value(help = None)]
    Running,
    /// It ended well.
    #[value(help = None)]
    Succeeded,
    /// It ended badly, or was cancelled.
    #[value(help = None)]
    Failed,
}

impl Phase {
    /// As it stands in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// How a run ended.
#[derive(JsonSchema, ToSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its Job completed.
    Succeeded,
    /// Its Job failed.
    Failed,
    /// A newer version ended it, or came before it could start.
    Superseded,
    /// `spec.cancel` ended it.
    Cancelled,
    /// Its Job was gone before its end was seen.
    Unknown,
}

impl Outcome {
    /// As it stands in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Superseded => "Superseded",
            Self::Cancelled => "Cancelled",
            Self::Unknown => "Unknown",
        }
    }
}

/// What became of the task.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunStatus {
    /// Where the version `contextVersion` stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Its Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// Pods of its run that have started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When this status last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
    /// The version that `phase` speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_version: Option<u32>,
    /// `metadata.generation` that this status was derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When its run was released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When its run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// `Complete`, `Failed`, `Suspended`, `Reconciling` (true until the run is over) and `Stalled`
    /// (somebody has to act; true on failure too).
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Runs, oldest first: a version that is in here is never started again.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["contextVersion"]))]
    pub runs: Vec<RunStatus>,
}

impl TaskRunStatus {
    /// The run of this version, if one was recorded.
    #[must_use]
    pub fn run(&self, version: u32) -> Option<&RunStatus> {
        self.runs.iter().find(|run| run.context_version == version)
    }
}

/// One run: a context version being worked on, or passed over.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// The version.
    pub context_version: u32,
    /// Its Job; absent where the version was passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The uid of its Job: only this one is ever released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_uid: Option<String>,
    /// How it ended; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Pods that have started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The uids of the pods that `attempts` counts and that may still be seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_uids: Vec<String>,
    /// When it was recorded, just before its release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The user whose change made the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
}
