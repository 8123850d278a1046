//! What the status says, and that it is written only where it says something new.

use super::world::{World, finish};
use super::*;
use crate::crd::TaskRunStatus;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The status after the steps of a plan; what a write does is the API server's.
fn status_after(observed: &Observed) -> TaskRunStatus {
    let mut status = serde_json::to_value(observed.task_run.status.clone().unwrap_or_default()).unwrap();
    for step in plan(observed).steps {
        match step {
            Step::PatchStatus(patch) => {
                assert_eq!(patch["metadata"]["resourceVersion"], json!(observed.task_run.metadata.resource_version));
                json_patch::merge(&mut status, &patch["status"]);
            }
            Step::Publish(_) | Step::DeleteJob { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    serde_json::from_value(status).unwrap()
}

/// Writes the status and sees that it is not written again.
fn stand(observed: &mut Observed) -> TaskRunStatus {
    let status = status_after(observed);
    observed.task_run.status = Some(status.clone());
    observed.now += SignedDuration::from_secs(60);
    assert_eq!(plan(observed).steps, [], "it was written again");
    status
}

/// The reason of the condition, if it is true.
fn reason_of<'a>(status: &'a TaskRunStatus, type_: &str) -> Option<&'a str> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    (condition.status == "True").then_some(condition.reason.as_str())
}

fn new() -> Observed {
    observed(&World::new())
}

/// Metadata of an object that has our name and no owner.
fn named() -> ObjectMeta {
    ObjectMeta { name: Some("auth-7-v1".into()), ..ObjectMeta::default() }
}

/// A recorded and released run, with these pods.
fn released(pods: &[Value]) -> Observed {
    let mut world = World::new();
    let mut operator = operator::Operator::default();
    (0..3).for_each(|_| operator.reconcile(&mut world));
    let mut observed = observed(&world);
    let uid = observed.job.as_ref().unwrap().metadata.uid.clone();
    for (i, status) in pods.iter().enumerate() {
        let pod = json!({
            "metadata": {
                "name": format!("pod-{i}"),
                "uid": format!("pod-uid-{i}"),
                "creationTimestamp": format!("2027-01-01T00:{:02}:{:02}Z", i / 60, i % 60),
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "auth-7-v1", "uid": uid}],
            },
            "status": status,
        });
        observed.pods.push(serde_json::from_value(pod).unwrap());
    }
    observed
}

fn job(observed: &mut Observed) -> &mut Job {
    observed.job.as_mut().unwrap()
}

#[test]
fn a_spec_that_slipped_past_admission_is_not_run() {
    let mut observed = new();
    observed.task_run.spec.markdown_files[0].content = "<!-- nothing -->".into();
    let status = stand(&mut observed);
    assert_eq!((reason_of(&status, "Stalled"), status.phase), (Some("InvalidSpec"), Some(Phase::Pending)));
    assert!(status.message.unwrap().contains("spec.markdownFiles[0].content"));
}

#[test]
fn what_keeps_a_run_from_being_made_is_told() {
    type Change = fn(&mut Observed);
    let cases: [(Change, &str, &str); 5] = [
        (|new| new.agent = None, "AgentNotFound", "\"coder\""),
        (
            |new| {
                new.agent.as_mut().unwrap().as_mut().unwrap().spec.job_template.spec.as_mut().unwrap().suspend =
                    Some(true);
            },
            "InvalidAgent",
            "spec.jobTemplate.spec.suspend",
        ),
        (|new| new.job = Some(Job { metadata: named(), ..Job::default() }), "NameConflict", "Job \"auth-7-v1\""),
        (|new| new.config_map = Some(named()), "NameConflict", "ConfigMap \"auth-7-v1\""),
        (
            |new| new.refused = Some((reason::INVALID_AGENT, "image: Required value".into())),
            "InvalidAgent",
            "Required value",
        ),
    ];
    for (change, why, what) in cases {
        let mut observed = new();
        change(&mut observed);
        let status = stand(&mut observed);
        assert_eq!(reason_of(&status, "Stalled"), Some(why));
        assert_eq!(reason_of(&status, "Reconciling"), None, "{why}");
        assert!(status.message.as_ref().unwrap().contains(what), "{:?}", status.message);
        assert_eq!(status.runs, [], "{why}");
    }
}

#[test]
fn a_run_that_is_being_cancelled_says_so_until_it_has_ended() {
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "agent", "image": "", "imageID": "",
        "ready": true, "restartCount": 0, "state": {"running": {}}}]});
    let mut observed = released(&[running]);
    assert_eq!(stand(&mut observed).phase, Some(Phase::Running));
    observed.task_run.spec.cancel = Some(true);
    job(&mut observed).spec.as_mut().unwrap().active_deadline_seconds = Some(1);
    let status = stand(&mut observed);
    assert_eq!(
        (status.phase, status.message.as_deref()),
        (Some(Phase::Running), Some("cancelled: Job auth-7-v1 ends"))
    );
    // its pod is gone, and the Job has not said yet how it ended
    observed.pods.clear();
    assert_eq!(plan(&observed).steps, []);
}

#[test]
fn what_a_deleted_task_run_left_behind_is_deleted_and_waited_for() {
    let owner =
        json!([{"apiVersion": "orchestrator.io/v1", "kind": "TaskRun", "name": "task-7", "uid": "an earlier one"}]);
    let left = json!({"name": "auth-7-v1", "uid": "left", "ownerReferences": owner});
    let left: ObjectMeta = serde_json::from_value(left).unwrap();
    let mut observed = new();
    observed.config_map = Some(left.clone());
    assert_eq!(operator::words(&plan(&observed).steps), ["delete config map auth-7-v1"]);
    observed.job = Some(Job { metadata: left, ..Job::default() });
    assert_eq!(operator::words(&plan(&observed).steps), ["delete job auth-7-v1"]);
    observed.job.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(observed.now));
    let status = stand(&mut observed);
    assert_eq!(reason_of(&status, "Reconciling"), Some("WaitingForPreviousRun"));
    assert_eq!(reason_of(&status, "Stalled"), None);
}

#[test]
fn reasons_of_a_failure_are_kept_apart_and_outlive_the_job() {
    for why in ["DeadlineExceeded", "BackoffLimitExceeded", "PodFailurePolicy"] {
        let mut observed = released(&[json!({"phase": "Failed"})]);
        finish(job(&mut observed), "Failed", why);
        let status = stand(&mut observed);
        assert_eq!((reason_of(&status, "Failed"), reason_of(&status, "Stalled")), (Some(why), Some(why)));
        assert_eq!((status.phase, status.runs[0].outcome), (Some(Phase::Failed), Some(Outcome::Failed)));
        observed.job = None;
        observed.pods.clear();
        observed.task_run.metadata.generation = Some(2);
        let later = stand(&mut observed);
        assert_eq!((reason_of(&later, "Failed"), reason_of(&later, "Stalled")), (Some(why), Some(why)));
        assert_eq!(later.message, status.message);
    }
}

#[test]
fn a_failed_pod_is_not_a_failed_run() {
    let mut observed = released(&[json!({"phase": "Failed"}), json!({"phase": "Running"})]);
    finish(job(&mut observed), "FailureTarget", "BackoffLimitExceeded");
    let status = stand(&mut observed);
    assert_eq!((status.phase, status.attempts), (Some(Phase::Running), Some(2)));
}

#[test]
fn attempts_never_fall() {
    let mut observed =
        released(&[json!({"phase": "Failed"}), json!({"phase": "Running"}), json!({"phase": "Pending"})]);
    assert_eq!(stand(&mut observed).attempts, Some(2));
    let gone = observed.pods.remove(0);
    assert_eq!(status_after(&observed).attempts, Some(2));
    // watches and lists do not always see the same
    observed.pods.push(gone);
    assert_eq!(status_after(&observed).attempts, Some(2));
    observed.pods[1].status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    assert_eq!(stand(&mut observed).attempts, Some(3));
}

#[test]
fn many_attempts_are_each_counted_once() {
    let pods: Vec<Value> = (0..100).map(|_| json!({"phase": "Failed"})).collect();
    assert_eq!(stand(&mut released(&pods)).attempts, Some(100));
}

#[test]
fn a_pod_that_cannot_start_stalls_the_run() {
    let waiting = |why: &str| {
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "agent", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": why}}},
        ]})
    };
    for (why, told) in [
        ("ErrImagePull", "ImagePullBackOff"),
        ("ImagePullBackOff", "ImagePullBackOff"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
    ] {
        let status = stand(&mut released(&[waiting(why)]));
        assert_eq!(reason_of(&status, "Stalled"), Some(told));
        assert!(status.message.unwrap().contains("pod-0"), "{why}");
    }
    let unschedulable = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes, pods age 17s"},
    ]});
    assert_eq!(reason_of(&stand(&mut released(&[unschedulable])), "Stalled"), Some("Unschedulable"));
    // what the record has said already: nothing is written
    assert_eq!(plan(&released(&[waiting("ContainerCreating")])).steps, []);
}

#[test]
fn the_last_word_of_a_container_is_told_and_bounded() {
    let ended = |code: i32, word: &str| {
        json!({"phase": "Failed", "containerStatuses": [
            {"name": "agent", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "message": word}}},
        ]})
    };
    let mut observed = released(&[ended(1, "an earlier word"), ended(3, "out of tokens")]);
    finish(job(&mut observed), "Failed", "BackoffLimitExceeded");
    let message = stand(&mut observed).message.unwrap();
    assert!(message.contains("container agent ended with exit code 3: out of tokens"), "{message}");
    assert!(!message.contains("earlier"), "{message}");

    for (reason, told) in [("OOMKilled", "code 137 (OOMKilled)"), ("Error", "code 137")] {
        let mut killed = ended(137, "");
        killed["containerStatuses"][0]["state"]["terminated"]["reason"] = json!(reason);
        let mut observed = released(&[killed]);
        finish(job(&mut observed), "Failed", "BackoffLimitExceeded");
        let message = stand(&mut observed).message.unwrap();
        assert!(message.contains(told) && !message.contains("(Error)"), "{message}");
    }

    let mut observed = released(&[ended(0, &"é".repeat(5_000))]);
    finish(job(&mut observed), "Complete", "CompletionsReached");
    let status = stand(&mut observed);
    assert_eq!(status.message.unwrap().len(), 1_024);
    assert_eq!(status.runs[0].message.as_ref().unwrap().len(), 1_024);
}

#[test]
fn an_unfinished_run_says_so_in_every_reader_s_words() {
    let mut running = released(&[json!({"phase": "Running"})]);
    let status = stand(&mut running);
    assert_eq!(reason_of(&status, "Reconciling"), Some("Running"));
    for type_ in ["Complete", "Failed", "Stalled", "Suspended"] {
        assert_eq!(reason_of(&status, type_), None, "{type_}");
    }
    finish(job(&mut running), "Complete", "CompletionsReached");
    let status = stand(&mut running);
    assert_eq!((reason_of(&status, "Complete"), reason_of(&status, "Reconciling")), (Some("Succeeded"), None));
}

#[test]
fn a_job_with_another_uid_is_not_the_run() {
    let mut observed = released(&[json!({"phase": "Running"})]);
    job(&mut observed).metadata.uid = Some("another".into());
    let status = status_after(&observed);
    assert_eq!((status.phase, status.runs[0].outcome), (Some(Phase::Failed), Some(Outcome::Unknown)));
    let deleted = Step::DeleteJob { name: "auth-7-v1".into(), uid: "another".into(), resource_version: None };
    assert_eq!(plan(&observed).steps[0], deleted);
}

#[test]
fn a_finalizer_that_somebody_took_away_comes_back_while_the_run_goes_on() {
    let mut observed = released(&[json!({"phase": "Running"})]);
    observed.task_run.metadata.finalizers = None;
    assert!(matches!(plan(&observed).steps[..], [Step::SetFinalizers { .. }]));
    finish(job(&mut observed), "Complete", "CompletionsReached");
    assert!(!plan(&observed).steps.iter().any(|step| matches!(step, Step::SetFinalizers { .. })));
}

#[test]
fn a_run_that_gets_no_pod_is_told_after_a_while() {
    let mut observed = released(&[]);
    let start = Time(observed.now);
    job(&mut observed).status.get_or_insert_default().start_time = Some(start);
    assert_eq!(reason_of(&status_after(&observed), "Stalled"), None);
    observed.now += STARTS_WITHIN;
    assert_eq!(reason_of(&stand(&mut observed), "Stalled"), Some("FailedCreate"));
}

#[test]
fn a_pod_that_no_node_takes_says_why_in_one_word() {
    let unscheduled = |message: &str| {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
        json!({"phase": "Pending", "conditions": [condition]})
    };
    for (message, word) in [
        ("0/5 nodes are available: pod has unbound immediate PersistentVolumeClaims", "UnboundPersistentVolumeClaim"),
        ("persistentvolumeclaim \"workspace-auth-7\" not found", "UnboundPersistentVolumeClaim"),
        ("0/5 nodes are available: 5 Insufficient cpu", "Unschedulable"),
    ] {
        let mut observed = released(&[unscheduled(message)]);
        assert_eq!(reason_of(&stand(&mut observed), "Stalled"), Some(word));
    }
}
