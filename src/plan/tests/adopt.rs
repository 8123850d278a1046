//! A Job of a Helm release that is a TaskRun's first version.

use super::operator::{Operator, only_pod, reconcile, settle, status};
use super::world::{Cascade, HELM_JOB, World, finish, phase_of};
use super::*;
use crate::crd::{ADOPTS, TASK_LABEL};

fn outcomes(world: &World) -> Vec<(u32, Option<Outcome>)> {
    status(world).runs.iter().map(|run| (run.context_version, run.outcome)).collect()
}

/// The Job is recorded and its pod found.
fn adopted() -> (Operator, World) {
    let (mut operator, mut world) = (Operator::default(), World::with_helm_job());
    assert_eq!(reconcile(&mut operator, &mut world).0, ["create configmap auth-7-v1", "status", "event Running"]);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["label pod"]);
    assert_eq!(reconcile(&mut operator, &mut world), (vec![], Next::After(LOOK_AGAIN)));
    (operator, world)
}

/// The Job controller deletes its pod, and that takes its time.
fn end_pod_of_job(world: &mut World) {
    world.sync_job(HELM_JOB);
    world.end_pod(&only_pod(world), true);
}

#[test]
fn it_is_recorded_watched_to_its_end_and_nothing_is_created() {
    let (mut operator, mut world) = adopted();
    let run = &status(&world).runs[0];
    assert_eq!((run.context_version, run.job_name.as_deref(), run.attempts), (1, Some(HELM_JOB), Some(1)));
    assert_eq!((status(&world).phase, world.jobs.len()), (Some(Phase::Running), 1));
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded))]);
    assert_eq!(world.jobs.keys().collect::<Vec<_>>(), [HELM_JOB]);
    world.expire_jobs();
    settle(&mut operator, &mut world);
    assert_eq!((outcomes(&world), world.jobs.len()), (vec![(1, Some(Outcome::Succeeded))], 0));
}

#[test]
fn new_context_waits_for_its_end_and_then_runs_as_ever() {
    let (mut operator, mut world) = adopted();
    world.new_version();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status"]);
    assert!(status(&world).message.unwrap().ends_with("is running; version 2 waits for its end"));
    assert_eq!(world.jobs.len(), 1);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded)), (2, Some(Outcome::Succeeded))]);
}

#[test]
fn context_that_came_before_it_was_recorded_waits_as_well() {
    let (mut operator, mut world) = (Operator::default(), World::with_helm_job());
    world.new_version();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event Running"]);
    assert_eq!((status(&world).context_version, status(&world).runs[0].context_version), (Some(1), 1));
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded)), (2, Some(Outcome::Succeeded))]);
}

#[test]
fn one_that_is_gone_is_over_and_how_it_ended_is_not_guessed() {
    for uid in ["", "/another"] {
        let (mut operator, mut world) = (Operator::default(), World::with_helm_job());
        world.edit(|task_run| {
            task_run.metadata.annotations.as_mut().unwrap().insert(ADOPTS.into(), format!("{HELM_JOB}{uid}"));
        });
        end_pod_of_job(&mut world);
        world.touch_job(HELM_JOB, |job| finish(job, "Complete", "CompletionsReached"));
        let steps = ["create configmap auth-7-v1", "status", "event JobGone"];
        assert_eq!(reconcile(&mut operator, &mut world).0, steps, "the Job of that name is another");
        settle(&mut operator, &mut world);
        assert_eq!(outcomes(&world), [(1, Some(Outcome::Unknown))]);
        world.new_version();
        settle(&mut operator, &mut world);
        assert_eq!(outcomes(&world), [(1, Some(Outcome::Unknown)), (2, Some(Outcome::Succeeded))]);
    }
}

#[test]
fn its_pods_are_waited_for_where_its_release_was_uninstalled() {
    let (mut operator, mut world) = adopted();
    let pod = only_pod(&world);
    world.new_version();
    world.delete_job(HELM_JOB, Cascade::Background);
    world.collect_garbage();
    for _ in 0..4 {
        operator.reconcile(&mut world);
        world.sync_job("auth-7-v2");
        assert_eq!(world.pods.keys().collect::<Vec<_>>(), [&pod]);
    }
    assert_eq!(status(&world).conditions[3].reason, reason::WAITING_FOR_PREVIOUS_RUN);
    world.end_pod(&pod, true);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Unknown)), (2, Some(Outcome::Succeeded))]);
}

#[test]
fn a_retry_of_it_is_found_counted_and_waited_for() {
    let (mut operator, mut world) = adopted();
    world.end_pod(&only_pod(&world), false);
    world.sync_job(HELM_JOB);
    let retry = world.pods.values().find(|pod| phase_of(pod) == "Pending").unwrap().name_any();
    world.start_pod(&retry);
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "label pod"]);
    assert_eq!(status(&world).attempts, Some(2));
}

#[test]
fn a_cancel_ends_it_and_keeps_it() {
    let (mut operator, mut world) = adopted();
    world.edit(|task_run| task_run.spec.cancel = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, [format!("patch job {HELM_JOB} suspend=null")]);
    end_pod_of_job(&mut world);
    settle(&mut operator, &mut world);
    assert_eq!((outcomes(&world), world.jobs.len()), (vec![(1, Some(Outcome::Cancelled))], 1));
}

#[test]
fn one_that_had_a_second_was_not_cancelled() {
    let (mut operator, mut world) = adopted();
    world.touch_job(HELM_JOB, |job| job.spec.as_mut().unwrap().active_deadline_seconds = Some(1));
    end_pod_of_job(&mut world);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Failed))]);
}

#[test]
fn it_is_not_ours_to_suspend_to_resume_or_to_delete() {
    let (mut operator, mut world) = adopted();
    world.edit(|task_run| task_run.spec.suspend = Some(true));
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status"]);
    assert_eq!(status(&world).phase, Some(Phase::Running));
    let suspend = |on| move |job: &mut Job| job.spec.as_mut().unwrap().suspend = Some(on);
    world.touch_job(HELM_JOB, suspend(true));
    end_pod_of_job(&mut world);
    for (suspend, cancel) in [(Some(true), None), (None, None), (None, Some(true))] {
        world.edit(|task_run| (task_run.spec.suspend, task_run.spec.cancel) = (suspend, cancel));
        let steps = reconcile(&mut operator, &mut world).0;
        assert!(steps.iter().all(|step| ["status", "event Suspended"].contains(&step.as_str())), "{steps:?}");
        assert!(status(&world).message.unwrap().contains("was adopted and is suspended"));
    }
    world.edit(|task_run| task_run.spec.cancel = None);
    world.touch_job(HELM_JOB, suspend(false));
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded))]);
}

#[test]
fn a_deletion_leaves_it_running_and_says_so() {
    let (mut operator, mut world) = adopted();
    world.delete_task_run();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers", "event JobStays"]);
    assert!(world.task_run.is_none() && world.jobs.contains_key(HELM_JOB));
    // made anew it waits, as for the run of any other TaskRun
    world.create_task_run();
    for _ in 0..3 {
        operator.reconcile(&mut world);
        assert_eq!(world.jobs.len(), 1);
    }
    assert_eq!(status(&world).conditions[3].reason, reason::WAITING_FOR_PREVIOUS_RUN);
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded))]);
}

#[test]
fn nobody_can_take_a_job_by_naming_it() {
    let spoil: [fn(&mut Job); 4] = [
        |job| job.metadata.labels = None,
        |job| drop(job.metadata.labels.as_mut().unwrap().remove(crate::crd::TASK_RUN_LABEL)),
        |job| job.metadata.labels.as_mut().unwrap().insert(TASK_LABEL.into(), "auth-8".into()).map_or((), drop),
        |job| {
            let owner = json!([{"apiVersion": "orchestrator.io/v1", "kind": "TaskRun", "name": "a", "uid": "b"}]);
            job.metadata.owner_references = serde_json::from_value(owner).unwrap();
        },
    ];
    for spoil in spoil {
        let (mut operator, mut world) = (Operator::default(), World::with_helm_job());
        world.touch_job(HELM_JOB, spoil);
        world.edit(|task_run| task_run.spec.cancel = Some(true));
        assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event NameConflict"]);
        assert!(status(&world).message.unwrap().contains(TASK_LABEL));
        assert_eq!(reconcile(&mut operator, &mut world), (vec![], Next::After(LOOK_AGAIN)));
    }
}

#[test]
fn one_of_that_name_that_helm_made_again_is_not_gone() {
    for uid in ["", "/another"] {
        let (mut operator, mut world) = (Operator::default(), World::with_helm_job());
        world.touch_job(HELM_JOB, |job| job.metadata.labels = None);
        world.edit(|task_run| {
            task_run.metadata.annotations.as_mut().unwrap().insert(ADOPTS.into(), format!("{HELM_JOB}{uid}"));
        });
        world.new_version();
        for _ in 0..5 {
            operator.reconcile(&mut world);
            assert_eq!((outcomes(&world), world.jobs.len()), (vec![], 1), "{uid:?}: a second agent beside it");
        }
        assert!(status(&world).message.unwrap().contains("is not the one that was to be adopted"));
    }
}

#[test]
fn one_that_helm_made_again_after_its_end_is_waited_for() {
    let (mut operator, mut world) = adopted();
    settle(&mut operator, &mut world);
    let mut again = world.jobs[HELM_JOB].clone();
    again.metadata.labels = None;
    again.metadata.uid = Some("job-again".into());
    again.status = None;
    world.jobs.insert(HELM_JOB.into(), again);
    world.sync_job(HELM_JOB);
    let pod = world.pods.values().find(|pod| phase_of(pod) == "Pending").unwrap().name_any();
    world.start_pod(&pod);
    world.new_version();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event WaitingForPreviousRun", "label pod"]);
    world.delete_job(HELM_JOB, Cascade::Background);
    for _ in 0..4 {
        operator.reconcile(&mut world);
        world.sync_job("auth-7-v2");
    }
    assert!(world.pods.values().all(|pod| phase_of(pod) != "Pending"), "its pod, which was seen, still ends");
    world.collect_garbage();
    settle(&mut operator, &mut world);
    assert_eq!(outcomes(&world), [(1, Some(Outcome::Succeeded)), (2, Some(Outcome::Succeeded))]);
}

#[test]
fn a_queued_one_that_runs_is_not_said_to_be_suspended() {
    let (mut operator, mut world) = adopted();
    let queue = [(crate::crd::QUEUE_LABEL.to_owned(), "gpu".to_owned())];
    world.touch_job(HELM_JOB, |job| job.metadata.labels.as_mut().unwrap().extend(queue));
    let workload = json!({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload",
        "metadata": {"name": "w", "uid": "w"}, "spec": {"active": true}});
    world.workload = Some(serde_json::from_value(workload).unwrap());
    world.edit(|task_run| task_run.spec.suspend = Some(true));
    operator.reconcile(&mut world);
    assert_eq!(status(&world).phase, Some(Phase::Running), "{:?}", status(&world).message);
}

#[test]
fn a_deletion_ends_no_pod_of_it_that_somebody_orphaned() {
    let (mut operator, mut world) = adopted();
    world.delete_job(HELM_JOB, Cascade::Orphan);
    world.delete_task_run();
    assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers", "event JobStays"]);
}

#[test]
fn odd_annotations_are_told_and_hold_up_no_deletion() {
    let long = "a".repeat(300);
    for text in ["", "/uid", "a b", "..", "?watch=true", "%2e%2e%2fpods", "x/ in (", "x/y,z", "Fine-But-Odd", &long] {
        let (mut operator, mut world) = (Operator::default(), World::with_helm_job());
        world.edit(|task_run| drop(task_run.metadata.annotations.as_mut().unwrap().insert(ADOPTS.into(), text.into())));
        assert_eq!(reconcile(&mut operator, &mut world).0, ["status", "event InvalidSpec"], "{text:?}");
        assert_eq!(reconcile(&mut operator, &mut world), (vec![], Next::Wait), "{text:?}");
        world.delete_task_run();
        assert_eq!(reconcile(&mut operator, &mut world).0, ["finalizers"], "{text:?}");
    }
}
