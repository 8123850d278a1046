//! The state of everything, all that may happen in it, and what must hold whatever happens.

use super::operator::{Operator, Planner};
use super::people::{Budget, Life, Meddling, Use, meddle, people};
use super::rest::{Rest, Rests};
use super::world::{JobUid, Law, Phase, TWIN, TaskRun, World};
use stateright::{Model, Property};
use std::collections::HashMap;
use std::sync::Mutex;

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub world: World,
    /// In order: they have no names.
    pub operators: Vec<Operator>,
    pub left: Budget,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An operator reads or writes once; with nothing in hand it looks at the TaskRun, or at its twin.
    Act {
        operator: usize,
        twin: bool,
    },
    /// The same, its cache being behind.
    ActOnOldCache {
        operator: usize,
    },
    /// An operator forgets all: it crashes, or has no answer to what it did.
    Crash {
        operator: usize,
    },
    JobControllerCatchesUp,
    SyncJob(JobUid),
    StartPod(JobUid, u8),
    EndPod(JobUid, u8, Phase),
    CollectJob(JobUid),
    CollectPod(JobUid, u8),
    CollectConfigMaps,
    Use(Use),
    Live(Life),
    Meddle(Meddling),
}

/// What is played.
#[derive(Default)]
pub struct System {
    pub budget: Budget,
    /// How many there are besides the first.
    pub more_operators: usize,
    /// Whether the Job controller may be behind.
    pub is_late: bool,
    /// Whether a pod may fail, and is then replaced once.
    pub retries: bool,
    /// Whether there is a second TaskRun of the same task.
    pub has_twin: bool,
    /// Whether the task was Helm's: its Job runs, and the TaskRun is to adopt it.
    pub adopts: bool,
    pub planner: Planner,
    /// The one property that is looked at, else all.
    pub only: Option<&'static str>,
    /// Which of their deeds people are limited to, else none is barred.
    pub people: Option<fn(Action) -> bool>,
    pub rests: Rests,
    pub admitted: Mutex<HashMap<(u8, bool, u8), Option<u8>>>,
}

pub const RUN_ONCE: &str = "a version is released as one Job and no other";
pub const ONE_AT_A_TIME: &str = "no pod starts beside another of the task";
pub const RECORDED_FIRST: &str = "only a recorded Job starts";
pub const OVER_IS_OVER: &str = "nothing starts of a run that is over";
pub const OUTCOMES_STAY: &str = "an outcome stays";
pub const OWN_JOBS: &str = "a TaskRun records its own Jobs only";
pub const ENDED_FIRST: &str = "a TaskRun goes after its run";
pub const OTHERS_STAY: &str = "Helm's Job is not deleted";
pub const COPIES_WAIT: &str = "a copy starts nothing before it is resumed";
pub const COMES_TO_REST: &str = "left alone it comes to rest";
pub const NOTHING_LEFT: &str = "at rest nothing is left that nobody needs";
pub const ALL_TOLD: &str = "at rest every version has run, or is told to be over";

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut world = World::default();
        self.create(&mut world, 1, false, true, self.adopts);
        if self.adopts {
            world.add_helm_job();
        }
        if self.has_twin {
            // created while the webhook was away
            let twin = TaskRun { is_twin: true, uid: TWIN, ..world.task_runs[0].clone() };
            world.task_runs.push(twin);
            world.uids = 2;
        }
        vec![State { world, operators: vec![Operator::Idle; 1 + self.more_operators], left: self.budget }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let world = &state.world;
        if self.only.is_none() && !world.broken.is_empty() {
            return; // what follows is of no interest
        }
        for (operator, of) in state.operators.iter().enumerate() {
            if state.operators[..operator].contains(of) {
                continue;
            }
            actions.push(Action::Act { operator, twin: false });
            match of {
                Operator::Idle if self.has_twin => actions.push(Action::Act { operator, twin: true }),
                Operator::Idle => {}
                _ => actions.push(Action::Crash { operator }),
            }
            if of.may_lag(world) {
                actions.push(Action::ActOnOldCache { operator });
            }
        }
        if self.is_late && world.seen != world.jobs {
            actions.push(Action::JobControllerCatchesUp);
        }
        actions.extend(world.seen.iter().map(|job| Action::SyncJob(job.uid)));
        for pod in &world.pods {
            let (job, n) = pod.id();
            if pod.phase == Phase::Pending && !pod.gated {
                actions.push(Action::StartPod(job, n));
            }
            if pod.phase == Phase::Running || pod.deleting {
                actions.push(Action::EndPod(job, n, Phase::Succeeded));
            }
            if pod.phase == Phase::Running && !pod.deleting && self.retries {
                actions.push(Action::EndPod(job, n, Phase::Failed));
            }
        }
        let garbage = world.jobs.iter().filter(|job| world.is_garbage(job));
        actions.extend(garbage.map(|job| Action::CollectJob(job.uid)));
        let lost = world.pods.iter().filter(|pod| world.is_lost(pod));
        actions.extend(lost.map(|pod| Action::CollectPod(pod.job, pod.n)));
        if world.has_lost_config_map() {
            actions.push(Action::CollectConfigMaps);
        }
        let others = actions.len();
        people(state, actions);
        if let Some(may) = self.people {
            let deeds = actions.split_off(others);
            actions.extend(deeds.into_iter().filter(|deed| may(*deed)));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.happen(&mut next, action);
        if !self.is_late {
            next.world.catch_up();
        }
        for operator in &mut next.operators {
            operator.note_changes(&state.world, &next.world);
        }
        next.operators.sort_unstable();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(RUN_ONCE, |_, state: &State| !state.world.broken.contains(&Law::RunOnce)),
            Property::always(ONE_AT_A_TIME, |_, state: &State| !state.world.broken.contains(&Law::OneAtATime)),
            Property::always(RECORDED_FIRST, |_, state: &State| !state.world.broken.contains(&Law::RecordedFirst)),
            Property::always(OVER_IS_OVER, |_, state: &State| !state.world.broken.contains(&Law::OverIsOver)),
            Property::always(OUTCOMES_STAY, |_, state: &State| !state.world.broken.contains(&Law::OutcomesStay)),
            Property::always(OWN_JOBS, |_, state: &State| !state.world.broken.contains(&Law::OwnJobs)),
            Property::always(ENDED_FIRST, |_, state: &State| !state.world.broken.contains(&Law::EndedFirst)),
            Property::always(OTHERS_STAY, |_, state: &State| !state.world.broken.contains(&Law::OthersStay)),
            Property::always(COPIES_WAIT, |_, state: &State| !state.world.broken.contains(&Law::CopiesWait)),
            Property::always(COMES_TO_REST, |system: &Self, state| system.rest(state) != Rest::Never),
            Property::always(NOTHING_LEFT, |system: &Self, state| system.rest(state) != Rest::Litter),
            Property::always(ALL_TOLD, |system: &Self, state| system.rest(state) != Rest::Untold),
        ];
        all.retain(|property| self.only.is_none_or(|only| only == property.name));
        all
    }
}

impl System {
    fn happen(&self, next: &mut State, action: Action) {
        let world = &mut next.world;
        match action {
            Action::Act { operator, twin } => {
                let of = std::mem::take(&mut next.operators[operator]);
                next.operators[operator] = of.act(world, &self.planner, twin, false);
            }
            Action::ActOnOldCache { operator } => {
                let of = std::mem::take(&mut next.operators[operator]);
                next.operators[operator] = of.act(world, &self.planner, false, true);
            }
            Action::Crash { operator } => next.operators[operator] = Operator::Idle,
            Action::JobControllerCatchesUp => world.catch_up(),
            Action::SyncJob(job) => world.sync_job(job, self.retries),
            Action::StartPod(job, n) => world.start_pod((job, n)),
            Action::EndPod(job, n, phase) => world.end_pod((job, n), phase),
            Action::CollectJob(job) => world.collect_job(job),
            Action::CollectPod(job, n) => world.delete_pod((job, n)),
            Action::CollectConfigMaps => world.collect_config_maps(),
            Action::Use(what) => {
                next.left.uses -= 1;
                self.use_task_run(world, what);
            }
            Action::Live(what) => {
                next.left.lives -= 1;
                self.live(world, what);
            }
            Action::Meddle(what) => {
                next.left.meddles -= 1;
                meddle(world, what);
            }
        }
    }
}
