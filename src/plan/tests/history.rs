//! What is kept of runs that are over, and for how long.

use super::operator::{Operator, reconcile, settle, status};
use super::world::World;
use super::*;

/// Runs so many versions to their end.
fn lived(limit: u32, versions: u32) -> (Operator, World) {
    let (mut operator, mut world) = (Operator::default(), World::new());
    world.edit(|task_run| task_run.spec.history_limit = Some(limit));
    settle(&mut operator, &mut world);
    for _ in 1..versions {
        world.new_version();
        settle(&mut operator, &mut world);
    }
    (operator, world)
}

fn versions(world: &World) -> (Vec<u32>, Vec<String>, Vec<String>) {
    let runs = status(world).runs.iter().map(|run| run.context_version).collect();
    (runs, world.config_maps.keys().cloned().collect(), world.jobs.keys().cloned().collect())
}

#[test]
fn runs_config_maps_and_jobs_beyond_the_limit_go_together() {
    let names = |versions: &[u32]| versions.iter().map(|version| format!("auth-7-v{version}")).collect::<Vec<_>>();
    for (limit, kept) in [(0, vec![4]), (2, vec![2, 3, 4]), (9, vec![1, 2, 3, 4])] {
        let (_, world) = lived(limit, 4);
        assert_eq!(versions(&world), (kept.clone(), names(&kept), names(&kept)), "limit {limit}");
    }
}

#[test]
fn the_longest_history_leaves_nothing_unlisted() {
    let (mut operator, mut world) = lived(100, 103);
    assert_eq!((versions(&world).0.len(), world.config_maps.len(), world.jobs.len()), (101, 101, 101));
    (0..5).for_each(|_| world.new_version());
    settle(&mut operator, &mut world);
    let (runs, config_maps, jobs) = versions(&world);
    // four of the versions were passed over
    assert_eq!((runs.len(), config_maps.len(), jobs.len()), (101, 97, 97));
}

#[test]
fn a_cut_that_was_cut_off_is_done_again() {
    let (mut operator, mut world) = lived(9, 3);
    world.edit(|task_run| task_run.spec.history_limit = Some(1));
    let steps = plan(&observed(&world)).steps;
    assert_eq!(operator::words(&steps), ["delete config map auth-7-v1", "delete job auth-7-v1", "status"]);
    world.apply(&steps[0]).unwrap();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["delete job auth-7-v1", "status"]);
    assert_eq!(versions(&world).0, [2, 3]);
}

#[test]
fn files_of_versions_that_were_never_listed_go_too() {
    let (mut operator, mut world) = lived(1, 2);
    world.new_version();
    operator.reconcile(&mut world);
    assert!(world.config_maps.contains_key("auth-7-v3"));
    (0..3).for_each(|_| world.new_version());
    settle(&mut operator, &mut world);
    assert_eq!(versions(&world).1, ["auth-7-v6"], "of the kept versions only 6 has run");
}

#[test]
fn config_maps_of_others_are_left() {
    let (mut operator, mut world) = lived(9, 3);
    world.config_maps.get_mut("auth-7-v1").unwrap().metadata.owner_references = None;
    world.edit(|task_run| task_run.spec.history_limit = Some(0));
    settle(&mut operator, &mut world);
    assert_eq!(versions(&world).1, ["auth-7-v1", "auth-7-v3"]);
}

#[test]
fn a_task_run_is_deleted_so_long_after_its_last_run() {
    let (_, mut world) = lived(9, 1);
    world.edit(|task_run| task_run.spec.ttl_seconds_after_finished = Some(7_200));
    let mut observed = observed(&world);
    // its generation has moved
    let Some(Step::PatchStatus(patch)) = plan(&observed).steps.into_iter().next() else { panic!() };
    let mut status = serde_json::to_value(&observed.task_run.status).unwrap();
    json_patch::merge(&mut status, &patch["status"]);
    observed.task_run.status = serde_json::from_value(status).unwrap();
    let run = observed.task_run.present_run().unwrap().clone();
    observed.now = run.completion_time.unwrap().0;
    assert_eq!(plan(&observed), Plan::of(vec![], Next::After(LOOK_AT_EXPIRY)), "a timer has its limits");
    observed.now += SignedDuration::from_secs(7_199);
    assert_eq!(plan(&observed), Plan::of(vec![], Next::After(Duration::from_secs(1))));
    observed.now += SignedDuration::from_secs(1);
    let (uid, resource_version) = (observed.task_run.uid().unwrap(), observed.task_run.resource_version());
    assert_eq!(plan(&observed).steps, [Step::DeleteTaskRun { uid, resource_version }]);
}

#[test]
fn new_context_keeps_a_task_run_whose_time_is_over() {
    let (_, mut world) = lived(9, 1);
    world.edit(|task_run| task_run.spec.ttl_seconds_after_finished = Some(0));
    let mut operator = Operator::default();
    operator.reconcile(&mut world);
    let mut observed = observed(&world);
    observed.now += SignedDuration::from_mins(1);
    let steps = plan(&observed).steps;
    world.new_version();
    assert!(world.apply(&steps[0]).is_err(), "{steps:?}");
    settle(&mut operator, &mut world);
    assert!(world.task_run.is_none() || status(&world).run(2).is_some());
}
