//! What a plan is made of, and the steps that are built from an object.

use super::Notice;
use super::liveness::is_gated;
use crate::crd::RELEASE_GATE;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Replaces the TaskRun's finalizers, unless it has changed since.
    SetFinalizers {
        /// Its uid, a precondition.
        uid: String,
        /// Its resourceVersion, a precondition.
        resource_version: Option<String>,
        /// All that it shall have.
        finalizers: Vec<String>,
    },
    /// Creates the version's ConfigMap.
    CreateConfigMap(Box<ConfigMap>),
    /// Deletes the ConfigMap of a run that the history has no place for, under its uid.
    DeleteConfigMap {
        /// Its name.
        name: String,
        /// Its uid, a precondition.
        uid: String,
    },
    /// Creates the task's workspace, if it is not there.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Creates the version's Job: suspended and gated, so it starts nothing.
    CreateJob(Box<Job>),
    /// Deletes this Job and its pods, the pods first.
    DeleteJob {
        /// Its name.
        name: String,
        /// Its uid, a precondition.
        uid: String,
        /// Its resourceVersion, a precondition where it must be as it was seen.
        resource_version: Option<String>,
    },
    /// Lets the Job start (its gate lifted, and unsuspended or queued), suspends it or ends it with its Job
    /// kept: merge patch under uid and resourceVersion.
    PatchJob {
        /// Its name.
        name: String,
        /// The merge patch.
        patch: Value,
    },
    /// Lifts the gate of a pod whose Job somebody else unsuspended: merge patch under its uid.
    ReleasePod {
        /// Its name.
        name: String,
        /// The merge patch.
        patch: Value,
    },
    /// Has a pod of an adopted Job found as our own are: merge patch of its labels under its uid.
    LabelPod {
        /// Its name.
        name: String,
        /// The merge patch.
        patch: Value,
    },
    /// Deletes a pod that is still behind our gate, under its uid and resourceVersion.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid, a precondition.
        uid: String,
        /// Its resourceVersion, a precondition: lifting the gate changes it.
        resource_version: Option<String>,
    },
    /// Holds a queued run, or lets Kueue admit it again: merge patch of its Workload, whose `apiVersion`
    /// it names, under uid and resourceVersion.
    PatchWorkload {
        /// Its name.
        name: String,
        /// The merge patch.
        patch: Value,
    },
    /// Deletes the TaskRun, whose time is over, unless it has changed since.
    DeleteTaskRun {
        /// Its uid, a precondition.
        uid: String,
        /// Its resourceVersion, a precondition: new context keeps it.
        resource_version: Option<String>,
    },
    /// Merge patch of the status, under the TaskRun's resourceVersion.
    PatchStatus(Value),
    /// Tells people; follows the status that it speaks of.
    Publish(Notice),
}

impl Step {
    /// What is done, and to which object or with which result, for traces.
    #[must_use]
    pub fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::SetFinalizers { .. } => ("SetFinalizers", None),
            Self::CreateConfigMap(config_map) => ("CreateConfigMap", config_map.metadata.name.as_deref()),
            Self::DeleteConfigMap { name, .. } => ("DeleteConfigMap", Some(name)),
            Self::CreateClaim(claim) => ("CreateClaim", claim.metadata.name.as_deref()),
            Self::CreateJob(job) => ("CreateJob", job.metadata.name.as_deref()),
            Self::DeleteJob { name, .. } => ("DeleteJob", Some(name)),
            Self::PatchJob { name, .. } => ("PatchJob", Some(name)),
            Self::ReleasePod { name, .. } => ("ReleasePod", Some(name)),
            Self::LabelPod { name, .. } => ("LabelPod", Some(name)),
            Self::DeletePod { name, .. } => ("DeletePod", Some(name)),
            Self::PatchWorkload { name, .. } => ("PatchWorkload", Some(name)),
            Self::DeleteTaskRun { .. } => ("DeleteTaskRun", None),
            Self::PatchStatus(patch) => ("PatchStatus", patch["status"]["phase"].as_str()),
            Self::Publish(notice) => ("Publish", Some(&notice.reason)),
        }
    }
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: the protocol goes on.
    Again,
    /// After this time, if nothing happens before.
    After(Duration),
    /// When something happens.
    Wait,
}

/// What to do, in order; a failing step ends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The writes.
    pub steps: Vec<Step>,
    /// What follows them.
    pub next: Next,
}

impl Plan {
    pub(super) fn of(steps: Vec<Step>, next: Next) -> Self {
        Self { steps, next }
    }

    /// The plan with these steps before its own.
    pub(super) fn after(mut self, steps: Vec<Step>) -> Self {
        self.steps.splice(0..0, steps);
        self
    }
}

/// Under the Job's uid and resourceVersion.
pub(super) fn patch_job(job: &Job, mut patch: Value) -> Step {
    patch["metadata"]["uid"] = json!(job.metadata.uid);
    patch["metadata"]["resourceVersion"] = json!(job.metadata.resource_version);
    Step::PatchJob { name: job.name_any(), patch }
}

/// Ends a Job that is not suspended, and keeps it.
pub(super) fn end_job(job: &Job) -> Step {
    patch_job(job, json!({"spec": {"activeDeadlineSeconds": 1}}))
}

/// Nothing where it is being deleted already.
pub(super) fn delete_job(job: &Job) -> Option<Step> {
    delete_job_at(job, None)
}

/// The same, unless the Job has changed since it was seen: it may have been released.
pub(super) fn delete_job_as_seen(job: &Job) -> Option<Step> {
    delete_job_at(job, job.resource_version())
}

fn delete_job_at(job: &Job, resource_version: Option<String>) -> Option<Step> {
    let uid = job.metadata.uid.clone()?;
    let is_going = job.metadata.deletion_timestamp.is_some();
    (!is_going).then(|| Step::DeleteJob { name: job.name_any(), uid, resource_version })
}

/// Under the Workload's uid and resourceVersion.
pub(super) fn patch_workload(workload: &DynamicObject, active: bool) -> Step {
    let api_version = workload.types.as_ref().map(|types| types.api_version.as_str());
    let metadata = json!({"uid": workload.metadata.uid, "resourceVersion": workload.metadata.resource_version});
    let patch = json!({"apiVersion": api_version, "metadata": metadata, "spec": {"active": active}});
    Step::PatchWorkload { name: workload.name_any(), patch }
}

/// Nothing where it is being deleted already.
pub(super) fn delete_config_map(metadata: &ObjectMeta) -> Option<Step> {
    let (name, uid) = (metadata.name.clone()?, metadata.uid.clone()?);
    metadata.deletion_timestamp.is_none().then_some(Step::DeleteConfigMap { name, uid })
}

/// Nothing where it is being deleted already.
pub(super) fn delete_pod(pod: &Pod) -> Option<Step> {
    let uid = pod.metadata.uid.clone()?;
    let is_going = pod.metadata.deletion_timestamp.is_some();
    (!is_going).then(|| Step::DeletePod { name: pod.name_any(), uid, resource_version: pod.resource_version() })
}

pub(super) fn label_pod(pod: &Pod, labels: &BTreeMap<String, String>) -> Step {
    Step::LabelPod { name: pod.name_any(), patch: json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}}) }
}

/// Nothing where the pod has not our gate.
pub(super) fn release_pod(pod: &Pod) -> Option<Step> {
    let gates = pod.spec.as_ref()?.scheduling_gates.as_ref().filter(|_| is_gated(pod))?;
    let others: Vec<_> = gates.iter().filter(|gate| gate.name != RELEASE_GATE).collect();
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "spec": {"schedulingGates": others}});
    Some(Step::ReleasePod { name: pod.name_any(), patch })
}
