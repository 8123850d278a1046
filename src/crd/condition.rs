//! Conditions of a `TaskRun` and the reasons they may have.
//!
//! Readers that know nothing of us go by these (kstatus: Flux, `helm --wait`; `kubectl wait`):
//! `Reconciling` is true until the run is over, `Stalled` when a person has to act, on failure too.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Reasons of conditions, in the field's words.
pub mod reason {
    /// The version is not being run yet.
    pub const PENDING: &str = "Pending";
    /// The Job is released, its pod has not started.
    pub const STARTING: &str = "Starting";
    /// The pod runs.
    pub const RUNNING: &str = "Running";
    /// The run ended well.
    pub const SUCCEEDED: &str = "Succeeded";
    /// An earlier run's pod still lives.
    pub const WAITING_FOR_PREVIOUS_RUN: &str = "WaitingForPreviousRun";
    /// Kueue has not admitted the run yet.
    pub const QUEUED: &str = "Queued";
    /// The Job may start, and nobody makes its pod: the Job controller's word for it.
    pub const FAILED_CREATE: &str = "FailedCreate";
    /// No volume for the pod's claim.
    pub const UNBOUND_CLAIM: &str = "UnboundPersistentVolumeClaim";
    /// No node takes the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// `spec.cancel` is set.
    pub const CANCELLED: &str = "Cancelled";
    /// `spec.agentName` names no Agent of the namespace.
    pub const AGENT_NOT_FOUND: &str = "AgentNotFound";
    /// The Agent's template cannot be run.
    pub const INVALID_AGENT: &str = "InvalidAgent";
    /// The API server lets nobody make the Job here: a quota, a policy, a namespace that ends.
    pub const FORBIDDEN: &str = "Forbidden";
    /// The spec breaks a rule of admission (it slipped past the webhook).
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The Job would be too large to be stored.
    pub const TOO_LARGE: &str = "TooLarge";
    /// An object of somebody else has the name that ours needs.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// The recorded Job is gone: whether it had ended well is not known.
    pub const JOB_GONE: &str = "JobGone";
    /// The Job failed without saying why.
    pub const JOB_FAILED: &str = "JobFailed";
    /// The Agent: a Job could be made of it.
    pub const VALID: &str = "Valid";
    /// Nothing is wrong.
    pub const AS_EXPECTED: &str = "AsExpected";
}

/// What the five conditions shall say; builds the list that the status holds.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a condition")]
pub struct Conditions<'a> {
    /// One CamelCase word for all five.
    pub reason: &'a str,
    /// A sentence for people.
    pub message: &'a str,
    /// The run ended well.
    pub complete: bool,
    /// The run ended badly.
    pub failed: bool,
    /// `spec.suspend` holds the run.
    pub suspended: bool,
    /// Somebody has to act.
    pub stalled: bool,
}

impl Conditions<'_> {
    /// The list for `status.conditions`: times of those whose status did not change are kept.
    #[must_use]
    pub fn build(&self, old: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
        let reconciling = !self.complete && !self.failed && !self.stalled;
        [
            ("Complete", self.complete),
            ("Failed", self.failed),
            ("Suspended", self.suspended),
            ("Reconciling", reconciling),
            ("Stalled", self.stalled || self.failed),
        ]
        .into_iter()
        .map(|(type_, on)| self.condition(type_, on, old, generation, now))
        .collect()
    }

    fn condition(
        &self,
        type_: &str,
        on: bool,
        old: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let status = if on { "True" } else { "False" };
        let since = old.iter().find(|c| c.type_ == type_ && c.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: if on { self.reason } else { reason::AS_EXPECTED }.to_owned(),
            message: if on { self.message } else { "" }.to_owned(),
            observed_generation: generation,
            last_transition_time: since.map_or(Time(now), |c| c.last_transition_time.clone()),
        }
    }
}
