//! Lives of a task, step by step, and cut off after each step.

use super::operator::{Operator, only_pod, reconcile, record, running, settle, status};
use super::world::{Cascade, World, finish};
use super::*;
use crate::crd::RunStatus;

fn outcomes(world: &World) -> Vec<(u32, Option<Outcome>)> {
    status(world).runs.iter().map(|run| (run.context_version, run.outcome)).collect()
}

#[test]
fn a_first_run_takes_six_writes_and_then_none() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    let mut expect = |world: &mut World, steps: &[&str], next| {
        assert_eq!(reconcile(&mut operator, world), (steps.iter().map(|&s| s.to_owned()).collect(), next));
    };
    // the Job controller's first write wakes us
    expect(&mut world, &["create configmap auth-7-v1", "create job auth-7-v1"], Next::After(RECHECK));
    let goes_on = Next::After(LOOK_AGAIN);
    expect(&mut world, &["status", "event Starting", "patch job auth-7-v1 suspend=false"], goes_on);
    let starts = Next::After(STARTS_WITHIN.unsigned_abs());
    expect(&mut world, &[], starts);
    world.sync_job("auth-7-v1");
    expect(&mut world, &[], starts);
    world.start_pod(&only_pod(&world));
    expect(&mut world, &["status", "event Running"], goes_on);
    world.end_pod(&only_pod(&world), true);
    expect(&mut world, &[], goes_on);
    world.sync_job("auth-7-v1");
    expect(&mut world, &["status", "event Succeeded"], goes_on);
    assert_eq!(world.writes, 6);
    expect(&mut world, &[], Next::Wait);
    world.expire_jobs();
    world.collect_garbage();
    expect(&mut world, &[], Next::Wait);

    let status = status(&world);
    assert_eq!((status.phase, status.attempts, status.context_version), (Some(Phase::Succeeded), Some(1), Some(1)));
    assert_eq!((status.runs.len(), status.runs[0].outcome), (1, Some(Outcome::Succeeded)));
}

#[test]
fn a_new_version_waits_until_no_pod_of_the_old_one_lives() {
    let (mut operator, mut world) = running();
    let old_pod = only_pod(&world);
    let uid = world.jobs["auth-7-v1"].metadata.uid.clone().unwrap();
    world.new_version();
    // in this order the Job controller learns of both: it makes no more pods of the one once it knows the other
    let steps = ["delete job auth-7-v1", "create configmap auth-7-v2", "create job auth-7-v2"];
    assert_eq!(reconcile(&mut operator, &mut world).0, steps);
    assert_eq!(
        operator.plans.last().unwrap()[0],
        Step::DeleteJob { name: "auth-7-v1".into(), uid, resource_version: None }
    );
    operator.reconcile(&mut world);
    assert_eq!(status(&world).conditions[3].reason, reason::WAITING_FOR_PREVIOUS_RUN);
    for _ in 0..3 {
        world.sync_job("auth-7-v1");
        world.sync_job("auth-7-v2");
        let (steps, next) = reconcile(&mut operator, &mut world);
        assert!(steps.is_empty() && matches!(next, Next::After(_)), "{steps:?}");
        assert_eq!(world.pods.keys().collect::<Vec<_>>(), [&old_pod]);
    }
    assert_eq!(status(&world).run(2), None);
    world.end_pod(&old_pod, true);
    world.sync_job("auth-7-v1");
    let steps = ["status", "event Superseded", "event Starting", "patch job auth-7-v2 suspend=false"];
    assert_eq!(reconcile(&mut operator, &mut world).0, steps);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Superseded)), (2, Some(Outcome::Succeeded))]);
}

#[test]
fn nothing_is_created_while_a_job_of_another_task_run_may_make_a_pod() {
    let (mut operator, mut world) = running();
    world.edit(|task_run| task_run.metadata.finalizers = None);
    world.delete_task_run();
    world.create_task_run();
    world.new_version();
    let (steps, next) = reconcile(&mut operator, &mut world);
    assert_eq!((steps, next), (vec!["status".into(), "event WaitingForPreviousRun".into()], Next::After(RECHECK)));
    settle(&mut operator, &mut world);
    assert_eq!(status(&world).phase, Some(Phase::Succeeded));
}

#[test]
fn a_run_that_had_ended_well_is_not_called_superseded() {
    let (mut operator, mut world) = running();
    world.end_pod(&only_pod(&world), true);
    world.sync_job("auth-7-v1");
    world.new_version();
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded)), (2, Some(Outcome::Succeeded))]);
}

#[test]
fn versions_passed_over_are_listed_without_a_job() {
    let (mut operator, mut world) = running();
    (0..3).for_each(|_| world.new_version());
    (0..2).for_each(|_| operator.reconcile(&mut world));
    world.sync_job("auth-7-v1");
    settle(&mut operator, &mut world);
    let runs = status(&world).runs;
    let listed: Vec<_> =
        runs.iter().map(|run| (run.context_version, run.outcome.unwrap(), run.job_name.is_some())).collect();
    let superseded = |version, has_job| (version, Outcome::Superseded, has_job);
    assert_eq!(
        listed,
        [superseded(1, true), superseded(2, false), superseded(3, false), (4, Outcome::Succeeded, true)]
    );
    assert_eq!(world.started.len(), 2);
}

#[test]
fn versions_passed_over_before_the_first_run_are_listed_too_but_not_those_of_an_original() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    (0..2).for_each(|_| world.new_version());
    settle(&mut operator, &mut world);
    let superseded = Some(Outcome::Superseded);
    assert_eq!(outcomes(&world), [(1, superseded), (2, superseded), (3, Some(Outcome::Succeeded))]);

    let (mut operator, mut world) = (Operator::default(), World::new());
    world.edit(|task_run| {
        task_run.spec.context_version = 7;
        task_run.metadata.generation = Some(1);
    });
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(7, Some(Outcome::Succeeded))]);
}

#[test]
fn an_operator_that_slept_through_a_recreation_touches_nothing_of_the_successor() {
    let (mut late, mut world) = (Operator::default(), World::new());
    late.act(&mut world);
    world.delete_task_run();
    let mut operator = Operator::default();
    settle(&mut operator, &mut world);
    world.create_task_run();
    (0..4).for_each(|_| operator.reconcile(&mut world));
    world.sync_job("auth-7-v1");
    let writes = world.writes;
    while !late.is_idle() {
        late.act(&mut world);
    }
    assert_eq!((world.writes, late.plans.concat()), (writes, vec![]));
}

/// Plays a life with each operator cut off after so many steps: the step was carried out, but its
/// answer was lost.
fn play(life: fn(&mut World, usize), cut_after: Option<usize>) -> World {
    let mut world = World::new();
    let mut operator = Operator::default();
    let mut steps = 0;
    for round in 0..40 {
        life(&mut world, round);
        // calls until this plan is carried out, or cut off; then the next one starts from nothing
        operator.crash(&world);
        operator.act(&mut world);
        while !operator.is_idle() {
            let before = world.writes;
            operator.act(&mut world);
            steps += world.writes - before;
            if world.writes > before && Some(steps) == cut_after {
                operator.crash(&world);
            }
        }
        world.tick();
    }
    world
}

/// What must not depend on where it was cut: the phase, the runs, the pods started and the Jobs left.
fn end(world: &World) -> (Option<Phase>, String, usize, Vec<&String>) {
    let status = status(world);
    let run = |run: &RunStatus| format!("v{} {:?} in {:?}; ", run.context_version, run.outcome, run.attempts);
    let started = world.started.values().map(|(_, pods)| pods).sum();
    (status.phase, status.runs.iter().map(run).collect(), started, world.jobs.keys().collect())
}

#[test]
fn a_crash_after_any_step_changes_nothing() {
    type Life = fn(&mut World, usize);
    let without_finalizer: Life = |world, round| {
        if round == 0 {
            world.edit(|task_run| task_run.metadata.finalizers = None);
        }
    };
    // a plan made anew repeats no write; where a version comes in between, its moment differs
    let lives: [(bool, Life); 4] = [
        (true, |_, _| {}),
        (true, without_finalizer),
        (false, |world, round| {
            if round == 8 {
                world.new_version();
            }
        }),
        (false, |world, round| {
            if round == 1 {
                world.new_version();
            }
        }),
    ];
    for (i, (same_writes, life)) in lives.into_iter().enumerate() {
        let clean = play(life, None);
        assert!(matches!(end(&clean).0, Some(Phase::Succeeded)), "life {i}: {:?}", end(&clean));
        for cut in 1..=clean.writes {
            let cut_off = play(life, Some(cut));
            assert_eq!(end(&cut_off), end(&clean), "life {i} cut after step {cut}");
            assert!(!same_writes || cut_off.writes == clean.writes, "life {i} cut after step {cut}");
        }
    }
}

#[test]
fn a_job_that_is_gone_is_never_started_again() {
    for cascade in [Cascade::Foreground, Cascade::Background, Cascade::Orphan] {
        let (mut operator, mut world) = running();
        world.delete_job("auth-7-v1", cascade);
        settle(&mut operator, &mut world);
        assert_eq!(outcomes(&world), [(1, Some(Outcome::Unknown))], "{cascade:?}");
        assert_eq!((world.jobs.len(), world.started.len()), (0, 1), "{cascade:?}");
        assert_eq!(status(&world).conditions[1].reason, reason::JOB_GONE);
    }
}

#[test]
fn an_orphaned_pod_holds_the_next_run_back() {
    let (mut operator, mut world) = running();
    let orphan = only_pod(&world);
    world.delete_job("auth-7-v1", Cascade::Orphan);
    world.new_version();
    (0..5).for_each(|_| operator.reconcile(&mut world));
    let message = status(&world).message.unwrap();
    assert!(message.contains(&orphan), "{message}");
    assert_eq!(status(&world).run(2), None);
    world.end_pod(&orphan, true);
    settle(&mut operator, &mut world);
    assert_eq!(status(&world).phase, Some(Phase::Succeeded));
}

/// A world in which version 1 is recorded and its Job was unsuspended by somebody else: its pod stands
/// behind the gate.
fn gated() -> (Operator, World) {
    let (mut operator, mut world) = (Operator::default(), World::new());
    operator.reconcile(&mut world);
    world.touch_job("auth-7-v1", |job| job.spec.as_mut().unwrap().suspend = Some(false));
    world.sync_job("auth-7-v1");
    world.start_pod(&only_pod(&world));
    assert_eq!(world.started.len(), 0);
    record(&mut operator, &mut world);
    (operator, world)
}

#[test]
fn a_pod_that_somebody_else_let_be_made_starts_with_its_release() {
    let (mut operator, mut world) = gated();
    assert_eq!(reconcile(&mut operator, &mut world), (vec!["release pod".to_owned()], Next::After(LOOK_AGAIN)));
    settle(&mut operator, &mut world);
    assert_eq!((status(&world).phase, status(&world).attempts), (Some(Phase::Succeeded), Some(1)));
}

#[test]
fn a_gated_pod_older_than_its_jobs_release_is_released_too() {
    let (mut operator, mut world) = gated();
    world.touch_job("auth-7-v1", |job| job.spec.as_mut().unwrap().suspend = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["patch job auth-7-v1 suspend=false"]);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["release pod"]);
}

#[test]
fn a_late_release_of_an_orphan_starts_nothing_beside_the_next_run() {
    let (_, mut world) = gated();
    let mut late = Operator::default();
    late.watch(&world);
    (0..4).for_each(|_| late.act(&mut world));
    // the plan to release the pod is made; before it is carried out the Job goes and a version comes
    world.delete_job("auth-7-v1", Cascade::Orphan);
    world.new_version();
    let mut other = Operator::default();
    for _ in 0..6 {
        other.reconcile(&mut world);
        world.sync_job("auth-7-v2");
    }
    assert!(world.pods.keys().all(|name| !name.starts_with("auth-7-v1")), "nobody else would ever end it");
    late.act(&mut world);
    assert!(late.plans.last().unwrap().is_empty(), "there is nothing to release any more");
    settle(&mut other, &mut world);
    assert_eq!(status(&world).phase, Some(Phase::Succeeded));
}

#[test]
fn a_job_that_its_controller_has_not_seen_is_not_recorded() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    world.job_controller_lags = true;
    operator.reconcile(&mut world);
    assert_eq!(reconcile(&mut operator, &mut world), (vec![], Next::After(RECHECK)));
    world.sync_job("auth-7-v1");
    let steps = ["status", "event Starting", "patch job auth-7-v1 suspend=false"];
    assert_eq!(reconcile(&mut operator, &mut world).0, steps);
}

#[test]
fn a_cancel_that_was_lifted_before_the_end_is_still_a_cancel() {
    let (mut operator, mut world) = running();
    world.edit(|task_run| task_run.spec.cancel = Some(true));
    operator.reconcile(&mut world);
    world.sync_job("auth-7-v1");
    world.edit(|task_run| task_run.spec.cancel = None);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Cancelled))]);
}

#[test]
fn cancel_ends_the_job_and_keeps_it() {
    let (mut operator, mut world) = running();
    world.edit(|task_run| task_run.spec.cancel = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["patch job auth-7-v1 suspend=null"]);
    assert_eq!(status(&world).phase, Some(Phase::Running));
    world.sync_job("auth-7-v1");
    settle(&mut operator, &mut world);
    assert_eq!(
        (status(&world).phase, status(&world).conditions[1].reason.as_str()),
        (Some(Phase::Failed), "Cancelled")
    );
    assert_eq!((outcomes(&world), world.jobs.len()), (vec![(1, Some(Outcome::Cancelled))], 1));
    world.edit(|task_run| task_run.spec.cancel = None);
    settle(&mut operator, &mut world);
    assert_eq!((outcomes(&world), world.started.len()), (vec![(1, Some(Outcome::Cancelled))], 1));
}

#[test]
fn a_version_cancelled_before_its_start_ends_the_older_run_first() {
    let (mut operator, mut world) = running();
    world.new_version();
    world.edit(|task_run| task_run.spec.cancel = Some(true));
    assert_eq!(
        reconcile(&mut operator, &mut world).0,
        ["delete job auth-7-v1", "status", "event WaitingForPreviousRun"]
    );
    assert_eq!(outcomes(&world), [(1, None)]);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Superseded)), (2, Some(Outcome::Cancelled))]);
    assert!(world.jobs.is_empty());
}

#[test]
fn suspend_ends_the_pod_and_the_run_goes_on_when_lifted() {
    let (mut operator, mut world) = running();
    world.edit(|task_run| task_run.spec.suspend = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["patch job auth-7-v1 suspend=true"]);
    world.sync_job("auth-7-v1");
    settle(&mut operator, &mut world);
    assert_eq!((status(&world).conditions[2].status.as_str(), world.pods.len()), ("True", 0));
    world.edit(|task_run| task_run.spec.suspend = Some(false));
    settle(&mut operator, &mut world);
    assert_eq!((status(&world).phase, status(&world).attempts), (Some(Phase::Succeeded), Some(2)));
}

#[test]
fn suspend_ends_an_older_run_as_well() {
    let (mut operator, mut world) = running();
    world.new_version();
    world.edit(|task_run| task_run.spec.suspend = Some(true));
    operator.reconcile(&mut world);
    assert!(world.jobs["auth-7-v1"].metadata.deletion_timestamp.is_some());
    settle(&mut operator, &mut world);
    assert_eq!((world.jobs.len(), world.pods.len()), (0, 0));
    assert_eq!(status(&world).conditions[2].reason, reason::SUSPENDED);
}

#[test]
fn a_stray_job_of_the_same_name_is_deleted() {
    let (mut operator, mut world) = running();
    let stray = world.jobs["auth-7-v1"].clone();
    world.delete_job("auth-7-v1", Cascade::Background);
    settle(&mut operator, &mut world);
    let mut stray = Job { status: None, ..stray };
    stray.metadata.uid = Some("late".into());
    finish(&mut stray, "Suspended", "JobSuspended");
    world.jobs.insert("auth-7-v1".into(), stray);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["delete job auth-7-v1"]);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Unknown))]);
}
