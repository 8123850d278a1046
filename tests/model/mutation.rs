//! The protocol with one of its protections taken out, from outside: by what `plan` is shown and by
//! what is made of its steps.

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use taskrun_operator::crd::{Outcome, RunStatus, TASK_LABEL, TASK_RUN_UID_LABEL, TaskRunStatus};
use taskrun_operator::plan::{Observed, Step, is_finished, is_owned, plan};

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Status writes carry no resourceVersion.
    StatusUnlocked,
    /// Jobs are created without the scheduling gate.
    NoGate,
    /// Jobs are created unsuspended.
    NotSuspended,
    /// Jobs are created neither suspended nor gated.
    StartsAtOnce,
    /// A release carries no uid.
    ReleaseWithoutUid,
    /// A release carries no resourceVersion.
    ReleaseUnlocked,
    /// A release carries neither.
    ReleaseUnconditional,
    /// A suspended Job is deleted for a cancel though it may have been released since.
    CancelUnlocked,
    /// The Job is released before it is recorded.
    ReleaseBeforeRecord,
    /// The Job is released and never recorded while it runs.
    NoRecord,
    /// A run is recorded though older Jobs have not ended.
    NoWaitForJobs,
    /// A run is recorded though pods live.
    NoWaitForPods,
    /// A run is recorded though Jobs of another TaskRun may make pods.
    NoWaitForForeignJobs,
    /// A run is recorded though pods of another TaskRun live.
    NoWaitForForeignPods,
    /// A run is recorded though pods that may yet be released are there.
    NoWaitForGatedPods,
    /// A run is recorded though the Job controller has not written its Job.
    NoWaitForController,
    /// Jobs are deleted with the default propagation, which lets their pods live.
    DeletesByDefault,
    /// A cancel is recorded, and the Job left as it is.
    CancelWithoutJob,
    /// A cancel is recorded before the Job is written.
    CancelRecordedFirst,
    /// Jobs that are nobody's run are left.
    StraysStay,
    /// Older runs are not ended.
    OlderRunsStay,
    /// A recorded Job that is gone is made again.
    CreatesAgain,
    /// A pod that somebody's unsuspension let come is not released.
    PodsStayGated,
    /// Pods behind the gate that have lost their Job are left.
    OrphansStay,
    /// A deletion does not wait for its pods and Jobs.
    DeletionDoesNotWait,
    /// The finalizer is never taken off.
    FinalizerStays,
    /// A TaskRun that has not the task's own name runs as well.
    AnyName,
    /// A Job of the right name is taken for ours.
    AnyOwner,
    /// A restored TaskRun runs at once.
    CopiesRun,
    /// Older runs are ended only once the new Job is there.
    EndsOlderLate,
    /// That a TaskRun adopts a Job is not read.
    AdoptsNothing,
    /// New context does not wait for an adopted Job.
    NoWaitForAdopted,
    /// The pods of an adopted Job that are not labelled yet are not looked for.
    NoWaitForAdoptedPods,
    /// An adopted Job is taken for ours.
    AdoptedIsOurs,
}

use Mutation::{
    AdoptedIsOurs, AdoptsNothing, AnyName, AnyOwner, CancelRecordedFirst, CancelUnlocked, CancelWithoutJob,
    CreatesAgain, DeletionDoesNotWait, EndsOlderLate, FinalizerStays, NoGate, NoRecord, NoWaitForAdopted,
    NoWaitForAdoptedPods, NoWaitForController, NoWaitForForeignJobs, NoWaitForForeignPods, NoWaitForGatedPods,
    NoWaitForJobs, NoWaitForPods, NotSuspended, OlderRunsStay, OrphansStay, PodsStayGated, ReleaseBeforeRecord,
    ReleaseUnconditional, ReleaseUnlocked, ReleaseWithoutUid, StartsAtOnce, StatusUnlocked, StraysStay,
};

impl Mutation {
    /// What `plan` is not shown, or shown otherwise.
    pub fn blind(self, observed: &mut Observed) {
        let is_recorded = observed.task_run.present_run().is_some();
        let uid = observed.task_run.uid();
        let is_deleted = observed.task_run.metadata.deletion_timestamp.is_some();
        match self {
            NoWaitForJobs if !is_recorded => observed.other_jobs.clear(),
            NoWaitForPods if !is_recorded => observed.pods.clear(),
            NoWaitForForeignJobs => {
                let task_run = observed.task_run.metadata.clone();
                observed.other_jobs.retain(|job| is_owned(&job.metadata, &task_run));
            }
            NoWaitForForeignPods => observed.pods.retain(|pod| pod.labels().get(TASK_RUN_UID_LABEL) == uid.as_ref()),
            NoWaitForGatedPods if !is_recorded => observed.pods.retain(|pod| !is_gated(pod)),
            NoWaitForController => observed.job.iter_mut().for_each(make_known),
            CancelWithoutJob if observed.task_run.spec.cancel == Some(true) && is_recorded => observed.job = None,
            OlderRunsStay if is_recorded || observed.job.is_none() => observed.other_jobs.clear(),
            PodsStayGated if is_recorded => observed.pods.clear(),
            DeletionDoesNotWait if is_deleted => {
                (observed.job, observed.other_jobs, observed.pods) = (None, vec![], vec![]);
            }
            AdoptsNothing => observed.task_run.metadata.annotations = None,
            NoWaitForAdopted if !is_recorded => observed.other_jobs.retain(|job| !is_adopted(job)),
            NoWaitForAdoptedPods => observed.pods.retain(|pod| pod.labels().contains_key(TASK_LABEL)),
            AdoptedIsOurs => {
                let owner = observed.task_run.controller_owner_ref(&()).map(|owner| vec![owner]);
                for job in observed.job.iter_mut().chain(&mut observed.other_jobs).filter(|job| is_adopted(job)) {
                    job.metadata.owner_references.clone_from(&owner);
                }
            }
            AnyName => observed.task_run.metadata.name = Some("task-7".to_owned()),
            AnyOwner => {
                let task_run = observed.task_run.metadata.clone();
                for job in observed.job.iter_mut().filter(|job| !is_owned(&job.metadata, &task_run)) {
                    job.metadata.owner_references.iter_mut().flatten().for_each(|owner| {
                        owner.uid.clone_from(task_run.uid.as_ref().unwrap());
                    });
                }
            }
            CreatesAgain => create_again(observed),
            NoRecord => self.forget_record(observed),
            _ => {}
        }
    }

    /// A Job that may be recorded is shown as recorded.
    fn forget_record(self, observed: &mut Observed) {
        let records = |step: &Step| matches!(step, Step::PatchStatus(patch) if patch["status"].get("runs").is_some());
        let is_recorded = observed.task_run.present_run().is_some();
        let Some(job) = observed.job.as_ref().filter(|job| !is_recorded && !is_finished(job)) else { return };
        let run = RunStatus {
            context_version: observed.task_run.spec.context_version,
            job_name: Some(job.name_any()),
            job_uid: job.uid(),
            ..RunStatus::default()
        };
        let may_be_recorded = observed.task_run.spec.cancel != Some(true) && plan(observed).steps.iter().any(records);
        if self == NoRecord && may_be_recorded {
            observed.task_run.status.get_or_insert_with(TaskRunStatus::default).runs.push(run);
        }
    }

    /// What is made of the steps.
    pub fn twist(self, steps: &mut Vec<Step>, observed: &Observed) {
        let is_recorded = observed.task_run.present_run().is_some();
        match self {
            StraysStay if is_recorded => steps.retain(|step| !matches!(step, Step::DeleteJob { .. })),
            OlderRunsStay if !is_recorded => steps.retain(|step| !matches!(step, Step::DeleteJob { .. })),
            OrphansStay => steps.retain(|step| !matches!(step, Step::DeletePod { .. })),
            FinalizerStays => steps.retain(|step| !matches!(step, Step::SetFinalizers { .. })),
            ReleaseBeforeRecord => release_first(steps, observed),
            EndsOlderLate if creates(steps) => steps.retain(|step| !matches!(step, Step::DeleteJob { .. })),
            CancelRecordedFirst if observed.task_run.spec.cancel == Some(true) => record_first(steps, observed),
            _ => steps.iter_mut().for_each(|step| self.twist_step(step)),
        }
    }

    fn twist_step(self, step: &mut Step) {
        match (self, step) {
            (StatusUnlocked, Step::PatchStatus(patch)) => drop(take(patch, "resourceVersion")),
            (NoGate | StartsAtOnce | NotSuspended, Step::CreateJob(job)) => {
                let spec = job.spec.as_mut().unwrap();
                spec.suspend = spec.suspend.filter(|_| self == NoGate);
                let pod = spec.template.spec.as_mut().unwrap();
                pod.scheduling_gates = pod.scheduling_gates.take().filter(|_| self == NotSuspended);
            }
            (ReleaseWithoutUid | ReleaseUnconditional | ReleaseUnlocked, Step::PatchJob { patch, .. }) => {
                if self != ReleaseUnlocked {
                    take(patch, "uid");
                }
                if self != ReleaseWithoutUid {
                    take(patch, "resourceVersion");
                }
            }
            (CancelUnlocked, Step::DeleteJob { resource_version, .. }) => *resource_version = None,
            _ => {}
        }
    }
}

fn is_adopted(job: &Job) -> bool {
    job.labels().contains_key(TASK_LABEL)
}

fn creates(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::CreateJob(_)))
}

fn take(patch: &mut Value, field: &str) -> Option<Value> {
    patch["metadata"].as_object_mut()?.remove(field)
}

fn is_gated(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.is_some())
}

fn make_known(job: &mut Job) {
    let condition = JobCondition { type_: "Suspended".to_owned(), ..JobCondition::default() };
    job.status.get_or_insert_with(|| JobStatus { conditions: Some(vec![condition]), ..JobStatus::default() });
}

/// A run whose Job is gone, or is another, is shown as not recorded.
fn create_again(observed: &mut Observed) {
    let uid = observed.job.as_ref().and_then(ResourceExt::uid);
    let version = observed.task_run.spec.context_version;
    if let Some(status) = &mut observed.task_run.status {
        status.runs.retain(|run| run.context_version != version || run.outcome.is_some() || run.job_uid == uid);
    }
    let owner_references = observed.task_run.controller_owner_ref(&()).map(|owner| vec![owner]);
    observed.config_map = Some(ObjectMeta { owner_references, ..ObjectMeta::default() });
}

/// The release that would follow the record, before it.
fn release_first(steps: &mut Vec<Step>, observed: &Observed) {
    let Some(Step::PatchStatus(patch)) = steps.iter().find(|step| matches!(step, Step::PatchStatus(_))) else { return };
    let Some(runs) = patch["status"].get("runs").filter(|_| observed.task_run.present_run().is_none()) else { return };
    let mut later = observed.clone();
    later.task_run.status.get_or_insert_default().runs = serde_json::from_value(runs.clone()).unwrap();
    let mut first = plan(&later).steps;
    first.retain(|step| matches!(step, Step::PatchJob { .. }));
    steps.splice(0..0, first);
}

/// The end that would follow the cancel of a run, before it.
fn record_first(steps: &mut Vec<Step>, observed: &Observed) {
    let writes_job = steps.iter().any(|step| matches!(step, Step::PatchJob { .. } | Step::DeleteJob { .. }));
    let Some(run) = observed.task_run.present_run().filter(|run| run.outcome.is_none() && writes_job) else { return };
    let mut runs = observed.task_run.status.clone().unwrap_or_default().runs;
    let cancelled = RunStatus { outcome: Some(Outcome::Cancelled), ..run.clone() };
    runs.iter_mut().filter(|of| of.context_version == run.context_version).for_each(|of| *of = cancelled.clone());
    let metadata = json!({"resourceVersion": observed.task_run.metadata.resource_version});
    steps.insert(0, Step::PatchStatus(json!({"metadata": metadata, "status": {"runs": runs}})));
}
