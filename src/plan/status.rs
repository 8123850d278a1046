//! The status: one write per plan, none where nothing changed.
//!
//! Events come from the difference between the old and the new status, so that a transition is told once.

use super::liveness::outcome;
use super::standing::{Standing, cut, over};
use super::{Observed, Step};
use crate::crd::{Conditions, Outcome, Phase, RunStatus, TaskRunStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Map, Value, json};

/// Most runs that a status lists: with their messages they fit beside the largest spec.
const MAX_RUNS: usize = 100;
/// Longest note of an Event, in bytes: the API server refuses a longer one.
const MAX_NOTE: usize = 1_024;

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
        let note = cut(&note, MAX_NOTE);
        Self { warning: true, reason: "CleanupDeadline".to_owned(), note, job: None }
    }
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
    runs.drain(..runs.len().saturating_sub(MAX_RUNS));
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
        let note = cut(&format!("version {version}: {message}"), MAX_NOTE);
        notices.push(Notice { warning: stalled, reason, note, job: new.job_name.clone() });
    }
    notices
}
