//! What to do next for one `TaskRun`: a pure decision that leaves none to its executor.
//!
//! [`plan`] turns what was observed into steps. It holds the run protocol (`docs/adr/0002`): a version
//! is run at most once, and never beside another run of the same task. Each step carries the uid or
//! resourceVersion that it was decided on, so that a plan which has become stale fails instead of
//! acting on something newer. `now` is a value: nothing here reads a clock.

mod adopt;
mod agent;
mod end;
mod follow;
mod job;
mod liveness;
mod pods;
mod standing;
mod start;
mod status;
mod step;
#[cfg(test)]
mod tests;

pub use agent::{build_trial_job, is_judged, judge_agent};
pub use follow::is_suspended;
pub use job::{build_claim, build_config_map, build_job, pods_of_job, task_selector};
pub use liveness::{is_finished, is_foreign, is_known, is_owned, is_queued};
pub use status::Notice;
pub use step::{Next, Plan, Step};

use crate::crd::{Agent, FINALIZER, TaskNames, TaskRun, TaskRunStatus};
use job::run_labels;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::DynamicObject;
use standing::Standing;
use status::status_steps;
use std::time::Duration;
use step::delete_job;

/// How long a deletion waits for pods to end before it is let go with a Warning.
pub const CLEANUP_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// Label that the Job controller gives a pod, and that an orphan keeps: the uid of its Job.
const CONTROLLER_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// How soon to look again where an event should wake us anyway.
pub const RECHECK: Duration = Duration::from_secs(10);
/// How long a run that may start can be without a pod before somebody should look.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// How soon to look at a run that goes on, should the event of its end be missed.
const LOOK_AGAIN: Duration = Duration::from_mins(5);
/// How soon, at the latest, to look whether the TaskRun's time is over.
const LOOK_AT_EXPIRY: Duration = Duration::from_hours(1);
/// Most bytes of a Job as JSON: the API server takes 3 MB, etcd 1.5 MB.
const MAX_JOB_BYTES: usize = 1024 * 1024;

/// All that one decision may know.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The TaskRun. Its contents are needed only until its version is recorded.
    pub task_run: TaskRun,
    /// The Job that has the present version's name, whoever owns it.
    pub job: Option<Job>,
    /// The Job that version 1 is to be ([`TaskRun::adoption`]).
    pub adopted: Option<Job>,
    /// All other Jobs of the task: those of this TaskRun, and others that may have pods.
    pub other_jobs: Vec<Job>,
    /// All pods with the task's labels, whoever owns them.
    pub pods: Vec<Pod>,
    /// The ConfigMap that has the present version's name, needed only while there is no Job.
    pub config_map: Option<ObjectMeta>,
    /// All ConfigMaps of the task, where its history is to be cut.
    pub config_maps: Option<Vec<ObjectMeta>>,
    /// What Kueue made of the Job, needed only where a queued run is suspended or resumed.
    pub workload: Option<DynamicObject>,
    /// The agent that `spec.agentName` names, or the default one; or why it cannot be read.
    pub agent: Option<Result<Agent, String>>,
    /// The API server's refusal of the Job or ConfigMap that the last plan made: reason, message.
    pub refused: Option<(&'static str, String)>,
    /// How TaskRuns are named here.
    pub names: TaskNames,
    /// The time.
    pub now: Timestamp,
}

/// Decides the next writes. No steps and [`Next::Wait`]: the object is settled.
#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    if let Some(deleted) = &observed.task_run.metadata.deletion_timestamp {
        return observed.clean_up(deleted.0);
    }
    match observed.task_run.present_run() {
        Some(run) if run.outcome.is_some() => observed.cut_history(observed.keep_ended(run)),
        Some(run) => observed.cut_history(observed.follow(run)),
        None => match (observed.task_run.adoption(), observed.waited_for()) {
            (Some(adoption), _) => observed.adopt(adoption),
            (None, Some((run, job))) => observed.wait_for_end(run, job),
            (None, None) => observed.start(),
        },
    }
}

impl Observed {
    fn status(&self) -> TaskRunStatus {
        self.task_run.status.clone().unwrap_or_default()
    }

    /// Whether a Job with this uid is the run of some version.
    fn is_recorded(&self, uid: Option<&String>) -> bool {
        uid.is_some() && self.task_run.runs().iter().any(|run| run.job_uid.as_ref() == uid)
    }

    fn end_older(&self) -> Vec<Step> {
        self.unfinished_others().into_iter().filter_map(delete_job).collect()
    }

    /// The other Jobs of ours that are not newer than the spec and have not ended.
    fn unfinished_others(&self) -> Vec<&Job> {
        let present = self.task_run.spec.context_version;
        let is_older = |job: &Job| self.version_of(&job.metadata).is_some_and(|version| version <= present);
        let unfinished = self.other_jobs.iter().filter(|job| !is_finished(job));
        unfinished.filter(|job| self.is_ours(&job.metadata) && is_older(job)).collect()
    }

    /// The version that a Job or ConfigMap of ours belongs to, by its name, which nobody can change.
    fn version_of(&self, metadata: &ObjectMeta) -> Option<u32> {
        let prefix = format!("{}-v", self.task_run.spec.run_id().task());
        metadata.name.as_deref()?.strip_prefix(&prefix)?.parse().ok()
    }

    /// Ends the Jobs of ours that are nobody's run: they lost a race with a record, or are superseded.
    fn with_strays(&self, plan: Plan) -> Plan {
        let is_stray = |job: &&Job| self.is_ours(&job.metadata) && !self.is_recorded(job.metadata.uid.as_ref());
        let same_name = self.job.iter().filter(is_stray);
        plan.after(same_name.chain(self.unfinished_others()).filter_map(delete_job).collect())
    }

    /// The status that says where the version stands, if it does not already.
    fn stand(&self, standing: &Standing, next: Next) -> Plan {
        Plan::of(status_steps(self, standing), next)
    }

    fn is_ours(&self, metadata: &ObjectMeta) -> bool {
        is_owned(metadata, &self.task_run.metadata)
    }

    fn has_finalizer(&self) -> bool {
        self.task_run.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
    }

    fn add_finalizer(&self) -> Step {
        let mut finalizers = self.task_run.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        self.set_finalizers(finalizers)
    }

    fn remove_finalizer(&self) -> Step {
        let mut finalizers = self.task_run.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        self.set_finalizers(finalizers)
    }

    fn set_finalizers(&self, finalizers: Vec<String>) -> Step {
        let uid = self.task_run.uid().unwrap_or_default();
        Step::SetFinalizers { uid, resource_version: self.task_run.resource_version(), finalizers }
    }
}
