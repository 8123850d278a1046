//! A recorded run: protocol §5, and what it does then.

use super::liveness::{has_gate, is_finished, is_job_of, is_job_suspended, job_uid, queue};
use super::standing::Standing;
use super::step::{Next, Plan, Step, delete_job, delete_job_as_seen, end_job, patch_job, patch_workload, release_pod};
use super::{LOOK_AGAIN, Observed, STARTS_WITHIN};
use crate::crd::{QUEUE_LABEL, RELEASE_GATE, RunStatus, TaskRun, reason};
use k8s_openapi::api::batch::v1::Job;
use kube::core::DynamicObject;
use serde_json::json;

/// Whether the TaskRun is suspended, or was as far as its status tells: where Kueue may have to be told.
#[must_use]
pub fn is_suspended(task_run: &TaskRun) -> bool {
    let mut conditions = task_run.status.iter().flat_map(|status| &status.conditions);
    task_run.spec.suspend == Some(true) || conditions.any(|c| c.type_ == "Suspended" && c.status == "True")
}

impl Observed {
    /// The version's run is recorded and goes on: protocol §5, then its status.
    pub(super) fn follow(&self, run: &RunStatus) -> Plan {
        let Some(job) = self.job.as_ref().filter(|job| is_job_of(run, job)) else {
            return self.with_strays(self.stand(&Standing::gone(self, run), Next::Wait));
        };
        self.with_strays(self.go_on(run, job, ""))
    }

    /// The older run that this version waits for, while it goes on.
    pub(super) fn waited_for(&self) -> Option<(&RunStatus, &Job)> {
        let run = self.task_run.run_waited_for()?;
        let job = self.other_jobs.iter().find(|job| is_job_of(run, job));
        job.filter(|job| !is_finished(job)).map(|job| (run, job))
    }

    /// `AfterCompletion`: an older run goes on as if there were no newer version.
    pub(super) fn wait_for_end(&self, run: &RunStatus, job: &Job) -> Plan {
        let strays = self.unfinished_others().into_iter().filter(|other| other.metadata.uid != job.metadata.uid);
        let strays = strays.filter_map(delete_job).collect();
        self.go_on(run, job, &format!("; version {} waits for its end", self.task_run.spec.context_version))
            .after(strays)
    }

    /// A recorded run goes on: what it is to do next, or else its status, with this said after its message.
    fn go_on(&self, run: &RunStatus, job: &Job, beside: &str) -> Plan {
        if !self.has_finalizer() && !is_finished(job) {
            return Plan::of(vec![self.add_finalizer()], Next::Again);
        }
        let mut standing = Standing::of_job(self, run, job);
        standing.message.push_str(beside);
        let is_adopted = self.task_run.is_adopted(run);
        let steps = if is_adopted { self.end_adopted(job) } else { self.steer(job) };
        if steps.iter().any(|step| matches!(step, Step::PatchWorkload { .. })) {
            // the status comes first: it is how we know later that it was we who suspended the run
            let told = self.stand(&standing, Next::Again);
            let is_told = told.steps.is_empty() || self.task_run.spec.suspend != Some(true);
            // nothing that we watch tells of a Workload
            return if is_told { Plan::of(steps, Next::Again) } else { told };
        }
        if !steps.is_empty() {
            return Plan::of(steps, Next::After(LOOK_AGAIN));
        }
        let is_starting = standing.reason == reason::STARTING;
        let next = Next::After(if is_starting { STARTS_WITHIN.unsigned_abs() } else { LOOK_AGAIN });
        let mut plan = self.stand(&standing, next);
        if is_adopted && !is_finished(job) {
            plan.steps.extend(self.label_adopted(job));
        }
        plan
    }

    /// What makes the recorded Job do as the spec says; nothing where it does.
    fn steer(&self, job: &Job) -> Vec<Step> {
        let spec = &self.task_run.spec;
        let deadline = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        if job.metadata.deletion_timestamp.is_some() || is_finished(job) {
            return vec![];
        }
        match (spec.cancel == Some(true), spec.suspend == Some(true)) {
            // a suspended Job's deadline does not run
            (true, _) if is_job_suspended(job) => delete_job_as_seen(job).into_iter().collect(),
            (true, _) if deadline != Some(1) => vec![end_job(job)],
            (false, true) if self.workload.is_some() => self.set_active(false),
            (false, true) if !is_job_suspended(job) => vec![patch_job(job, json!({"spec": {"suspend": true}}))],
            (false, false) => self.release(job),
            _ => vec![],
        }
    }

    /// Tells Kueue, which would undo a suspension of the Job, whether it may run; nothing where it knows.
    fn set_active(&self, active: bool) -> Vec<Step> {
        let is_other = |workload: &&DynamicObject| workload.data["spec"]["active"] != json!(active);
        self.workload.iter().filter(is_other).map(|workload| patch_workload(workload, active)).collect()
    }

    /// Protocol §5: what lets the recorded Job start, at once or when its queue says so; nothing where it
    /// may already.
    pub(super) fn release(&self, job: &Job) -> Vec<Step> {
        let template = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let gates = template.and_then(|pod| pod.scheduling_gates.as_deref()).unwrap_or_default();
        let others: Vec<_> = gates.iter().filter(|gate| gate.name != RELEASE_GATE).collect();
        let template = json!({"spec": {"schedulingGates": others}});
        let resumed = self.set_active(true);
        match (is_job_suspended(job), queue(job)) {
            // it may not be suspended yet
            _ if !resumed.is_empty() => resumed,
            (true, Some(_)) if !has_gate(job) => vec![],
            (true, Some(queue)) => {
                let labels = json!({"labels": {QUEUE_LABEL: queue}});
                vec![patch_job(job, json!({"metadata": labels, "spec": {"template": template}}))]
            }
            (true, None) => vec![patch_job(job, json!({"spec": {"suspend": false, "template": template}}))],
            // not only where the template has the gate still: a pod may be older than the Job's release
            (false, _) => {
                let pods = self.pods.iter().filter(|pod| job_uid(pod) == job.metadata.uid.as_deref());
                pods.filter_map(release_pod).collect()
            }
        }
    }
}
