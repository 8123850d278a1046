//! Where the present version stands: what its status shall say.

use super::liveness::{has_started, is_alive, is_job_suspended, is_queued, job_uid, outcome, queue};
use super::pods::{count_attempts, last_word, stuck};
use super::{Observed, STARTS_WITHIN};
use crate::crd::{CHANGED_BY, Outcome, Phase, RunStatus, reason};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// Longest `message`, in bytes as JSON: etcd stores the whole object with each change.
pub(super) const MAX_MESSAGE: usize = 1_024;
/// Longest `changedBy`, in bytes as JSON.
const MAX_CHANGED_BY: usize = 256;

/// What to do after a cancel.
const AFTER_CANCEL: &str =
    "set spec.cancel to false and raise spec.contextVersion by 1 to run it again (kubectl taskrun rerun)";

/// Where the present version stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub phase: Phase,
    pub reason: String,
    pub message: String,
    pub stalled: bool,
    pub suspended: bool,
    /// The present version's run, where there is one.
    pub run: Option<RunStatus>,
    /// Whether older runs are over: said together with the record of the new one.
    pub ends_older: bool,
}

impl Standing {
    fn new(phase: Phase, reason: &str, message: &str) -> Self {
        Self {
            phase,
            reason: reason.to_owned(),
            message: cut(message, MAX_MESSAGE),
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
        let message = "suspended: set spec.suspend to false to run it (kubectl taskrun resume)";
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
            message: Some(format!("cancelled before it started; {AFTER_CANCEL}")),
            ..new_run(observed)
        };
        Self { ends_older: true, ..Self::ended(&run) }
    }

    /// The recorded Job is not there any more: the run is over, and never starts again.
    pub(super) fn gone(observed: &Observed, run: &RunStatus) -> Self {
        let name = run.job_name.as_deref().unwrap_or_default();
        let (outcome, message) = match observed.task_run.spec.cancel {
            Some(true) => (Outcome::Cancelled, format!("cancelled; {AFTER_CANCEL}")),
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
            // cancelling sets this deadline, and may have been lifted since; an adopted Job may always have had it
            let deadline = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
            let is_ours = observed.task_run.spec.cancel == Some(true) || !observed.task_run.is_adopted(&run);
            let is_cancelled =
                is_ours && deadline == Some(1) && condition.reason.as_deref() == Some("DeadlineExceeded");
            let (outcome, message) = match outcome {
                _ if is_cancelled => (Outcome::Cancelled, format!("cancelled; {AFTER_CANCEL}")),
                Outcome::Succeeded => (outcome, last_word(&pods).unwrap_or_else(|| format!("Job {name} succeeded"))),
                _ => (outcome, failure(condition, &pods)),
            };
            let run = RunStatus {
                outcome: Some(outcome),
                completion_time: condition.last_transition_time.clone().or(Some(Time(observed.now))),
                message: Some(cut(&message, MAX_MESSAGE)),
                ..over(&run)
            };
            let why = condition.reason.as_deref().filter(|_| outcome == Outcome::Failed);
            return Self { reason: why.unwrap_or(default_reason(outcome)).to_owned(), ..Self::ended(&run) };
        }
        if is_job_suspended(job) && observed.task_run.is_adopted(&run) {
            let message = format!("Job {name} was adopted and is suspended: resume it, or end what it belongs to");
            let standing = Self::new(Phase::Pending, reason::SUSPENDED, &message);
            return Self { run: Some(run), suspended: true, ..standing };
        }
        // a queued one is as soon as Kueue is told
        let is_held = is_job_suspended(job) || (observed.workload.is_some() && !observed.task_run.is_adopted(&run));
        if is_held && observed.task_run.spec.suspend == Some(true) && observed.task_run.spec.cancel != Some(true) {
            return Self { run: Some(run), ..Self::suspended() };
        }
        if is_job_suspended(job) && is_queued(job) {
            let message = format!("Job {name} waits in queue {}", queue(job).unwrap_or_default());
            return Self { run: Some(run), ..Self::new(Phase::Pending, reason::QUEUED, &message) };
        }
        if job.metadata.deletion_timestamp.is_some() {
            let message = format!("Job {name} is being deleted");
            return Self { run: Some(run), ..Self::new(Phase::Running, reason::RUNNING, &message) };
        }
        if observed.task_run.spec.cancel == Some(true) {
            let has_started = run.attempts.is_some_and(|attempts| attempts > 0);
            let (phase, why) =
                if has_started { (Phase::Running, reason::RUNNING) } else { (Phase::Pending, reason::STARTING) };
            return Self { run: Some(run), ..Self::new(phase, why, &format!("cancelled: Job {name} ends")) };
        }
        // a pod that has ended is not counted by the Job at once: the run goes on until it is
        let runs = pods.iter().any(|pod| is_alive(pod) && has_started(pod))
            || (!pods.is_empty() && pods.iter().all(|pod| has_started(pod)));
        if runs {
            let message = format!("Job {name} is running");
            return Self { run: Some(run), ..Self::new(Phase::Running, reason::RUNNING, &message) };
        }
        let stuck = pods.iter().find_map(|pod| stuck(pod)).or_else(|| observed.lacks_pod(job, &pods));
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

impl Observed {
    /// A Job that may start and gets no pod: why stands only in its events.
    fn lacks_pod(&self, job: &Job, pods: &[&Pod]) -> Option<(String, String)> {
        let started = job.status.as_ref()?.start_time.as_ref()?.0;
        let lacks = pods.is_empty() && !is_job_suspended(job) && self.now >= started + STARTS_WITHIN;
        let seconds = STARTS_WITHIN.as_secs();
        let message = format!(
            "Job {} has had no pod for {seconds} s: a quota or a policy may forbid it, see the Job's events",
            job.name_any()
        );
        lacks.then(|| (reason::FAILED_CREATE.to_owned(), message))
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

/// The text's beginning that takes at most so many bytes as the API server's JSON.
pub(super) fn cut(text: &str, most: usize) -> String {
    let mut left = most;
    let fits = move |c: &char| {
        let bytes = if c.is_control() || "<>&\"\\\u{2028}\u{2029}".contains(*c) { 6 } else { c.len_utf8() };
        left.checked_sub(bytes).map(|rest| left = rest).is_some()
    };
    text.chars().take_while(fits).collect()
}

/// A run that is over counts no more pods.
pub(super) fn over(run: &RunStatus) -> RunStatus {
    RunStatus { pod_uids: vec![], ..run.clone() }
}

/// The user who made the present version.
pub(super) fn changed_by(observed: &Observed) -> Option<String> {
    observed.task_run.annotations().get(CHANGED_BY).map(|user| cut(user, MAX_CHANGED_BY))
}

fn new_run(observed: &Observed) -> RunStatus {
    RunStatus {
        context_version: observed.task_run.spec.context_version,
        changed_by: changed_by(observed),
        ..RunStatus::default()
    }
}

fn failure(condition: &JobCondition, pods: &[&Pod]) -> String {
    let why = condition.message.as_deref().unwrap_or("the Job failed");
    match last_word(pods) {
        Some(word) => format!("{why}; {word}"),
        None => why.to_owned(),
    }
}
