//! Whose an object is, which Jobs have ended, and which pods may run.

use crate::crd::{Outcome, QUEUE_ANNOTATION, QUEUE_LABEL, RELEASE_GATE, RunStatus};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

/// Whether the owner's uid stands in an object's owner references: the one sign that it is the owner's.
#[must_use]
pub fn is_owned(metadata: &ObjectMeta, owner: &ObjectMeta) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owner.uid.as_ref().is_some_and(|uid| owners.any(|reference| reference.uid == *uid))
}

/// Whether no TaskRun has made the Job.
#[must_use]
pub fn is_foreign(job: &Job) -> bool {
    job.owner_references().iter().all(|owner| owner.kind != "TaskRun")
}

/// Whether the Job is the one that was recorded as this run.
pub(super) fn is_job_of(run: &RunStatus, job: &Job) -> bool {
    job.metadata.uid.is_some() && job.metadata.uid == run.job_uid
}

/// Whether the Job has ended for good and all its pods with it.
#[must_use]
pub fn is_finished(job: &Job) -> bool {
    outcome(job).is_some()
}

/// Whether the Job controller has written the Job. It learns of Jobs in their order: from then on it
/// knows that older ones are deleted, and makes no more pods of them.
#[must_use]
pub fn is_known(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| status.start_time.is_some() || status.conditions.is_some())
}

/// Whether the Job's pods would still come behind our gate.
pub(super) fn has_gate(job: &Job) -> bool {
    let template = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    template.is_some_and(|pod| pod.scheduling_gates.iter().flatten().any(|gate| gate.name == RELEASE_GATE))
}

pub(super) fn is_job_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

/// The Kueue queue of a Job: that which it is in, or is to be put in at its release.
pub(super) fn queue(job: &Job) -> Option<&str> {
    job.labels().get(QUEUE_LABEL).or_else(|| job.annotations().get(QUEUE_ANNOTATION)).map(String::as_str)
}

/// Whether Kueue knows the Job, and decides when it starts.
#[must_use]
pub fn is_queued(job: &Job) -> bool {
    job.labels().contains_key(QUEUE_LABEL)
}

/// How the Job ended, with the condition that says so: never by counting failed pods.
pub(super) fn outcome(job: &Job) -> Option<(Outcome, &JobCondition)> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let is_true = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
    let complete = is_true("Complete").map(|c| (Outcome::Succeeded, c));
    complete.or_else(|| is_true("Failed").map(|c| (Outcome::Failed, c)))
}

/// Whether the pod's containers may run, now or later. One behind our gate cannot, unless it is released.
pub(super) fn is_alive(pod: &Pod) -> bool {
    !has_ended(pod) && !is_gated(pod)
}

pub(super) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

pub(super) fn has_started(pod: &Pod) -> bool {
    phase(pod).is_some_and(|phase| phase != "Pending")
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.phase.as_deref())
}

pub(super) fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref());
    gates.is_some_and(|gates| gates.iter().any(|gate| gate.name == RELEASE_GATE))
}

/// The uid of the Job that owns the pod; none where it was orphaned.
pub(super) fn job_uid(pod: &Pod) -> Option<&str> {
    let owner = pod.owner_references().iter().find(|owner| owner.kind == "Job");
    owner.map(|owner| owner.uid.as_str())
}
