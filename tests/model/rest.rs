//! Left alone, everything comes to rest: asked of every state that can be reached, exactly. One
//! operator, the cluster and no person go on by a fixed schedule until nothing changes any more.
//!
//! Operators with something in hand are not asked: they may crash, and that state is asked.

use super::operator::Operator;
use super::system::{State, System};
use super::world::{HELM_JOB, Job, Link, Phase, Pod, TaskRun, World};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use taskrun_operator::crd::ContextUpdatePolicy;

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// As it should.
    Well,
    /// It does not.
    Never,
    /// A Job or pod is left that is nobody's run.
    Litter,
    /// A version has neither run nor been told to be over.
    Untold,
}

/// What is known of worlds that were asked before.
pub type Rests = Mutex<HashMap<u64, Rest>>;

/// Rounds in which everything has to come to rest.
const ROUNDS: usize = 60;

impl System {
    /// How this ends if nobody interferes any more.
    pub fn rest(&self, state: &State) -> Rest {
        if state.operators.iter().any(|operator| *operator != Operator::Idle) {
            return Rest::Well;
        }
        let (mut world, mut path) = (state.world.clone(), vec![]);
        let rest = loop {
            let key = fingerprint(&world);
            if let Some(known) = self.rests.lock().unwrap().get(&key) {
                break *known;
            }
            path.push(key);
            let before = world.clone();
            self.go_on(&mut world);
            if world == before {
                break judge(&world, self.waits());
            }
            if path.len() > ROUNDS {
                break Rest::Never;
            }
        };
        self.rests.lock().unwrap().extend(path.into_iter().map(|key| (key, rest)));
        rest
    }

    /// Everything has its turn once.
    fn go_on(&self, world: &mut World) {
        // whose it is resumes it
        world.job_mut(HELM_JOB).into_iter().for_each(|job| job.suspended = false);
        world.catch_up();
        for job in world.seen.clone() {
            world.sync_job(job.uid, self.retries);
        }
        for job in world.jobs.clone().iter().filter(|job| world.is_garbage(job)).collect::<Vec<_>>() {
            world.collect_job(job.uid);
        }
        for pod in world.pods.clone() {
            let ends = self.ends_by_itself(world, &pod);
            match pod.phase {
                _ if world.is_lost(&pod) => world.delete_pod(pod.id()),
                _ if pod.deleting => world.end_pod(pod.id(), Phase::Succeeded),
                Phase::Pending if !pod.gated => world.start_pod(pod.id()),
                Phase::Running if ends => world.end_pod(pod.id(), Phase::Succeeded),
                _ => {}
            }
        }
        world.collect_config_maps();
        for is_twin in [false, true] {
            let mut operator = Operator::Idle.act(world, &self.planner, is_twin, false);
            while operator != Operator::Idle {
                let before = world.clone();
                operator = operator.act(world, &self.planner, is_twin, false);
                operator.note_changes(&before, world);
            }
        }
    }

    /// Whether new context waits for a run's end.
    fn waits(&self) -> bool {
        self.planner.policy == Some(ContextUpdatePolicy::AfterCompletion)
    }

    /// An agent may go on for ever unless it is ended. Only that of the present version is patient
    /// enough to end; those that are waited for too; and one that nobody can end any more.
    fn ends_by_itself(&self, world: &World, pod: &Pod) -> bool {
        let goes_on =
            |of: &TaskRun| of.uid == pod.owner && !of.deleting && (self.waits() || of.version == pod.job.version);
        match pod.link {
            _ if pod.job.is_helms() => true,
            Link::Owned => world.task_runs.iter().any(goes_on),
            Link::Orphaned => true,
            Link::Abandoned => false,
        }
    }
}

fn judge(world: &World, waits: bool) -> Rest {
    let is_awaited = |of: &TaskRun, version: u8| waits && of.run(version).is_some_and(|run| run.outcome.is_none());
    let needs = |of: &TaskRun, version: u8| of.suspend && (of.version == version || is_awaited(of, version));
    let is_needed = |owner: u8, version: u8| world.task_runs.iter().any(|of| of.uid == owner && needs(of, version));
    let is_twin_run = world.task_run(true).is_some_and(|twin| twin.runs.is_empty());
    if world.task_runs.iter().any(|task_run| task_run.deleting) {
        return Rest::Never;
    }
    // a pod behind the gate that a person has orphaned costs an object, never a run, until its TaskRun goes
    let is_left = |pod: &Pod| {
        let is_orphan = pod.link == Link::Orphaned && world.has_owner(pod.owner);
        pod.gated && (is_orphan || is_needed(pod.owner, pod.job.version))
    };
    let is_told = |of: &TaskRun, version: u8| of.run(version).is_some_and(|run| run.outcome.is_some());
    // how a copy came to its version is not known
    let first_run = |of: &TaskRun| of.runs.first().map_or(of.version, |run| run.version);
    let first = |of: &TaskRun| if of.is_copy { first_run(of) } else { of.first };
    let all_told = |of: &TaskRun| of.suspend || (first(of)..=of.version).all(|version| is_told(of, version));
    let told = world.task_runs.iter().all(|of| all_told(of) || (of.is_twin && is_twin_run));
    if !told {
        return Rest::Untold;
    }
    let is_idle = |job: &Job| job.end.is_none() && !is_needed(job.owner, job.uid.version) && !job.uid.is_helms();
    let litter = world.jobs.iter().any(is_idle)
        || world.pods.iter().any(|pod| !pod.has_ended() && !is_left(pod))
        || (world.task_runs.is_empty()
            && !(world.jobs.iter().all(|job| job.uid.is_helms()) && world.config_maps.is_empty()));
    if litter { Rest::Litter } else { Rest::Well }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}
