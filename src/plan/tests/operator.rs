//! An operator in the world: it reads piece by piece, as `controller::observe` does, and writes step by
//! step, so that anything may happen in between.

use super::super::*;
use super::world::World;
use crate::crd::{Phase, TASK_LABEL, TaskRunStatus};
use std::collections::{BTreeMap, VecDeque};

/// Where it stands.
#[derive(Clone, Default)]
enum Doing {
    #[default]
    Nothing,
    ReadTaskRun(Box<TaskRun>),
    ReadJob(Box<TaskRun>, Option<Box<Job>>, Option<ObjectMeta>),
    ReadOthers(Box<TaskRun>, Option<Box<Job>>, Option<ObjectMeta>, Vec<Job>),
    Writing(VecDeque<Step>),
}

/// An operator, with what its watches have told it.
#[derive(Clone, Default)]
pub struct Operator {
    doing: Doing,
    jobs: BTreeMap<String, Job>,
    pods: BTreeMap<String, Pod>,
    /// The last plan.
    pub next: Option<Next>,
    /// Every step that was carried out, plan by plan.
    pub plans: Vec<Vec<Step>>,
}

impl Operator {
    /// Its watches catch up.
    pub fn watch(&mut self, world: &World) {
        self.jobs.clone_from(&world.jobs);
        self.pods.clone_from(&world.pods);
    }

    /// It ends and another takes its place.
    pub fn crash(&mut self, world: &World) {
        self.doing = Doing::Nothing;
        self.watch(world);
    }

    /// One read or one write.
    pub fn act(&mut self, world: &mut World) {
        self.doing = match std::mem::take(&mut self.doing) {
            Doing::Nothing => {
                world.task_run.clone().map_or(Doing::Nothing, |found| Doing::ReadTaskRun(Box::new(found)))
            }
            Doing::ReadTaskRun(task_run) => {
                let (name, config_map) = (task_run.present_job(), task_run.spec.run_id().to_string());
                let config_map = world.config_maps.get(&config_map).map(|config_map| config_map.metadata.clone());
                Doing::ReadJob(task_run, world.jobs.get(&name).cloned().map(Box::new), config_map)
            }
            Doing::ReadJob(task_run, job, config_map)
                if !is_there_still(&task_run, job.as_deref(), config_map.as_ref(), world) =>
            {
                Doing::Nothing
            }
            Doing::ReadJob(task_run, job, config_map) => {
                let others = self.other_jobs(&task_run, world);
                Doing::ReadOthers(task_run, job, config_map, others)
            }
            Doing::ReadOthers(task_run, job, config_map, other_jobs) => {
                let observed = Observed {
                    config_maps: super::config_maps(&task_run, world),
                    workload: world.workload.clone().filter(|_| is_suspended(&task_run)),
                    adopted: task_run.adoption().and_then(|adoption| world.jobs.get(adoption.job).cloned()),
                    pods: self.pods_for(&task_run, job.as_deref(), &other_jobs, world),
                    task_run: *task_run,
                    job: job.map(|job| *job),
                    other_jobs,
                    config_map,
                    agent: world.agent.clone().map(Ok),
                    refused: None,
                    names: TaskNames::ById,
                    now: world.now(),
                };
                let Plan { steps, next } = plan(&observed);
                self.next = Some(next);
                self.plans.push(vec![]);
                if steps.is_empty() { Doing::Nothing } else { Doing::Writing(steps.into()) }
            }
            Doing::Writing(mut steps) => match steps.pop_front() {
                Some(step) if world.apply(&step).is_ok() => {
                    self.plans.last_mut().unwrap().push(step);
                    if steps.is_empty() { Doing::Nothing } else { Doing::Writing(steps) }
                }
                _ => Doing::Nothing,
            },
        };
    }

    /// Jobs of other versions: live where they may have pods, else as last seen.
    fn other_jobs(&self, task_run: &TaskRun, world: &World) -> Vec<Job> {
        let present = task_run.present_job();
        let records = task_run.present_run().is_none() && world.jobs.contains_key(&present);
        let needs_all =
            records || !task_run.surplus_runs().is_empty() || task_run.metadata.deletion_timestamp.is_some();
        let mut jobs = if needs_all { world.jobs.clone() } else { self.jobs.clone() };
        // the others are not found
        jobs.retain(|_, job| job.labels().contains_key(TASK_LABEL));
        let begins = task_run.present_run().is_none();
        let may_live = |run: &&crate::crd::RunStatus| run.outcome.is_none() || (begins && task_run.is_adopted(run));
        let runs = task_run.runs().iter().filter(may_live);
        for name in runs.filter_map(|run| run.job_name.as_ref()) {
            jobs.remove(name);
            jobs.extend(world.jobs.get(name).map(|job| (name.clone(), job.clone())));
        }
        jobs.into_values().filter(|job| job.name_any() != present).collect()
    }

    /// Pods: live where they decide, else as last seen.
    fn pods_for(&self, task_run: &TaskRun, job: Option<&Job>, others: &[Job], world: &World) -> Vec<Pod> {
        let records = task_run.present_run().is_none() && job.is_some();
        let ends = job.into_iter().chain(others).any(is_finished);
        let mut runs = task_run.runs().iter();
        let recorded = runs.find(|run| task_run.is_adopted(run) && (records || run.outcome.is_none()));
        let recorded = recorded.and_then(|run| run.job_uid.as_deref());
        let adopted = task_run.adoption().and_then(|adoption| adoption.uid).or(recorded);
        let decides = records || ends || adopted.is_some() || task_run.metadata.deletion_timestamp.is_some();
        let pods = if decides { &world.pods } else { &self.pods };
        // others are not found before they are labelled
        let is_found = |pod: &&Pod| {
            let uid = pod.labels().get(CONTROLLER_UID_LABEL).map(String::as_str);
            let is_foreign = |job: &&Job| is_foreign(job) && !is_finished(job) && job.metadata.uid.as_deref() == uid;
            let of_foreign = others.iter().any(|job| is_foreign(&job));
            pod.labels().contains_key(TASK_LABEL) || of_foreign || (adopted.is_some() && uid == adopted)
        };
        pods.values().filter(is_found).cloned().collect()
    }

    /// Whether it is between two reconciles.
    pub fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Nothing)
    }

    /// One reconcile from its beginning, on what is so now.
    pub fn reconcile(&mut self, world: &mut World) {
        self.crash(world);
        self.act(world);
        while !self.is_idle() {
            self.act(world);
        }
    }
}

/// One reconcile, cut off once a run is recorded.
pub fn record(operator: &mut Operator, world: &mut World) {
    operator.crash(world);
    for _ in 0..20 {
        if status(world).runs.is_empty() {
            operator.act(world);
        }
    }
    assert_eq!(status(world).runs.len(), 1);
    operator.crash(world);
}

/// Where an object is not the TaskRun's, it is read again: only a predecessor's may be deleted.
fn is_there_still(task_run: &TaskRun, job: Option<&Job>, config_map: Option<&ObjectMeta>, world: &World) -> bool {
    let is_ours = |found: &ObjectMeta| is_owned(found, &task_run.metadata);
    let now = world.task_run.as_ref().and_then(|task_run| task_run.metadata.uid.as_ref());
    job.map(|job| &job.metadata).or(config_map).is_none_or(is_ours) || now == task_run.metadata.uid.as_ref()
}

/// Lets the operator and the cluster go on until nothing happens any more.
pub fn settle(operator: &mut Operator, world: &mut World) {
    for _ in 0..100 {
        let before = world.serial();
        operator.reconcile(world);
        world.tick();
        if world.serial() == before {
            return;
        }
    }
    panic!("no end: {:?}, {:?}", world.task_run, operator.plans.iter().rev().take(3).collect::<Vec<_>>());
}

/// A short word for each step.
pub fn words(steps: &[Step]) -> Vec<String> {
    let word = |step: &Step| match step {
        Step::SetFinalizers { .. } => "finalizers".to_owned(),
        Step::CreateConfigMap(config_map) => format!("create configmap {}", config_map.name_any()),
        Step::CreateClaim(claim) => format!("create claim {}", claim.name_any()),
        Step::DeleteConfigMap { name, .. } => format!("delete config map {name}"),
        Step::PatchWorkload { patch, .. } => format!("workload active={}", patch["spec"]["active"]),
        Step::DeleteTaskRun { .. } => "delete task run".to_owned(),
        Step::CreateJob(job) => format!("create job {}", job.name_any()),
        Step::DeleteJob { name, .. } => format!("delete job {name}"),
        Step::PatchJob { name, patch } => format!("patch job {name} suspend={}", patch["spec"]["suspend"]),
        Step::ReleasePod { .. } => "release pod".to_owned(),
        Step::LabelPod { .. } => "label pod".to_owned(),
        Step::DeletePod { .. } => "delete pod".to_owned(),
        Step::PatchStatus(_) => "status".to_owned(),
        Step::Publish(notice) => format!("event {}", notice.reason),
    };
    steps.iter().map(word).collect()
}

/// The TaskRun's status, empty where there is none.
pub fn status(world: &World) -> TaskRunStatus {
    world.task_run.as_ref().unwrap().status.clone().unwrap_or_default()
}

/// One reconcile: the steps of its one plan, and what is to follow.
pub fn reconcile(operator: &mut Operator, world: &mut World) -> (Vec<String>, Next) {
    operator.reconcile(world);
    (words(operator.plans.last().unwrap()), operator.next.unwrap())
}

/// The name of the one pod that there is.
pub fn only_pod(world: &World) -> String {
    assert_eq!(world.pods.len(), 1);
    world.pods.keys().next().unwrap().clone()
}

/// A world in which version 1 runs.
pub fn running() -> (Operator, World) {
    let (mut operator, mut world) = (Operator::default(), World::new());
    (0..3).for_each(|_| operator.reconcile(&mut world));
    world.sync_job("auth-7-v1");
    world.start_pod(&only_pod(&world));
    operator.reconcile(&mut world);
    assert_eq!(status(&world).phase, Some(Phase::Running));
    (operator, world)
}
