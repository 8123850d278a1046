//! A version that has no run yet: protocol §§1 to 4, up to its record.

use super::liveness::{has_ended, has_gate, is_alive, is_finished, is_foreign, is_gated, is_known, job_uid};
use super::standing::Standing;
use super::step::{Next, Plan, Step, delete_config_map, delete_job, delete_pod};
use super::{
    CONTROLLER_UID_LABEL, LOOK_AGAIN, MAX_JOB_BYTES, Observed, RECHECK, build_claim, build_config_map, build_job,
};
use crate::admission::{Subject, Violation, validate};
use crate::crd::{Agent, TASK_RUN_UID_LABEL, reason};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

impl Observed {
    /// The version has no run yet: §§1 to 4 of the protocol, one at a time.
    pub(super) fn start(&self) -> Plan {
        let spec = &self.task_run.spec;
        if spec.cancel == Some(true) {
            return self.never_start();
        }
        if spec.suspend == Some(true) {
            return self.stand(&Standing::suspended(), Next::Wait).after(self.end_older());
        }
        if let Some((reason, message)) = &self.refused {
            let message = format!("Agent \"{}\": {message}", spec.agent_name);
            return self.stand(&Standing::stalled(reason, &message), Next::After(RECHECK));
        }
        let violations = self.violations();
        if !violations.is_empty() {
            let message: Vec<String> = violations.iter().map(ToString::to_string).collect();
            return self.stand(&Standing::stalled(reason::INVALID_SPEC, &message.join("; ")), Next::Wait);
        }
        match &self.job {
            None => self.create(),
            Some(job) if !self.is_ours(&job.metadata) => self.name_conflict("Job", &job.metadata, delete_job(job)),
            Some(job) if job.metadata.deletion_timestamp.is_some() => Plan::of(vec![], Next::After(RECHECK)),
            Some(job) if !is_known(job) => Plan::of(self.end_older(), Next::After(RECHECK)),
            Some(job) => self.take_over(job),
        }
    }

    /// Every rule that the TaskRun breaks.
    pub(super) fn violations(&self) -> Vec<Violation> {
        validate(&Subject::from(&self.task_run), None, self.names, 0)
    }

    /// The present version's ConfigMap, where it is not there; or what to do about somebody else's of its name.
    pub(super) fn create_config_map(&self) -> Result<Option<Step>, Plan> {
        match &self.config_map {
            Some(config_map) if !self.is_ours(config_map) => {
                Err(self.name_conflict("ConfigMap", config_map, delete_config_map(config_map)))
            }
            Some(_) => Ok(None),
            None => Ok(Some(Step::CreateConfigMap(Box::new(build_config_map(&self.task_run))))),
        }
    }

    /// Protocol §§1 and 2: the ConfigMap and the Job, which cannot start yet. Older runs are ended first, and
    /// another TaskRun's waited for: the Job controller learns of Jobs in their order, so one that knows of
    /// the new Job knows that it may make no pod of an older one.
    fn create(&self) -> Plan {
        let (agent, job) = match self.agent_and_job() {
            Ok(found) => found,
            Err(standing) => return self.stand(&standing, Next::Wait),
        };
        if !self.has_finalizer() {
            return Plan::of(vec![self.add_finalizer()], Next::Again);
        }
        let mut steps: Vec<Step> = match self.create_config_map() {
            Ok(step) => step.into_iter().collect(),
            Err(conflict) => return conflict,
        };
        if let Some(foreign) = self.foreign_run() {
            let message = format!("waiting for Job {} to end, which is not this TaskRun's", foreign.name_any());
            let mut plan = self.stand(&Standing::waiting(&message), Next::After(RECHECK));
            plan.steps.extend(self.label_foreign());
            return plan;
        }
        steps.extend(build_claim(&self.task_run, agent).map(|claim| Step::CreateClaim(Box::new(claim))));
        steps.push(Step::CreateJob(Box::new(job)));
        // the Job controller has to know it first, and what it writes then wakes us
        Plan::of(steps, Next::After(RECHECK)).after(self.end_older())
    }

    /// The Agent and the Job that it makes of the present version; or why there is none.
    fn agent_and_job(&self) -> Result<(&Agent, Job), Box<Standing>> {
        let name = &self.task_run.spec.agent_name;
        let invalid = |message: &String| {
            Box::new(Standing::stalled(reason::INVALID_AGENT, &format!("Agent \"{name}\": {message}")))
        };
        let agent = match &self.agent {
            Some(Ok(agent)) => agent,
            Some(Err(message)) => return Err(invalid(message)),
            None => {
                let message = format!("there is no Agent \"{name}\" in this namespace: create it, or name another");
                return Err(Box::new(Standing::stalled(reason::AGENT_NOT_FOUND, &message)));
            }
        };
        let job = build_job(&self.task_run, agent).map_err(|message| invalid(&message))?;
        let bytes = serde_json::to_vec(&job).map_or(0, |json| json.len());
        if bytes > MAX_JOB_BYTES {
            let message = format!(
                "the Job would have {bytes} bytes, {MAX_JOB_BYTES} are possible: shorten spec.env, which each container gets, or the Agent"
            );
            return Err(Box::new(Standing::stalled(reason::TOO_LARGE, &message)));
        }
        Ok((agent, job))
    }

    /// Protocol §§3 and 4: older runs end first, then this Job is recorded as the version's run.
    fn take_over(&self, job: &Job) -> Plan {
        match self.waits_for(job.metadata.uid.as_deref()) {
            Some(what) => {
                let message = format!("waiting for {what} of an earlier run to end");
                let mut plan = self.stand(&Standing::waiting(&message), Next::After(RECHECK));
                plan.steps.extend(self.label_foreign());
                plan.after(self.delete_gated_orphans()).after(self.end_older())
            }
            None => self.record(job),
        }
    }

    /// Protocol §4 and, once that is written, §5: it stands on this Job as it is now, not on the TaskRun.
    fn record(&self, job: &Job) -> Plan {
        let release = if self.has_finalizer() { self.release(job) } else { vec![] };
        let next = if release.is_empty() { Next::Again } else { Next::After(LOOK_AGAIN) };
        let mut plan = self.stand(&Standing::recorded(self, job), next);
        plan.steps.extend(release);
        plan
    }

    /// What of earlier runs must end before this Job may be recorded.
    fn waits_for(&self, uid: Option<&str>) -> Option<String> {
        let alive = self.pods.iter().find(|pod| job_uid(pod) != uid && (is_alive(pod) || self.may_be_released(pod)));
        let alive = alive.map(|pod| format!("pod {}", pod.name_any()));
        let job = self.unfinished_others().into_iter().chain(self.foreign_run()).next();
        alive.or_else(|| job.map(|job| format!("Job {}", job.name_any())))
    }

    /// A Job of the task that another TaskRun has released, a predecessor whose finalizer was taken away, or that was
    /// made by somebody else.
    fn foreign_run(&self) -> Option<&Job> {
        let foreign = self.other_jobs.iter().filter(|job| !self.is_ours(&job.metadata));
        foreign.filter(|job| !is_finished(job)).find(|job| !has_gate(job))
    }

    /// Jobs of the task that no TaskRun has made.
    pub(super) fn foreign_jobs(&self) -> impl Iterator<Item = &Job> {
        self.other_jobs.iter().filter(|job| is_foreign(job) && !is_finished(job))
    }

    /// Whether a pod behind our gate may yet start: a recorded run's may be released by a plan that was
    /// made before the run was superseded. Another TaskRun's records are not known.
    fn may_be_released(&self, pod: &Pod) -> bool {
        let job = pod.labels().get(CONTROLLER_UID_LABEL);
        let is_of_another = pod.labels().get(TASK_RUN_UID_LABEL) != self.task_run.metadata.uid.as_ref();
        !has_ended(pod) && (self.is_recorded(job) || is_of_another)
    }

    /// Pods behind our gate whose Job was deleted without them: nobody else would ever end them.
    fn delete_gated_orphans(&self) -> Vec<Step> {
        let orphans =
            self.pods.iter().filter(|pod| job_uid(pod).is_none() && is_gated(pod) && self.may_be_released(pod));
        orphans.filter_map(delete_pod).collect()
    }

    /// A cancelled version that has no run gets none, ever. It says so once nothing older runs either;
    /// a Job that was made for it is then nobody's run.
    fn never_start(&self) -> Plan {
        let plan = match self.unfinished_others().first() {
            Some(older) => {
                let message = format!("cancelled, waiting for Job {} of an earlier run to end", older.name_any());
                self.stand(&Standing::waiting(&message), Next::After(RECHECK))
            }
            None => self.stand(&Standing::cancelled(self), Next::Again),
        };
        plan.after(self.end_older())
    }

    /// An object of somebody else has our name. One that belonged to a TaskRun of our name is nobody's now,
    /// since names are unique: that is no conflict, and it goes.
    fn name_conflict(&self, kind: &str, metadata: &ObjectMeta, delete: Option<Step>) -> Plan {
        let (name, ours) = (metadata.name.as_deref().unwrap_or_default(), self.task_run.name_any());
        let is_left_behind = |owner: &OwnerReference| owner.kind == "TaskRun" && owner.name == ours;
        let is_left_behind = metadata.owner_references.iter().flatten().any(is_left_behind);
        let standing = match (is_left_behind, delete) {
            (true, Some(delete)) => return Plan::of(vec![delete], Next::Again),
            (true, None) => {
                Standing::waiting(&format!("waiting for {kind} {name} of a deleted TaskRun \"{ours}\" to go"))
            }
            (false, _) => {
                let message = format!("{kind} \"{name}\" exists and is not this TaskRun's: delete or rename it");
                Standing::stalled(reason::NAME_CONFLICT, &message)
            }
        };
        self.stand(&standing, Next::After(RECHECK))
    }
}
