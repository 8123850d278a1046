//! Runs that are over, and a TaskRun that is being deleted: what is kept, and what goes.

use super::liveness::{has_ended, is_alive, is_finished, job_uid};
use super::standing::Standing;
use super::step::{Next, Plan, Step, delete_config_map, delete_job, delete_pod};
use super::{CLEANUP_DEADLINE, CONTROLLER_UID_LABEL, LOOK_AT_EXPIRY, Notice, Observed, RECHECK};
use crate::crd::{RunStatus, TASK_RUN_UID_LABEL};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

impl Observed {
    /// The run is over, and with `ttlSecondsAfterFinished` the TaskRun some time later.
    pub(super) fn keep_ended(&self, run: &RunStatus) -> Plan {
        let plan = self.with_strays(self.stand(&Standing::ended(run), Next::Wait));
        let ttl = self.task_run.spec.ttl_seconds_after_finished;
        let Some((ended, ttl)) = run.completion_time.as_ref().zip(ttl).filter(|_| plan.steps.is_empty()) else {
            return plan;
        };
        let left = SignedDuration::from_secs(ttl.into()) - self.now.duration_since(ended.0);
        match (left.is_positive(), self.task_run.uid()) {
            (true, _) => Plan::of(vec![], Next::After(left.unsigned_abs().min(LOOK_AT_EXPIRY))),
            (_, Some(uid)) => {
                let resource_version = self.task_run.resource_version();
                Plan::of(vec![Step::DeleteTaskRun { uid, resource_version }], Next::Wait)
            }
            (_, None) => plan,
        }
    }

    /// Runs that the history has no place for: their ConfigMaps and Jobs go first, then they are no longer
    /// listed. So do ConfigMaps of versions that were passed over unlisted.
    pub(super) fn cut_history(&self, plan: Plan) -> Plan {
        let Some(config_maps) = &self.config_maps else { return plan };
        let (status, present) = (self.status(), self.task_run.spec.context_version);
        let kept = &status.runs[self.task_run.surplus_runs().len()..];
        let is_past = |metadata: &&ObjectMeta| {
            let version = self.version_of(metadata).filter(|version| *version < present && self.is_ours(metadata));
            version.is_some_and(|version| kept.iter().all(|run| run.context_version != version))
        };
        let config_maps = config_maps.iter().filter(is_past).filter_map(delete_config_map);
        let jobs = self.other_jobs.iter().filter(|job| is_past(&&job.metadata)).filter_map(delete_job);
        plan.after(config_maps.chain(jobs).collect())
    }

    /// The TaskRun is being deleted: its Jobs end first, then it may go. One that it adopted stays as it is.
    pub(super) fn clean_up(&self, deleted: Timestamp) -> Plan {
        if !self.has_finalizer() {
            return Plan::of(vec![], Next::Wait);
        }
        let ours = self.job.iter().chain(&self.other_jobs).filter(|job| self.is_ours(&job.metadata));
        let running: Vec<&Job> = ours.filter(|job| !is_finished(job)).collect();
        let uid = self.task_run.metadata.uid.as_ref();
        let status = self.status();
        let adopted = status.runs.iter().find(|run| self.task_run.is_adopted(run));
        // by a label, which an orphan keeps
        let is_adopted = |pod: &Pod| {
            let uid = pod.labels().get(CONTROLLER_UID_LABEL);
            uid.is_some() && adopted.is_some_and(|run| run.job_uid.as_ref() == uid)
        };
        let is_pod_of_ours =
            |pod: &&Pod| pod.labels().get(TASK_RUN_UID_LABEL) == uid && !has_ended(pod) && !is_adopted(pod);
        let pods = || self.pods.iter().filter(is_pod_of_ours);
        let alive = pods().filter(|pod| is_alive(pod) || job_uid(pod).is_none());
        let alive = alive.map(|pod| format!("pod {}", pod.name_any()));
        let alive: Vec<String> = alive.chain(running.iter().map(|job| format!("Job {}", job.name_any()))).collect();
        if alive.is_empty() {
            let goes_on = adopted.filter(|run| run.outcome.is_none());
            let told = goes_on.map(|run| Step::Publish(Notice::job_stays(run)));
            return Plan::of([self.remove_finalizer()].into_iter().chain(told).collect(), Next::Wait);
        }
        let mut steps: Vec<Step> = running.iter().filter_map(|job| delete_job(job)).collect();
        // nobody else ends a pod whose Job was deleted without it
        steps.extend(pods().filter(|pod| job_uid(pod).is_none()).filter_map(delete_pod));
        if self.now < deleted + CLEANUP_DEADLINE {
            return Plan::of(steps, Next::After(RECHECK));
        }
        // first, since a deletion that is refused ends the plan
        Plan::of(steps, Next::Wait)
            .after(vec![self.remove_finalizer(), Step::Publish(Notice::cleanup_deadline(&alive))])
    }
}
