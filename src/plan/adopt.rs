//! A Job of somebody else, such as of a Helm release, that is the first version's run (`docs/adr/0008`).
//!
//! It is recorded before anything is created and watched to its end. Nothing but a cancel touches it; new context
//! waits for its end. Who may write the Job says by a label that it is this task's: a TaskRun alone can take nobody's Job.

use super::liveness::{has_ended, is_finished, is_foreign, is_job_suspended, job_uid};
use super::standing::{Standing, changed_by};
use super::step::{Next, Plan, Step, end_job, label_pod};
use super::{LOOK_AGAIN, Observed, RECHECK, run_labels};
use crate::crd::{ADOPTS, Adoption, RunStatus, TASK_LABEL, TASK_RUN_LABEL, TASK_RUN_UID_LABEL, reason};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The version that such a Job is.
const ADOPTED_VERSION: u32 = 1;
/// What our own pods have, too, and by which they are found.
const POD_LABELS: [&str; 4] = [TASK_LABEL, TASK_RUN_LABEL, TASK_RUN_UID_LABEL, "context-version"];

impl Observed {
    /// Records the Job as the first version's run; where it is gone, that the run is over.
    pub(super) fn adopt(&self, adoption: Adoption<'_>) -> Plan {
        if !adoption.is_legal() {
            let message = format!("annotation {ADOPTS} is not NAME/UID of a Job: mend it, or take it away");
            return self.stand(&Standing::stalled(reason::INVALID_SPEC, &message), Next::Wait);
        }
        let run = RunStatus {
            context_version: ADOPTED_VERSION,
            job_name: Some(adoption.job.to_owned()),
            job_uid: adoption.uid.map(ToOwned::to_owned),
            changed_by: changed_by(self).filter(|_| self.task_run.spec.context_version == ADOPTED_VERSION),
            ..RunStatus::default()
        };
        let is_it = |job: &Job| job.metadata.uid == run.job_uid;
        let standing = match &self.adopted {
            Some(job) if !is_it(job) && !is_finished(job) => {
                let message =
                    format!("Job \"{}\" is not the one that was to be adopted: wait for its end", adoption.job);
                return self.stand(&Standing::stalled(reason::NAME_CONFLICT, &message), Next::After(RECHECK));
            }
            Some(job) if is_it(job) && !self.may_adopt(job) => {
                let (name, task) = (self.task_run.name_any(), self.task_run.spec.run_id().task());
                let message = format!(
                    "Job \"{0}\" is not this task's: who may write it says otherwise by `kubectl label job {0} \
                     {TASK_LABEL}={task} {TASK_RUN_LABEL}={name}`",
                    adoption.job
                );
                return self.stand(&Standing::stalled(reason::NAME_CONFLICT, &message), Next::After(LOOK_AGAIN));
            }
            Some(job) if is_it(job) => {
                let start_time = job.status.as_ref().and_then(|status| status.start_time.clone());
                Standing::of_job(self, &RunStatus { start_time, ..run }, job)
            }
            _ => Standing::gone(self, &run),
        };
        let record = self.stand(&standing, Next::Again);
        match self.create_config_map() {
            // what a later version replaced is not known
            _ if self.task_run.spec.context_version > ADOPTED_VERSION || !self.violations().is_empty() => record,
            Ok(step) => record.after(step.into_iter().collect()),
            Err(conflict) => conflict,
        }
    }

    /// Whether the Job is said to be this task's and is no TaskRun's own.
    fn may_adopt(&self, job: &Job) -> bool {
        let (task, name) = (self.task_run.spec.run_id().task(), self.task_run.name_any());
        job.labels().get(TASK_LABEL) == Some(&task)
            && job.labels().get(TASK_RUN_LABEL) == Some(&name)
            && self.version_of(&job.metadata).is_none()
            && is_foreign(job)
    }

    /// A cancel ends an adopted Job, too. It is not ours to suspend, to resume or to delete.
    pub(super) fn end_adopted(&self, job: &Job) -> Vec<Step> {
        let deadline = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let is_over = job.metadata.deletion_timestamp.is_some() || is_finished(job) || deadline == Some(1);
        let ends = self.task_run.spec.cancel == Some(true) && !is_over && !is_job_suspended(job);
        if ends { vec![end_job(job)] } else { vec![] }
    }

    /// Has the pods of an adopted Job found as ours are.
    pub(super) fn label_adopted(&self, job: &Job) -> Vec<Step> {
        let mut labels = run_labels(&self.task_run);
        labels.insert("context-version".to_owned(), ADOPTED_VERSION.to_string());
        labels.retain(|key, _| POD_LABELS.contains(&key.as_str()));
        self.label_pods(job, &labels)
    }

    /// Has the pods of Jobs that nobody of ours has made found, should their Jobs go before them.
    pub(super) fn label_foreign(&self) -> Vec<Step> {
        let task = self.task_run.spec.run_id().task();
        let labels = BTreeMap::from([(TASK_LABEL.to_owned(), task)]);
        self.foreign_jobs().flat_map(|job| self.label_pods(job, &labels)).collect()
    }

    fn label_pods(&self, job: &Job, labels: &BTreeMap<String, String>) -> Vec<Step> {
        let uid = job.metadata.uid.as_deref();
        let pods = self.pods.iter().filter(|pod| job_uid(pod) == uid && !has_ended(pod));
        pods.filter(|pod| labels.iter().any(|(key, value)| pod.labels().get(key) != Some(value)))
            .map(|pod| label_pod(pod, labels))
            .collect()
    }
}
