//! The end of a TaskRun: it goes when nothing of it runs any more.

use super::operator::{Operator, only_pod, reconcile, running, settle, words};
use super::world::{Cascade, World};
use super::*;

#[test]
fn a_deletion_waits_for_jobs_and_pods() {
    let (mut operator, mut world) = running();
    let pod = only_pod(&world);
    world.delete_task_run();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["delete job auth-7-v1"]);
    world.sync_job("auth-7-v1");
    let (steps, next) = reconcile(&mut operator, &mut world);
    assert!(steps.is_empty() && matches!(next, Next::After(_)), "{steps:?}");
    world.end_pod(&pod, true);
    world.sync_job("auth-7-v1");
    assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers"]);
    assert!(world.task_run.is_none());
}

#[test]
fn a_deletion_ends_an_orphaned_pod_as_well() {
    let (mut operator, mut world) = running();
    let orphan = only_pod(&world);
    world.delete_job("auth-7-v1", Cascade::Orphan);
    world.delete_task_run();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["delete pod"]);
    let (steps, next) = reconcile(&mut operator, &mut world);
    assert!(steps.is_empty() && matches!(next, Next::After(_)), "{steps:?}");
    world.end_pod(&orphan, true);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers"]);
}

#[test]
fn a_deletion_ends_an_orphaned_pod_behind_our_gate() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    operator.reconcile(&mut world);
    world.touch_job("auth-7-v1", |job| job.spec.as_mut().unwrap().suspend = Some(false));
    world.sync_job("auth-7-v1");
    world.delete_job("auth-7-v1", Cascade::Orphan);
    world.delete_task_run();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["delete pod"]);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers"]);
    assert!(world.pods.is_empty());
}

#[test]
fn a_deletion_ends_a_job_that_has_not_started() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    operator.reconcile(&mut world);
    world.delete_task_run();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["delete job auth-7-v1"]);
    assert!(reconcile(&mut operator, &mut world).0.is_empty());
    world.sync_job("auth-7-v1");
    assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers"]);
}

#[test]
fn a_deletion_that_takes_too_long_is_let_go_with_a_warning() {
    let (_, mut world) = running();
    world.delete_task_run();
    let mut observed = observed(&world);
    observed.now = observed.now + CLEANUP_DEADLINE - SignedDuration::from_secs(1);
    assert_eq!(words(&plan(&observed).steps), ["delete job auth-7-v1"]);
    observed.now += SignedDuration::from_secs(1);
    let steps = plan(&observed).steps;
    assert_eq!(words(&steps), ["finalizers", "event CleanupDeadline", "delete job auth-7-v1"]);
    let Step::Publish(notice) = &steps[1] else { panic!("{steps:?}") };
    assert!(notice.warning && notice.note.contains(&only_pod(&world)), "{notice:?}");
}

#[test]
fn other_finalizers_are_left_and_ours_is_added_before_anything_else() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    world.edit(|task_run| task_run.metadata.finalizers = Some(vec!["example.com/keep".into()]));
    assert_eq!(reconcile(&mut operator, &mut world), (vec!["finalizers".to_owned()], Next::Again));
    assert_eq!(world.task_run.as_ref().unwrap().finalizers(), ["example.com/keep", FINALIZER]);
    settle(&mut operator, &mut world);
    world.delete_task_run();
    settle(&mut operator, &mut world);
    assert_eq!(world.task_run.unwrap().finalizers(), ["example.com/keep"]);
}
