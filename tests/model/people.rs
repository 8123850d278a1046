//! What people do, and the controllers of others: whatever they like, but only so often.

use super::mutation::Mutation;
use super::objects::{admit_creation, admit_update};
use super::system::{Action, State, System};
use super::world::{Cascade, JobUid, Link, TaskRun, World};

/// How often people may act: whenever they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// On the context and on the switches of the TaskRun.
    pub uses: u8,
    /// On the TaskRun as an object.
    pub lives: u8,
    /// On what the operator has made.
    pub meddles: u8,
}

/// What people do with a TaskRun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    Edit,
    RunAgain,
    Suspend(bool),
    Cancel(bool),
}

/// What becomes of a TaskRun as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Delete,
    /// Its finalizer is taken off by hand.
    TakeFinalizer,
    /// Ten minutes of its deletion are over.
    IsOverdue,
    CreateAnew,
    /// From a copy of the one that is gone.
    Restore,
}

/// What people, and the controllers of others, do behind the operator's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meddling {
    DeleteJob(JobUid, Cascade),
    Unsuspend(JobUid),
    Suspend(JobUid),
    /// A finished Job's time to live is over.
    Expire(JobUid),
    DeletePod(JobUid, u8),
    DeleteConfigMap(u8),
}

impl System {
    pub fn use_task_run(&self, world: &mut World, what: Use) {
        let Some(task_run) = world.task_run_mut(false) else { return };
        let before = task_run.version;
        let admitted = match what {
            Use::Edit => self.admit(task_run, true, before),
            Use::RunAgain => self.admit(task_run, false, before + 1),
            Use::Suspend(on) => {
                task_run.suspend = on;
                task_run.is_copy &= on;
                None
            }
            Use::Cancel(on) => {
                task_run.cancel = on;
                None
            }
        };
        task_run.version = admitted.unwrap_or(before);
    }

    /// The version that the production admission gives; it depends on nothing else.
    fn admit(&self, before: &TaskRun, edited: bool, written: u8) -> Option<u8> {
        let mut admitted = self.admitted.lock().unwrap();
        *admitted.entry((before.version, edited, written)).or_insert_with(|| admit_update(before, edited, written))
    }

    pub fn live(&self, world: &mut World, what: Life) {
        let task_run = world.task_run_mut(false);
        match (what, task_run) {
            (Life::Delete, Some(task_run)) => task_run.deleting = true,
            (Life::TakeFinalizer, Some(task_run)) => task_run.has_finalizer = false,
            (Life::IsOverdue, Some(task_run)) => task_run.is_overdue = true,
            (Life::CreateAnew, None) => self.create(world, 1, false, true, false),
            (Life::Restore, None) => self.create(world, world.backup.unwrap_or(1), true, false, self.adopts),
            _ => {}
        }
        world.let_go();
    }

    /// A TaskRun as admission lets it in.
    pub fn create(&self, world: &mut World, version: u8, is_copy: bool, has_finalizer: bool, adopts: bool) {
        let mut task_run = TaskRun {
            is_twin: false,
            uid: world.uids,
            first: version,
            version,
            suspend: false,
            cancel: false,
            adopts,
            is_copy,
            has_finalizer,
            deleting: false,
            is_overdue: false,
            runs: vec![],
        };
        let (author, writer) = if is_copy { (Some("someone"), "restorer") } else { (None, "someone") };
        if self.planner.mutation != Some(Mutation::CopiesRun) {
            task_run.suspend = admit_creation(&task_run, author, writer).expect("it is admitted");
        }
        world.uids += 1;
        world.task_runs.insert(0, task_run);
    }
}

pub fn meddle(world: &mut World, what: Meddling) {
    match what {
        Meddling::DeleteJob(uid, cascade) => world.delete_job(uid, cascade, Link::Orphaned),
        Meddling::Unsuspend(uid) | Meddling::Suspend(uid) => {
            if let Some(job) = world.job_mut(uid) {
                job.suspended = !job.suspended;
            }
        }
        Meddling::Expire(uid) => world.delete_job(uid, Cascade::Background, Link::Owned),
        Meddling::DeletePod(job, n) => world.delete_pod((job, n)),
        Meddling::DeleteConfigMap(version) => world.config_maps.retain(|(of, _)| *of != version),
    }
}

/// All that people may do now.
pub fn people(state: &State, actions: &mut Vec<Action>) {
    let (world, left) = (&state.world, state.left);
    let task_run = world.task_run(false);
    if let Some(task_run) = task_run.filter(|task_run| left.uses > 0 && !task_run.deleting) {
        let uses = [Use::Edit, Use::RunAgain, Use::Suspend(!task_run.suspend), Use::Cancel(!task_run.cancel)];
        actions.extend(uses.map(Action::Use));
    }
    if left.lives > 0 {
        let lives: &[Life] = match task_run {
            None if world.has_unknown_pods() => &[Life::Restore],
            None => &[Life::CreateAnew, Life::Restore],
            Some(task_run) if !task_run.deleting => &[Life::Delete, Life::TakeFinalizer],
            Some(task_run) if !task_run.is_overdue => &[Life::TakeFinalizer, Life::IsOverdue],
            Some(_) => &[],
        };
        actions.extend(lives.iter().map(|what| Action::Live(*what)));
    }
    if left.meddles > 0 {
        let mut meddle = |what| actions.push(Action::Meddle(what));
        for job in &world.jobs {
            let uid = job.uid;
            for cascade in [Cascade::Foreground, Cascade::Background, Cascade::Orphan] {
                meddle(Meddling::DeleteJob(uid, cascade));
            }
            match job.end {
                Some(_) => meddle(Meddling::Expire(uid)),
                None if job.suspended => meddle(Meddling::Unsuspend(uid)),
                None => meddle(Meddling::Suspend(uid)),
            }
        }
        world.pods.iter().for_each(|pod| meddle(Meddling::DeletePod(pod.job, pod.n)));
        world.config_maps.iter().for_each(|(version, _)| meddle(Meddling::DeleteConfigMap(*version)));
    }
}
