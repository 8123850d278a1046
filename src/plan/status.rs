//! The status: where the present version stands, and what became of the others.
//!
//! One write per plan, none where nothing changed; events come from the difference between the old
//! and the new status, so that a transition is told once.

use super::liveness::{is_alive, job_uid, outcome};
use super::{Observed, Step};
use crate::crd::{CHANGED_BY, Conditions, Outcome, Phase, RunStatus, TaskRunStatus, reason};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// Longest `message`, in characters: etcd stores the whole object with each change.
const MAX_MESSAGE: usize = 1_024;
/// Most pods that are gone and that a run remembers having counted.
const MAX_POD_UIDS: usize = 32;

/// Something worth telling people: becomes an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look.
    pub warning: bool,
    /// CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
    /// The Job that it is about, where there is one.
    pub job: Option<String>,
}

impl Notice {
    /// The deletion did not wait any longer.
    #[must_use]
    pub fn cleanup_deadline(alive: &[String]) -> Self {
        let note = format!("deleted although this still lives: {}; see to it that it ends", alive.join(", "));
        Self { warning: true, reason: "CleanupDeadline".to_owned(), note, job: None }
    }
}

/// Where the present version stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    phase: Phase,
    reason: String,
    message: String,
    stalled: bool,
    suspended: bool,
    /// The present version's run, where there is one.
    run: Option<RunStatus>,
    /// Whether older runs are over: said together with the record of the new one.
    ends_older: bool,
}

impl Standing {
    fn new(phase: Phase, reason: &str, message: &str) -> Self {
        Self {
            phase,
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            stalled: false,
            suspended: false,
            run: None,
            ends_older: false,
        }
    }

    pub(super) fn stalled(reason: &str, message: &str) -> Self {
        Self { stalled: true, ..Self::new(Phase::Pending, reason, message) }
    }

    pub(super) fn suspended() -> Self {
        let message = "suspended: set spec.suspend to false to run it";
        Self { suspended: true, ..Self::new(Phase::Pending, reason::SUSPENDED, message) }
    }

    pub(super) fn waiting(message: &str) -> Self {
        Self::new(Phase::Pending, reason::WAITING_FOR_PREVIOUS_RUN, message)
    }

    /// Protocol §4: from now on this Job, and no other, is the version's run.
    pub(super) fn recorded(observed: &Observed, job: &Job) -> Self {
        let run = RunStatus {
            job_name: Some(job.name_any()),
            job_uid: job.metadata.uid.clone(),
            start_time: Some(Time(observed.now)),
            ..new_run(observed)
        };
        let message = format!("Job {} is about to start", job.name_any());
        Self { run: Some(run), ends_older: true, ..Self::new(Phase::Pending, reason::STARTING, &message) }
    }

    /// The version was cancelled before it had a run.
    pub(super) fn cancelled(observed: &Observed) -> Self {
        let run = RunStatus {
            outcome: Some(Outcome::Cancelled),
            completion_time: Some(Time(observed.now)),
            message: Some("cancelled before it started".to_owned()),
            ..new_run(observed)
        };
        Self { ends_older: true, ..Self::ended(&run) }
    }

    /// The recorded Job is not there any more: the run is over, and never starts again.
    pub(super) fn gone(observed: &Observed, run: &RunStatus) -> Self {
        let name = run.job_name.as_deref().unwrap_or_default();
        let (outcome, message) = match observed.task_run.spec.cancel {
            Some(true) => (Outcome::Cancelled, "cancelled".to_owned()),
            _ => (
                Outcome::Unknown,
                format!("Job {name} was gone before its end was seen; a new context version starts a new run"),
            ),
        };
        let completion_time = Some(Time(observed.now));
        Self::ended(&RunStatus { outcome: Some(outcome), completion_time, message: Some(message), ..over(run) })
    }

    /// What the run's Job and its pods say.
    pub(super) fn of_job(observed: &Observed, run: &RunStatus, job: &Job) -> Self {
        let pods: Vec<&Pod> = observed.pods.iter().filter(|pod| job_uid(pod) == job.metadata.uid.as_deref()).collect();
        let run = count_attempts(run, &pods);
        let name = job.name_any();
        if let Some((outcome, condition)) = outcome(job) {
            let is_cancelled = outcome == Outcome::Failed && observed.task_run.spec.cancel == Some(true);
            let (outcome, message) = match outcome {
                _ if is_cancelled => (Outcome::Cancelled, "cancelled".to_owned()),
                Outcome::Succeeded => (outcome, last_word(&pods).unwrap_or_else(|| format!("Job {name} succeeded"))),
                _ => (outcome, failure(condition, &pods)),
            };
            let run = RunStatus {
                outcome: Some(outcome),
                completion_time: condition.last_transition_time.clone().or(Some(Time(observed.now))),
                message: Some(message.chars().take(MAX_MESSAGE).collect()),
                ..over(&run)
            };
            let why = condition.reason.as_deref().filter(|_| outcome == Outcome::Failed);
            return Self { reason: why.unwrap_or(default_reason(outcome)).to_owned(), ..Self::ended(&run) };
        }
        if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) && observed.task_run.spec.suspend == Some(true)
        {
            return Self { run: Some(run), ..Self::suspended() };
        }
        if job.metadata.deletion_timestamp.is_some() {
            let message = format!("Job {name} is being deleted");
            return Self { run: Some(run), ..Self::new(Phase::Running, reason::RUNNING, &message) };
        }
        // a pod that has ended is not counted by the Job at once: the run goes on until it is
        let has_started = |pod: &&Pod| phase(pod).is_some_and(|phase| phase != "Pending");
        let runs = pods.iter().any(|pod| is_alive(pod) && has_started(pod))
            || (!pods.is_empty() && pods.iter().all(has_started));
        if runs {
            let message = format!("Job {name} is running");
            return Self { run: Some(run), ..Self::new(Phase::Running, reason::RUNNING, &message) };
        }
        let stuck = pods.iter().find_map(|pod| stuck(pod));
        let message = stuck.clone().map_or_else(|| format!("Job {name} is about to start"), |(_, message)| message);
        let why = stuck.as_ref().map_or(reason::STARTING, |(reason, _)| reason);
        Self { run: Some(run), stalled: stuck.is_some(), ..Self::new(Phase::Pending, why, &message) }
    }

    /// The run is over: said as it was recorded.
    pub(super) fn ended(run: &RunStatus) -> Self {
        let outcome = run.outcome.unwrap_or(Outcome::Unknown);
        let phase = if outcome == Outcome::Succeeded { Phase::Succeeded } else { Phase::Failed };
        let message = run.message.as_deref().unwrap_or_default();
        Self { run: Some(run.clone()), ..Self::new(phase, default_reason(outcome), message) }
    }
}

fn default_reason(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => reason::SUCCEEDED,
        Outcome::Cancelled => reason::CANCELLED,
        Outcome::Unknown => reason::JOB_GONE,
        Outcome::Failed | Outcome::Superseded => reason::JOB_FAILED,
    }
}

/// A run that is over counts no more pods.
fn over(run: &RunStatus) -> RunStatus {
    RunStatus { pod_uids: vec![], ..run.clone() }
}

fn new_run(observed: &Observed) -> RunStatus {
    RunStatus {
        context_version: observed.task_run.spec.context_version,
        changed_by: observed.task_run.annotations().get(CHANGED_BY).cloned(),
        ..RunStatus::default()
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.phase.as_deref())
}

/// Adds the pods that have started since, told apart by uid: the Job's own counters forget some.
fn count_attempts(run: &RunStatus, pods: &[&Pod]) -> RunStatus {
    let started = |pod: &&&Pod| phase(pod).is_some_and(|phase| phase != "Pending");
    let uids = pods.iter().filter(started).filter_map(|pod| pod.uid());
    let new: Vec<String> = uids.filter(|uid| !run.pod_uids.contains(uid)).collect();
    if new.is_empty() {
        return run.clone();
    }
    let attempts = run.attempts.unwrap_or(0) + u32::try_from(new.len()).unwrap_or(u32::MAX);
    // one that is still there must be remembered, or it would be counted again
    let is_there = |uid: &String| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid));
    let (there, mut gone): (Vec<_>, Vec<_>) = [run.pod_uids.clone(), new].concat().into_iter().partition(is_there);
    gone.drain(..gone.len().saturating_sub(MAX_POD_UIDS));
    let pod_uids = [gone, there].concat();
    RunStatus { attempts: Some(attempts), pod_uids, ..run.clone() }
}

fn failure(condition: &JobCondition, pods: &[&Pod]) -> String {
    let why = condition.message.as_deref().unwrap_or("the Job failed");
    match last_word(pods) {
        Some(word) => format!("{why}; {word}"),
        None => why.to_owned(),
    }
}

/// What the containers of the last pod said at their end.
fn last_word(pods: &[&Pod]) -> Option<String> {
    let last = pods.iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0))?;
    let words: Vec<String> = container_statuses(last)
        .filter_map(|status| {
            let ended = status.state.as_ref()?.terminated.as_ref()?;
            let text = ended.message.as_deref().map(str::trim).filter(|text| !text.is_empty());
            match (ended.exit_code, text) {
                (0, None) => None,
                (0, Some(text)) => Some(text.to_owned()),
                (code, text) => Some(format!(
                    "container {} ended with exit code {code}{}",
                    status.name,
                    text.map(|text| format!(": {text}")).unwrap_or_default()
                )),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// Why a pod does not start, where it will not by itself.
fn stuck(pod: &Pod) -> Option<(String, String)> {
    const HOPELESS: [&str; 6] = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    let waiting = container_statuses(pod).find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().filter(|reason| HOPELESS.contains(&reason.as_str()))?;
        // the two alternate every few seconds: one word, or the status would be written each time
        let reason = if reason == "ErrImagePull" { "ImagePullBackOff".to_owned() } else { reason };
        let message = format!("container {} of pod {} does not start: {reason}", status.name, pod.name_any());
        Some((reason, message))
    });
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unscheduled =
        conditions.iter().find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"));
    waiting.or_else(|| {
        unscheduled
            .map(|_| ("Unschedulable".to_owned(), format!("no node takes pod {}: see its events", pod.name_any())))
    })
}

fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
}

/// The status write and the events that follow it; nothing where the status says so already.
pub(super) fn status_steps(observed: &Observed, standing: &Standing) -> Vec<Step> {
    let old = observed.status();
    let mut new = next_status(observed, &old, standing);
    if new == old {
        return vec![];
    }
    new.last_updated = Some(Time(observed.now));
    let patch = json!({
        "metadata": {"resourceVersion": observed.task_run.metadata.resource_version},
        "status": merge_patch(&old, &new),
    });
    let mut steps = vec![Step::PatchStatus(patch)];
    steps.extend(notices(&old, &new).into_iter().map(Step::Publish));
    steps
}

fn next_status(observed: &Observed, old: &TaskRunStatus, standing: &Standing) -> TaskRunStatus {
    let version = observed.task_run.spec.context_version;
    let conditions = Conditions {
        reason: &standing.reason,
        message: &standing.message,
        complete: standing.phase == Phase::Succeeded,
        failed: standing.phase == Phase::Failed,
        suspended: standing.suspended,
        stalled: standing.stalled,
    };
    let generation = observed.task_run.metadata.generation;
    let run = standing.run.as_ref();
    TaskRunStatus {
        phase: Some(standing.phase),
        job_name: run.and_then(|run| run.job_name.clone()),
        attempts: run.and_then(|run| run.attempts),
        message: Some(standing.message.clone()),
        last_updated: old.last_updated.clone(),
        context_version: Some(version),
        observed_generation: generation,
        start_time: run.and_then(|run| run.start_time.clone()),
        completion_time: run.and_then(|run| run.completion_time.clone()),
        conditions: keep_reason(conditions.build(&old.conditions, generation, observed.now), old, standing),
        runs: next_runs(observed, old, standing),
    }
}

/// An ended run's reason (`DeadlineExceeded`, …) was taken from its Job, which may be gone by now.
fn keep_reason(mut conditions: Vec<Condition>, old: &TaskRunStatus, standing: &Standing) -> Vec<Condition> {
    let version = standing.run.as_ref().filter(|run| run.outcome.is_some()).map(|run| run.context_version);
    let was_ended = version.and_then(|version| old.run(version)).is_some_and(|run| run.outcome.is_some());
    if was_ended && old.context_version == version {
        for condition in &mut conditions {
            let before = old.conditions.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
            if let Some(before) = before {
                condition.reason.clone_from(&before.reason);
            }
        }
    }
    conditions
}

/// The runs with the present one put in; older ones that had not ended are over once it is recorded,
/// and versions passed over in a burst are listed without a Job.
fn next_runs(observed: &Observed, old: &TaskRunStatus, standing: &Standing) -> Vec<RunStatus> {
    let Some(run) = &standing.run else { return old.runs.clone() };
    let version = run.context_version;
    let mut runs: Vec<RunStatus> = old.runs.iter().filter(|r| r.context_version != version).cloned().collect();
    if standing.ends_older {
        for older in runs.iter_mut().filter(|older| older.outcome.is_none()) {
            *older = end_older(observed, older, version);
        }
        let last = runs.iter().map(|run| run.context_version).max();
        let passed_over = last.map_or(version..version, |last| last.saturating_add(1)..version);
        // a burst may pass over many, and only the last ones fit the history
        let keep = u32::try_from(observed.task_run.spec.history_limit()).unwrap_or(u32::MAX);
        let first = passed_over.end.saturating_sub(keep).max(passed_over.start);
        runs.extend((first..passed_over.end).map(|version| RunStatus {
            context_version: version,
            outcome: Some(Outcome::Superseded),
            completion_time: Some(Time(observed.now)),
            message: Some("a newer version came before it started".to_owned()),
            ..RunStatus::default()
        }));
    }
    runs.push(run.clone());
    runs.sort_by_key(|run| run.context_version);
    runs
}

fn end_older(observed: &Observed, older: &RunStatus, version: u32) -> RunStatus {
    let job = observed.other_jobs.iter().find(|job| job.metadata.uid.is_some() && job.metadata.uid == older.job_uid);
    if let Some(job) = job.filter(|job| outcome(job).is_some())
        && let Some(run) = Standing::of_job(observed, older, job).run
    {
        return run;
    }
    RunStatus {
        outcome: Some(Outcome::Superseded),
        completion_time: Some(Time(observed.now)),
        message: Some(format!("superseded by version {version}")),
        ..over(older)
    }
}

/// JSON merge patch (RFC 7396) from one status to the other: lists are replaced whole.
fn merge_patch(old: &TaskRunStatus, new: &TaskRunStatus) -> Value {
    let object = |status: &TaskRunStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let set = set.map(|(key, value)| (key.clone(), value.clone()));
    Value::Object(gone.chain(set).collect())
}

/// What a change of status means to people.
fn notices(old: &TaskRunStatus, new: &TaskRunStatus) -> Vec<Notice> {
    let version = new.context_version.unwrap_or_default();
    let message = new.message.as_deref().unwrap_or_default();
    let mut notices = vec![];
    for run in &new.runs {
        let was_over = old.run(run.context_version).is_none_or(|run| run.outcome.is_some());
        if run.outcome == Some(Outcome::Superseded) && !was_over {
            let note = format!("version {} was superseded by version {version}", run.context_version);
            notices.push(Notice { warning: false, reason: "Superseded".to_owned(), note, job: run.job_name.clone() });
        }
    }
    let word = |status: &TaskRunStatus| {
        let on = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
        let told = ["Complete", "Failed", "Stalled", "Suspended", "Reconciling"].into_iter().find_map(on);
        told.map(|condition| (status.context_version, condition.reason.clone()))
    };
    if let Some((_, reason)) = word(new).filter(|_| word(new) != word(old)) {
        let stalled = new.conditions.iter().any(|c| c.type_ == "Stalled" && c.status == "True");
        let note = format!("version {version}: {message}");
        notices.push(Notice { warning: stalled, reason, note, job: new.job_name.clone() });
    }
    notices
}
