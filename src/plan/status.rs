//! The status: one write per plan, none where nothing changed.
//!
//! Events come from the difference between the old and the new status, so that a transition is told once.

use super::liveness::{is_finished, is_job_of};
use super::standing::{Standing, cut, over};
use super::{Observed, Step};
use crate::crd::{Conditions, Outcome, Phase, RunStatus, TaskRunStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Map, Value, json};

/// Most runs that a status lists: with their messages they fit beside the largest spec. One more than the
/// longest history and the present run, so that a history which is cut here is always cut by the plan, too.
const MAX_RUNS: usize = 102;
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
    /// The TaskRun goes, and the Job that it had adopted stays.
    pub(super) fn job_stays(run: &RunStatus) -> Self {
        let job = run.job_name.clone();
        let note = format!(
            "deleted, but Job {} goes on: it was adopted, and ends with what it belongs to",
            job.as_deref().unwrap_or_default()
        );
        Self { warning: true, reason: "JobStays".to_owned(), note: cut(&note, MAX_NOTE), job }
    }

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
    let run = standing.run.as_ref();
    let version = run.map_or(observed.task_run.spec.context_version, |run| run.context_version);
    let conditions = Conditions {
        reason: &standing.reason,
        message: &standing.message,
        complete: standing.phase == Phase::Succeeded,
        failed: standing.phase == Phase::Failed,
        suspended: standing.suspended,
        stalled: standing.stalled,
    };
    let generation = observed.task_run.metadata.generation;
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

/// The runs with the standing's put in. An older one whose Job has ended or is gone is over; all are once a
/// newer one is recorded, and versions passed over in a burst are then listed without a Job.
fn next_runs(observed: &Observed, old: &TaskRunStatus, standing: &Standing) -> Vec<RunStatus> {
    let surplus = observed.config_maps.as_ref().map_or(0, |_| observed.task_run.surplus_runs().len());
    let spoken_of = standing.run.as_ref().map(|run| run.context_version);
    let others = old.runs.iter().skip(surplus).filter(|run| Some(run.context_version) != spoken_of);
    let mut runs: Vec<RunStatus> = others.map(|run| end_older(observed, run, standing.ends_older)).collect();
    if let Some(version) = spoken_of.filter(|_| standing.ends_older) {
        runs.extend(passed_over(observed, &runs, version));
    }
    runs.extend(standing.run.clone());
    runs.sort_by_key(|run| run.context_version);
    runs.drain(..runs.len().saturating_sub(MAX_RUNS));
    runs
}

/// The versions between the last run and this one; a burst may pass over many, and only the last ones fit
/// the history. Before a first run it began with version 1, unless there were fewer changes than versions:
/// then it is a copy.
fn passed_over(observed: &Observed, runs: &[RunStatus], version: u32) -> Vec<RunStatus> {
    let last = runs.iter().map(|run| run.context_version).max();
    let is_copy = observed.task_run.metadata.generation.is_none_or(|changes| changes < version.into());
    let first = last.map_or(if is_copy { version } else { 1 }, |last| last.saturating_add(1));
    let keep = u32::try_from(observed.task_run.spec.history_limit()).unwrap_or(u32::MAX);
    let versions = first.max(version.saturating_sub(keep))..version;
    let passed_over = |version| RunStatus {
        context_version: version,
        outcome: Some(Outcome::Superseded),
        completion_time: Some(Time(observed.now)),
        message: Some("a newer version came before it started".to_owned()),
        ..RunStatus::default()
    };
    versions.map(passed_over).collect()
}

fn end_older(observed: &Observed, older: &RunStatus, ends: bool) -> RunStatus {
    if older.outcome.is_some() {
        return older.clone();
    }
    let job = observed.other_jobs.iter().find(|job| is_job_of(older, job));
    let version = observed.task_run.spec.context_version;
    match (job, observed.task_run.is_waited_for(older)) {
        (Some(job), _) if is_finished(job) => {
            Standing::of_job(observed, older, job).run.unwrap_or_else(|| older.clone())
        }
        (Some(_), _) if !ends => older.clone(),
        (_, true) => Standing::gone(observed, older).run.unwrap_or_else(|| older.clone()),
        (_, false) => RunStatus {
            outcome: Some(Outcome::Superseded),
            completion_time: Some(Time(observed.now)),
            message: Some(format!("superseded by version {version}")),
            ..over(older)
        },
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
