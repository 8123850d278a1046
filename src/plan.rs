//! What to do next for one `TaskRun`: a pure decision that leaves none to its executor.
//!
//! [`plan`] turns what was observed into steps. It holds the run protocol (`docs/adr/0002`): a version
//! is run at most once, and never beside another run of the same task. Each step carries the uid or
//! resourceVersion that it was decided on, so that a plan which has become stale fails instead of
//! acting on something newer. `now` is a value: nothing here reads a clock.

mod agent;
mod job;
mod liveness;
mod pods;
mod standing;
mod status;
mod step;
#[cfg(test)]
mod tests;

pub use agent::{build_trial_job, is_judged, judge_agent};
pub use job::{build_claim, build_config_map, build_job, task_selector};
pub use liveness::{is_finished, is_owned, is_queued};
pub use status::Notice;
pub use step::{Next, Plan, Step};

use crate::admission::{Subject, validate};
use crate::crd::{
    Agent, FINALIZER, QUEUE_LABEL, RELEASE_GATE, RunStatus, TASK_RUN_UID_LABEL, TaskNames, TaskRun, TaskRunStatus,
    reason,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::DynamicObject;
use liveness::{has_ended, has_gate, is_alive, is_gated, is_known, is_suspended, job_uid, queue};
use serde_json::json;
use standing::Standing;
use status::status_steps;
use std::time::Duration;
use step::{delete_config_map, delete_job, delete_job_as_seen, delete_pod, patch_job, patch_workload, release_pod};

/// How long a deletion waits for pods to end before it is let go with a Warning.
pub const CLEANUP_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// Label that the Job controller gives a pod, and that an orphan keeps: the uid of its Job.
const CONTROLLER_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// How soon to look again where an event should wake us anyway.
const RECHECK: Duration = Duration::from_secs(10);
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
        None => match observed.awaited() {
            Some((run, job)) => observed.await_end(run, job),
            None => observed.start(),
        },
    }
}

impl Observed {
    fn status(&self) -> TaskRunStatus {
        self.task_run.status.clone().unwrap_or_default()
    }

    /// The older run that this version waits for, while it goes on.
    fn awaited(&self) -> Option<(&RunStatus, &Job)> {
        let run = self.task_run.awaited_run()?;
        let is_the_run = |job: &&Job| job.metadata.uid.is_some() && job.metadata.uid == run.job_uid;
        self.other_jobs.iter().find(is_the_run).filter(|job| !is_finished(job)).map(|job| (run, job))
    }

    /// `AfterCompletion`: an older run goes on as if there were no newer version.
    fn await_end(&self, run: &RunStatus, job: &Job) -> Plan {
        let strays = self.unfinished_others().into_iter().filter(|other| other.metadata.uid != job.metadata.uid);
        let strays = strays.filter_map(delete_job).collect();
        self.go_on(run, job, &format!("; version {} waits for its end", self.task_run.spec.context_version))
            .after(strays)
    }

    /// The version has no run yet: §§1 to 4 of the protocol, one at a time.
    fn start(&self) -> Plan {
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
        let subject = Subject::from(&self.task_run);
        let violations = validate(&subject, None, self.names, 0);
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

    /// Protocol §§1 and 2: the ConfigMap and the Job, which cannot start yet. Older runs are ended first, and
    /// another TaskRun's waited for: the Job controller learns of Jobs in their order, so one that knows of
    /// the new Job knows that it may make no pod of an older one.
    fn create(&self) -> Plan {
        let (agent, job) = match self.agent_and_job() {
            Ok(found) => found,
            Err(standing) => return self.stand(&standing, Next::Wait),
        };
        let mut steps = vec![];
        if !self.has_finalizer() {
            return Plan::of(vec![self.add_finalizer()], Next::Again);
        }
        match &self.config_map {
            Some(config_map) if !self.is_ours(config_map) => {
                return self.name_conflict("ConfigMap", config_map, delete_config_map(config_map));
            }
            Some(_) => {}
            None => steps.push(Step::CreateConfigMap(Box::new(build_config_map(&self.task_run)))),
        }
        if let Some(foreign) = self.foreign_run() {
            let message = format!("waiting for Job {} of another TaskRun to end", foreign.name_any());
            return self.stand(&Standing::waiting(&message), Next::After(RECHECK));
        }
        steps.extend(build_claim(&self.task_run, agent).map(|claim| Step::CreateClaim(Box::new(claim))));
        steps.push(Step::CreateJob(Box::new(job)));
        Plan::of(steps, Next::Again).after(self.end_older())
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
                let plan = self.stand(&Standing::waiting(&message), Next::After(RECHECK));
                plan.after(self.delete_gated_orphans()).after(self.end_older())
            }
            None => self.stand(&Standing::recorded(self, job), Next::Again),
        }
    }

    /// What of earlier runs must end before this Job may be recorded.
    fn waits_for(&self, uid: Option<&str>) -> Option<String> {
        let alive = self.pods.iter().find(|pod| job_uid(pod) != uid && (is_alive(pod) || self.may_be_released(pod)));
        let alive = alive.map(|pod| format!("pod {}", pod.name_any()));
        let job = self.unfinished_others().into_iter().chain(self.foreign_run()).next();
        alive.or_else(|| job.map(|job| format!("Job {}", job.name_any())))
    }

    /// A Job of the task that another TaskRun has released: a predecessor whose finalizer was taken away.
    fn foreign_run(&self) -> Option<&Job> {
        let foreign = self.other_jobs.iter().filter(|job| !self.is_ours(&job.metadata));
        foreign.filter(|job| !is_finished(job)).find(|job| !has_gate(job))
    }

    /// Whether a pod behind our gate may yet start: a recorded run's may be released by a plan that was
    /// made before the run was superseded. Another TaskRun's records are not known.
    fn may_be_released(&self, pod: &Pod) -> bool {
        let job = pod.labels().get(CONTROLLER_UID_LABEL);
        let is_of_another = pod.labels().get(TASK_RUN_UID_LABEL) != self.task_run.metadata.uid.as_ref();
        !has_ended(pod) && (self.is_recorded(job) || is_of_another)
    }

    /// Whether a Job with this uid is the run of some version.
    fn is_recorded(&self, uid: Option<&String>) -> bool {
        let mut runs = self.task_run.status.iter().flat_map(|status| &status.runs);
        uid.is_some() && runs.any(|run| run.job_uid.as_ref() == uid)
    }

    /// Pods behind our gate whose Job was deleted without them: nobody else would ever end them.
    fn delete_gated_orphans(&self) -> Vec<Step> {
        let orphans =
            self.pods.iter().filter(|pod| job_uid(pod).is_none() && is_gated(pod) && self.may_be_released(pod));
        orphans.filter_map(delete_pod).collect()
    }

    fn end_older(&self) -> Vec<Step> {
        self.unfinished_others().into_iter().filter_map(delete_job).collect()
    }

    /// The version's run is recorded and goes on: protocol §5, then its status.
    fn follow(&self, run: &RunStatus) -> Plan {
        let is_the_run = |job: &&Job| job.metadata.uid.is_some() && job.metadata.uid == run.job_uid;
        let Some(job) = self.job.as_ref().filter(is_the_run) else {
            return self.with_strays(self.stand(&Standing::gone(self, run), Next::Wait));
        };
        self.with_strays(self.go_on(run, job, ""))
    }

    /// A recorded run goes on: what it is to do next, or else its status, with this said after its message.
    fn go_on(&self, run: &RunStatus, job: &Job, beside: &str) -> Plan {
        if !self.has_finalizer() && !is_finished(job) {
            return Plan::of(vec![self.add_finalizer()], Next::Again);
        }
        let steps = self.steer(job);
        if !steps.is_empty() {
            // nothing that we watch tells of a Workload
            let is_workload = steps.iter().any(|step| matches!(step, Step::PatchWorkload { .. }));
            return Plan::of(steps, if is_workload { Next::Again } else { Next::After(LOOK_AGAIN) });
        }
        let mut standing = Standing::of_job(self, run, job);
        standing.message.push_str(beside);
        let is_starting = standing.reason == reason::STARTING;
        self.stand(&standing, Next::After(if is_starting { STARTS_WITHIN.unsigned_abs() } else { LOOK_AGAIN }))
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
            (true, _) if is_suspended(job) => delete_job_as_seen(job).into_iter().collect(),
            (true, _) if deadline != Some(1) => vec![patch_job(job, json!({"spec": {"activeDeadlineSeconds": 1}}))],
            (false, true) if self.workload.is_some() => self.set_active(false),
            (false, true) if !is_suspended(job) => vec![patch_job(job, json!({"spec": {"suspend": true}}))],
            (false, false) => self.release(job),
            _ => vec![],
        }
    }

    /// Tells Kueue, which would undo a suspension of the Job, whether it may run; nothing where it knows.
    fn set_active(&self, active: bool) -> Vec<Step> {
        let is_other = |workload: &&DynamicObject| workload.data["spec"]["active"] != json!(active);
        self.workload.iter().filter(is_other).map(|workload| patch_workload(workload, active)).collect()
    }

    /// The run is over, and with `ttlSecondsAfterFinished` the TaskRun some time later.
    fn keep_ended(&self, run: &RunStatus) -> Plan {
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
    fn cut_history(&self, plan: Plan) -> Plan {
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

    /// Protocol §5: what lets the recorded Job start, at once or when its queue says so; nothing where it
    /// may already.
    fn release(&self, job: &Job) -> Vec<Step> {
        let template = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let gates = template.and_then(|pod| pod.scheduling_gates.as_deref()).unwrap_or_default();
        let others: Vec<_> = gates.iter().filter(|gate| gate.name != RELEASE_GATE).collect();
        let template = json!({"spec": {"schedulingGates": others}});
        match (is_suspended(job), queue(job)) {
            (true, Some(_)) if !has_gate(job) => self.set_active(true),
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

    /// The TaskRun is being deleted: its Jobs end first, then it may go.
    fn clean_up(&self, deleted: Timestamp) -> Plan {
        if !self.has_finalizer() {
            return Plan::of(vec![], Next::Wait);
        }
        let ours = self.job.iter().chain(&self.other_jobs).filter(|job| self.is_ours(&job.metadata));
        let running: Vec<&Job> = ours.filter(|job| !is_finished(job)).collect();
        let uid = self.task_run.metadata.uid.as_ref();
        let is_pod_of_ours = |pod: &&Pod| pod.labels().get(TASK_RUN_UID_LABEL) == uid && !has_ended(pod);
        let pods = || self.pods.iter().filter(is_pod_of_ours);
        let alive = pods().filter(|pod| is_alive(pod) || job_uid(pod).is_none());
        let alive = alive.map(|pod| format!("pod {}", pod.name_any()));
        let alive: Vec<String> = alive.chain(running.iter().map(|job| format!("Job {}", job.name_any()))).collect();
        if alive.is_empty() {
            return Plan::of(vec![self.remove_finalizer()], Next::Wait);
        }
        let mut steps: Vec<Step> = running.iter().filter_map(|job| delete_job(job)).collect();
        // nobody else ends a pod whose Job was deleted without it
        steps.extend(pods().filter(|pod| job_uid(pod).is_none()).filter_map(delete_pod));
        if self.now < deleted + CLEANUP_DEADLINE {
            return Plan::of(steps, Next::After(RECHECK));
        }
        steps.push(Step::Publish(Notice::cleanup_deadline(&alive)));
        steps.push(self.remove_finalizer());
        Plan::of(steps, Next::Wait)
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
