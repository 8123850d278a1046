//! The laws of the run protocol, whatever happens in whatever order.

use super::operator::{Operator, settle};
use super::world::{Cascade, HELM_JOB, World};
use super::*;
use crate::crd::TASK_LABEL;
use proptest::prelude::*;
use proptest::sample::Index;

/// Something that happens. An index picks one of the Jobs, pods or of the two operators.
#[derive(Clone, Debug)]
enum Event {
    Act(bool),
    Reconcile(bool),
    Watch(bool),
    Crash(bool),
    SyncJob(Index),
    StartPod(Index),
    EndPod(Index, bool),
    CollectGarbage,
    NewVersion,
    Cancel(bool),
    Suspend(bool),
    AfterCompletion(bool),
    HistoryLimit(u32),
    DeleteTaskRun,
    CreateTaskRun,
    Unsuspend(Index),
    SuspendJob(Index),
    DeleteJob(Index, Cascade),
    ExpireJobs,
    Agent(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let job = any::<Index>;
    let cascade = prop::sample::select(vec![Cascade::Foreground, Cascade::Background, Cascade::Orphan]);
    let seldom = || prop::bool::weighted(0.2);
    prop_oneof![
        60 => any::<bool>().prop_map(Event::Act),
        40 => any::<bool>().prop_map(Event::Reconcile),
        10 => any::<bool>().prop_map(Event::Watch),
        2 => any::<bool>().prop_map(Event::Crash),
        30 => job().prop_map(Event::SyncJob),
        25 => job().prop_map(Event::StartPod),
        6 => (job(), any::<bool>()).prop_map(|(pod, well)| Event::EndPod(pod, well)),
        4 => Just(Event::CollectGarbage),
        6 => Just(Event::NewVersion),
        3 => seldom().prop_map(Event::Cancel),
        3 => seldom().prop_map(Event::Suspend),
        2 => any::<bool>().prop_map(Event::AfterCompletion),
        1 => (0..3u32).prop_map(Event::HistoryLimit),
        1 => Just(Event::DeleteTaskRun),
        2 => Just(Event::CreateTaskRun),
        4 => job().prop_map(Event::Unsuspend),
        2 => job().prop_map(Event::SuspendJob),
        3 => (job(), cascade).prop_map(|(job, cascade)| Event::DeleteJob(job, cascade)),
        1 => Just(Event::ExpireJobs),
        2 => seldom().prop_map(|gone| Event::Agent(!gone)),
    ]
}

fn pick<T>(objects: &std::collections::BTreeMap<String, T>, index: Index) -> String {
    let names: Vec<&String> = objects.keys().collect();
    if names.is_empty() { String::new() } else { names[index.index(names.len())].clone() }
}

fn happen(world: &mut World, operators: &mut [Operator; 2], event: &Event) {
    match *event {
        Event::Act(which) => operators[usize::from(which)].act(world),
        Event::Reconcile(which) => operators[usize::from(which)].reconcile(world),
        Event::Watch(which) => operators[usize::from(which)].watch(world),
        Event::Crash(which) => operators[usize::from(which)].crash(world),
        Event::SyncJob(job) => world.sync_job(&pick(&world.jobs, job)),
        Event::StartPod(pod) => world.start_pod(&pick(&world.pods, pod)),
        Event::EndPod(pod, well) => world.end_pod(&pick(&world.pods, pod), well),
        Event::CollectGarbage => world.collect_garbage(),
        Event::NewVersion => world.new_version(),
        Event::Cancel(on) => world.edit(|task_run| task_run.spec.cancel = Some(on)),
        Event::Suspend(on) => world.edit(|task_run| task_run.spec.suspend = Some(on)),
        Event::AfterCompletion(on) => world.edit(|task_run| {
            task_run.spec.context_update_policy = on.then_some(ContextUpdatePolicy::AfterCompletion);
        }),
        Event::HistoryLimit(limit) => world.edit(|task_run| task_run.spec.history_limit = Some(limit)),
        Event::DeleteTaskRun => world.delete_task_run(),
        // it knows of Helm's pods only what is labelled (`docs/adr/0008`): one that nobody saw before its Job went is not
        Event::CreateTaskRun if helm_may_run(world) => {}
        Event::CreateTaskRun => world.create_task_run(),
        Event::Unsuspend(job) => set_suspend(world, job, false),
        Event::SuspendJob(job) => set_suspend(world, job, true),
        Event::DeleteJob(job, cascade) => world.delete_job(&pick(&world.jobs, job), cascade),
        Event::ExpireJobs => world.expire_jobs(),
        Event::Agent(there) => world.agent = there.then(agent),
    }
}

fn helm_may_run(world: &World) -> bool {
    world.jobs.contains_key(HELM_JOB) || world.pods.values().any(|pod| !pod.labels().contains_key(TASK_LABEL))
}

fn set_suspend(world: &mut World, job: Index, on: bool) {
    let name = pick(&world.jobs, job);
    world.touch_job(&name, |job| job.spec.get_or_insert_default().suspend = Some(on));
}

/// With nobody interfering any more it comes to rest, and the present version's run is over.
fn comes_to_rest(mut world: World) {
    world.agent = Some(agent());
    // which is nobody's where its TaskRun was deleted
    world.touch_job(HELM_JOB, |job| job.spec.get_or_insert_default().suspend = Some(false));
    let mut operator = Operator::default();
    settle(&mut operator, &mut world);
    let Some(task_run) = world.task_run.clone() else {
        assert!(world.jobs.keys().all(|job| job == HELM_JOB), "Jobs outlived their TaskRun");
        return;
    };
    let phase = task_run.status.as_ref().and_then(|status| status.phase);
    assert_ne!(operator.next, Some(Next::After(RECHECK)), "still waiting: {:?}", task_run.status);
    if task_run.spec.suspend != Some(true) {
        assert!(matches!(phase, Some(Phase::Succeeded | Phase::Failed)), "{:?}", task_run.status);
    }
    if task_run.spec.suspend != Some(true) {
        let runs = &task_run.status.as_ref().unwrap().runs;
        assert!(runs.iter().all(|run| run.outcome.is_some()) && task_run.surplus_runs().is_empty(), "{runs:?}");
    }
    let writes = world.writes;
    operator.reconcile(&mut world);
    assert_eq!(world.writes, writes, "a settled TaskRun was written");
}

/// Many, and more where `PROPTEST_CASES` says so: the interleavings that break a law are rare.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(400), max_shrink_iters: 100_000, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_laws_hold_whatever_happens(has_adopted: bool, events in prop::collection::vec(event(), 0..250)) {
        let mut world = if has_adopted { World::with_helm_job() } else { World::new() };
        world.job_controller_lags = true;
        let mut operators = [Operator::default(), Operator::default()];
        for event in events {
            happen(&mut world, &mut operators, &event);
        }
        comes_to_rest(world);
    }
}
