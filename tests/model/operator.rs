//! An operator: it reads piece by piece, as `controller::observe` does, decides with the production
//! `plan`, and writes step by step. Whatever it has in hand it may forget at any time, which is also
//! what it does when an answer is lost.

use super::mutation::Mutation;
use super::objects::{Read, observed, write};
use super::world::{Conflict, HELM, Job, Pod, Run, TaskRun, World, Write};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use taskrun_operator::crd::ContextUpdatePolicy;
use taskrun_operator::plan::plan;

/// Something that was read, and whether it is so still.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held<T> {
    value: T,
    fresh: bool,
}

/// Where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    #[default]
    Idle,
    ReadTaskRun(Held<TaskRun>),
    ReadJob(Held<TaskRun>, Option<Held<Job>>),
    ReadConfigMap(Held<TaskRun>, Option<u8>),
    ReadOthers(Held<TaskRun>, Option<Held<Job>>, Option<u8>, Vec<Held<Job>>),
    /// For the TaskRun of this name.
    Writing(bool, Vec<Held<Write>>),
}

/// The production `plan`, asked once for everything that can be observed.
#[derive(Default)]
pub struct Planner {
    pub policy: Option<ContextUpdatePolicy>,
    pub mutation: Option<Mutation>,
    pub known: Mutex<HashMap<Read, Arc<[Write]>>>,
}

impl Planner {
    fn plan(&self, read: Read) -> Arc<[Write]> {
        if let Some(known) = self.known.lock().unwrap().get(&read) {
            return Arc::clone(known);
        }
        let mut observed = observed(&read, self.policy);
        if let Some(mutation) = self.mutation {
            mutation.blind(&mut observed);
        }
        let mut steps = plan(&observed).steps;
        if let Some(mutation) = self.mutation {
            mutation.twist(&mut steps, &observed);
        }
        let writes: Arc<[Write]> = steps.iter().filter_map(|step| write(step, &read)).collect();
        self.known.lock().unwrap().insert(read, Arc::clone(&writes));
        writes
    }

    /// How many different observations were planned for.
    pub fn observations(&self) -> usize {
        self.known.lock().unwrap().len()
    }
}

impl Operator {
    /// One read or one write. An operator with nothing in hand looks at the TaskRun of this name.
    /// Whatever comes from its caches may be missing there yet.
    #[must_use]
    pub fn act(self, world: &mut World, planner: &Planner, is_twin: bool, lags: bool) -> Self {
        match self {
            Self::Idle => world.task_run(is_twin).map_or(Self::Idle, |found| Self::ReadTaskRun(held(found.clone()))),
            Self::ReadTaskRun(task_run) if lags => Self::ReadConfigMap(task_run, None),
            Self::ReadTaskRun(task_run) => {
                let job = world.job_named(task_run.value.present_job()).copied();
                Self::ReadJob(task_run, job.map(held))
            }
            // what is not ours is a predecessor's only if we are there still
            Self::ReadJob(task_run, Some(job)) if !is_there_still(world, &task_run.value, job.value.owner) => {
                Self::Idle
            }
            Self::ReadConfigMap(task_run, Some(owner)) if !is_there_still(world, &task_run.value, owner) => Self::Idle,
            Self::ReadJob(task_run, None) if task_run.value.present_run().is_none() => {
                let config_map = world.config_maps.iter().find(|(version, _)| *version == task_run.value.version);
                Self::ReadConfigMap(task_run, config_map.map(|(_, owner)| *owner))
            }
            Self::ReadConfigMap(task_run, config_map) => {
                let others = other_jobs(world, &task_run.value, lags).map(held).collect();
                Self::ReadOthers(task_run, None, config_map, others)
            }
            Self::ReadJob(task_run, job) => {
                let others = other_jobs(world, &task_run.value, lags).map(held).collect();
                Self::ReadOthers(task_run, job, None, others)
            }
            Self::ReadOthers(task_run, job, config_map, others) => {
                let pods = pods(world, &task_run.value, job.as_ref(), &others, lags);
                decide(planner, &task_run, job, config_map, &others, pods)
            }
            Self::Writing(is_twin, mut writes) => {
                let write = writes.remove(0);
                let orphan = planner.mutation == Some(Mutation::DeletesByDefault);
                match world.apply(is_twin, &write.value, orphan) {
                    Ok(()) => Self::Writing(is_twin, writes).trimmed(),
                    Err(Conflict) => Self::Idle,
                }
            }
        }
    }

    /// Whether its next read is one that may be behind, and would then tell something else.
    pub fn may_lag(&self, world: &World) -> bool {
        match self {
            // what a new version has already is not asked for, but found out when it is to be made
            Self::ReadTaskRun(task_run) if is_plain(&task_run.value) => {
                let version = task_run.value.version;
                world.job_named(version).is_some() || world.config_maps.iter().any(|(of, _)| *of == version)
            }
            Self::ReadJob(task_run, None) if task_run.value.present_run().is_none() => false,
            Self::ReadJob(task_run, _) | Self::ReadConfigMap(task_run, _) => {
                other_jobs(world, &task_run.value, true).ne(other_jobs(world, &task_run.value, false))
            }
            Self::ReadOthers(task_run, job, _, others) => {
                let pods = |lags| pods(world, &task_run.value, job.as_ref(), others, lags);
                job.is_some() && pods(true) != pods(false)
            }
            _ => false,
        }
    }

    /// What it holds of an object that has changed is not so any more.
    pub fn note_changes(&mut self, before: &World, after: &World) {
        let task_run = |held: &mut Held<TaskRun>| {
            held.fresh &= before.task_run(held.value.is_twin) == after.task_run(held.value.is_twin);
        };
        let job = |held: &mut Held<Job>| held.fresh &= before.job(held.value.uid) == after.job(held.value.uid);
        match self {
            Self::Idle => return,
            Self::ReadTaskRun(of) | Self::ReadConfigMap(of, _) => task_run(of),
            Self::ReadJob(of, present) => {
                task_run(of);
                present.iter_mut().for_each(job);
            }
            Self::ReadOthers(of, present, _, others) => {
                task_run(of);
                present.iter_mut().chain(others).for_each(job);
            }
            Self::Writing(is_twin, writes) => {
                let has_moved = before.task_run(*is_twin) != after.task_run(*is_twin);
                for held in writes.iter_mut() {
                    held.fresh &= match &held.value {
                        Write::Finalizer(_) | Write::Status { locked: true, .. } => !has_moved,
                        Write::DeleteJob { uid, locked: true } | Write::PatchJob { uid, locked: true, .. } => {
                            before.job(*uid) == after.job(*uid)
                        }
                        Write::DeletePod(job, n) => before.pod((*job, *n)) == after.pod((*job, *n)),
                        Write::ReleasePod(job, n) | Write::LabelPod { job, n, .. } => after.pod((*job, *n)).is_some(),
                        _ => true,
                    };
                }
            }
        }
        *self = std::mem::take(self).trimmed();
    }

    /// A write that must fail ends the plan, and could as well have failed already.
    fn trimmed(self) -> Self {
        match self {
            Self::Writing(is_twin, mut writes) => {
                let stale = writes.iter().position(|write| !write.fresh).unwrap_or(writes.len());
                writes.truncate(stale);
                if writes.is_empty() { Self::Idle } else { Self::Writing(is_twin, writes) }
            }
            other => other,
        }
    }
}

/// Whether it has nothing to do but to begin its version's run.
fn is_plain(task_run: &TaskRun) -> bool {
    task_run.present_run().is_none() && !task_run.deleting && !task_run.suspend && !task_run.cancel && !task_run.adopts
}

fn is_there_still(world: &World, task_run: &TaskRun, owner: u8) -> bool {
    let now = world.task_run(task_run.is_twin).map(|now| now.uid);
    owner == task_run.uid || now == Some(task_run.uid)
}

fn held<T>(value: T) -> Held<T> {
    Held { value, fresh: true }
}

/// Jobs of other versions: all live where a run may begin or for a deletion, else live where they may have
/// pods and from the cache.
fn other_jobs(world: &World, task_run: &TaskRun, lags: bool) -> impl Iterator<Item = Job> {
    let is_live = task_run.present_run().is_none() || task_run.deleting;
    let goes_on = |version: u8| {
        let is_it = |run: &Run| run.outcome.is_none() && run.job.is_some_and(|job| job.version == version);
        task_run.runs.iter().any(is_it)
    };
    let is_cached = move |version: u8| !lags && (version < task_run.version || task_run.run(version).is_some());
    let is_ours = |job: &Job| job.owner == task_run.uid;
    let others = world.jobs.iter().filter(|job| job.uid.version != task_run.present_job());
    let is_read = move |job: &Job| {
        let version = job.uid.version;
        is_live || goes_on(version) || (is_ours(job) && is_cached(version))
    };
    others.filter(move |job| is_read(job)).copied()
}

/// Pods: live where they decide, else from the cache.
fn pods(world: &World, task_run: &TaskRun, job: Option<&Held<Job>>, others: &[Held<Job>], lags: bool) -> Vec<Pod> {
    let records = task_run.present_run().is_none() && job.is_some();
    let goes_on = |job: &Job| task_run.runs.iter().any(|run| run.outcome.is_none() && run.job == Some(job.uid));
    let ends = job.into_iter().chain(others).any(|job| job.value.end.is_some() && goes_on(&job.value));
    // Helm's are found by their Job's uid where that is known, else once they are labelled
    let adopted = task_run.has_adopted(records);
    let is_found = |pod: &&Pod| pod.owner != HELM || adopted;
    let is_live = !lags || records || ends || adopted || task_run.deleting;
    if is_live { world.pods.iter().filter(is_found).copied().collect() } else { vec![] }
}

fn decide(
    planner: &Planner,
    task_run: &Held<TaskRun>,
    job: Option<Held<Job>>,
    config_map: Option<u8>,
    others: &[Held<Job>],
    pods: Vec<Pod>,
) -> Operator {
    let jobs = others.iter().chain(&job);
    let stale: Vec<_> = jobs.filter(|job| !job.fresh).map(|job| job.value.uid).collect();
    let writes = planner.plan(Read {
        task_run: task_run.value.clone(),
        job: job.map(|job| job.value),
        others: others.iter().map(|job| job.value).collect(),
        pods,
        config_map,
    });
    let hold = |write: &Write| Held {
        fresh: match write {
            Write::Finalizer(_) | Write::Status { locked: true, .. } => task_run.fresh,
            Write::DeleteJob { uid, locked: true } | Write::PatchJob { uid, locked: true, .. } => !stale.contains(uid),
            _ => true,
        },
        value: write.clone(),
    };
    Operator::Writing(task_run.value.is_twin, writes.iter().map(hold).collect()).trimmed()
}
