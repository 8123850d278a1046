//! Runs that wait: for an older one (`AfterCompletion`), for a queue, for a person.

use super::super::liveness::{is_job_suspended, queue};
use super::operator::{Operator, only_pod, reconcile, record, running, settle, status};
use super::world::{Cascade, World};
use super::*;
use crate::crd::QUEUE_LABEL;

fn after_completion() -> (Operator, World) {
    let (operator, mut world) = running();
    world.edit(|task_run| task_run.spec.context_update_policy = Some(ContextUpdatePolicy::AfterCompletion));
    world.new_version();
    (operator, world)
}

fn outcomes(world: &World) -> Vec<(u32, Option<Outcome>)> {
    status(world).runs.iter().map(|run| (run.context_version, run.outcome)).collect()
}

#[test]
fn new_context_waits_for_the_runs_end_and_the_status_speaks_of_the_run() {
    let (mut operator, mut world) = after_completion();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status"]);
    let seen = status(&world);
    assert_eq!((seen.phase, seen.context_version), (Some(Phase::Running), Some(1)));
    assert_eq!(seen.message.unwrap(), "Job auth-7-v1 is running; version 2 waits for its end");
    assert!(reconcile(&mut operator, &mut world).0.is_empty());
    world.end_pod(&only_pod(&world), true);
    world.sync_job("auth-7-v1");
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded)), (2, Some(Outcome::Succeeded))]);
    assert_eq!(status(&world).context_version, Some(2));
}

#[test]
fn of_the_versions_that_wait_only_the_newest_runs() {
    let (mut operator, mut world) = after_completion();
    operator.reconcile(&mut world);
    world.new_version();
    settle(&mut operator, &mut world);
    let expected = [(1, Outcome::Succeeded), (2, Outcome::Superseded), (3, Outcome::Succeeded)];
    assert_eq!(outcomes(&world), expected.map(|(version, outcome)| (version, Some(outcome))));
}

#[test]
fn the_end_of_the_run_waited_for_is_told_even_if_the_next_cannot_start() {
    let (mut operator, mut world) = after_completion();
    world.agent = None;
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded))]);
    assert_eq!((status(&world).phase, status(&world).context_version), (Some(Phase::Pending), Some(2)));
}

#[test]
fn a_run_waited_for_can_be_cancelled_and_the_waiting_version_with_it() {
    let (mut operator, mut world) = after_completion();
    world.edit(|task_run| task_run.spec.cancel = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["patch job auth-7-v1 suspend=null"]);
    world.sync_job("auth-7-v1");
    world.end_pod(&only_pod(&world), true);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Cancelled)), (2, Some(Outcome::Cancelled))]);
}

#[test]
fn a_run_waited_for_whose_job_somebody_deletes_has_an_unknown_outcome() {
    let (mut operator, mut world) = after_completion();
    operator.reconcile(&mut world);
    world.delete_job("auth-7-v1", Cascade::Background);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Unknown)), (2, Some(Outcome::Succeeded))]);
}

/// A world whose version 1 waits for a queue, with the steps of its release.
fn queued() -> (Operator, World, Vec<Step>) {
    let (mut operator, mut world) = (Operator::default(), World::new());
    world.edit(|task_run| task_run.metadata.labels = Some([(QUEUE_LABEL.to_owned(), "gpu".to_owned())].into()));
    (0..2).for_each(|_| operator.reconcile(&mut world));
    let release = operator.plans.last().unwrap().iter().filter(|step| matches!(step, Step::PatchJob { .. }));
    let release = release.cloned().collect();
    world.sync_job("auth-7-v1");
    (operator, world, release)
}

fn workload(active: bool) -> DynamicObject {
    let json = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {"name": "job-auth", "uid": "w", "resourceVersion": "1"},
        "spec": {"active": active},
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn kueue_learns_of_a_run_at_its_release_and_starts_it() {
    let (mut operator, mut world, release) = queued();
    let [Step::PatchJob { patch, .. }] = release.as_slice() else { panic!("{release:?}") };
    assert_eq!(patch["metadata"]["labels"], json!({QUEUE_LABEL: "gpu"}));
    assert_eq!(patch["spec"], json!({"template": {"spec": {"schedulingGates": []}}}));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event Queued"]);
    assert!(reconcile(&mut operator, &mut world).0.is_empty() && world.pods.is_empty());
    world.touch_job("auth-7-v1", |job| job.spec.as_mut().unwrap().suspend = Some(false));
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded))]);
}

#[test]
fn a_queue_of_the_agents_is_taken_unless_the_task_names_its_own() {
    let mut agent = agent();
    let metadata = agent.spec.job_template.metadata.get_or_insert_default();
    metadata.labels = Some([(QUEUE_LABEL.to_owned(), "cpu".to_owned())].into());
    let mut task_run = task_run();
    let job = build_job(&task_run, &agent).unwrap();
    assert_eq!((queue(&job), is_queued(&job)), (Some("cpu"), false));
    task_run.metadata.labels = Some([(QUEUE_LABEL.to_owned(), "gpu".to_owned())].into());
    assert_eq!(queue(&build_job(&task_run, &agent).unwrap()), Some("gpu"));
}

#[test]
fn a_queued_run_is_suspended_and_resumed_through_its_workload() {
    let (mut operator, mut world, _) = queued();
    operator.reconcile(&mut world);
    world.workload = Some(workload(true));
    world.edit(|task_run| task_run.spec.suspend = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event Suspended"]);
    assert_eq!(reconcile(&mut operator, &mut world), (vec!["workload active=false".to_owned()], Next::Again));
    assert!(reconcile(&mut operator, &mut world).0.is_empty());
    world.edit(|task_run| task_run.spec.suspend = Some(false));
    assert_eq!(reconcile(&mut operator, &mut world), (vec!["workload active=true".to_owned()], Next::Again));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event Queued"]);
    assert!(reconcile(&mut operator, &mut world).0.is_empty());
}

/// Suspended while it waits or runs, and resumed after so many writes, with a Kueue that is late.
#[test]
fn a_queued_run_that_is_resumed_at_any_moment_goes_on() {
    let is_active = |world: &World| world.workload.as_ref().unwrap().data["spec"]["active"] == json!(true);
    for (runs, after, lag) in (0..30).map(|i| (i % 2 == 0, i / 2 % 5, i / 10 * 3)) {
        let (mut operator, mut world, _) = queued();
        operator.reconcile(&mut world);
        world.workload = Some(workload(true));
        if runs {
            world.touch_job("auth-7-v1", |job| job.spec.as_mut().unwrap().suspend = Some(false));
            world.sync_job("auth-7-v1");
        }
        world.edit(|task_run| task_run.spec.suspend = Some(true));
        let before = world.writes;
        for round in 0..20 {
            for step in plan(&observed(&world)).steps {
                let resumes = world.task_run.as_ref().unwrap().spec.suspend == Some(true);
                if resumes && (world.writes - before == after || round == 10) {
                    world.edit(|task_run| task_run.spec.suspend = Some(false));
                    break;
                }
                world.apply(&step).unwrap();
            }
            if round == 10 {
                world.edit(|task_run| task_run.spec.suspend = Some(false));
            }
            let suspended = !is_active(&world);
            if round >= lag && is_job_suspended(&world.jobs["auth-7-v1"]) != suspended {
                world.touch_job("auth-7-v1", |job| job.spec.as_mut().unwrap().suspend = Some(suspended));
            }
        }
        assert_eq!(plan(&observed(&world)).steps, []);
        assert!(is_active(&world), "runs {runs}, resumed after {after} writes, lag {lag}");
    }
}

#[test]
fn a_job_that_kueue_queued_by_itself_is_left_to_it() {
    let (mut operator, mut world) = (Operator::default(), World::new());
    operator.reconcile(&mut world);
    record(&mut operator, &mut world);
    let label = [(QUEUE_LABEL.to_owned(), "default".to_owned())];
    world.touch_job("auth-7-v1", |job| job.metadata.labels.get_or_insert_default().extend(label));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["patch job auth-7-v1 suspend=null"]);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event Queued"]);
}
