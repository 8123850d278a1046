//! What else a task may meet: waiting context, a history that is cut, its expiry, and people who delete,
//! unsuspend, re-create and edit what belongs to it.

use crate::reconcile::{TASK, condition_reason, end, pods, until_told};
use crate::support::{Cluster, Namespace, agent, markdown, task_run};
use serde_json::{Value, json};

fn add_context(ns: &Namespace<'_>, text: &str) {
    ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("task.md", text)])}})).ok();
}

fn outcomes(task: &Value) -> Vec<(u64, &str)> {
    let runs = task["status"]["runs"].as_array().expect("runs");
    let outcome = |run: &'_ Value| run["contextVersion"].as_u64().expect("a version");
    runs.iter().map(|run| (outcome(run), run["outcome"].as_str().unwrap_or("goes on"))).collect()
}

fn is_stalled(task: &Value, reason: &str) -> bool {
    task["status"].is_object() && condition_reason(task, "Stalled") == reason
}

fn names(ns: &Namespace<'_>, kind: &str) -> Vec<String> {
    let names = ns.list(kind).into_iter().map(|object| object["metadata"]["name"].as_str().expect("a name").to_owned());
    names.filter(|name| name.starts_with("svc-")).collect()
}

#[test]
fn new_context_waits_for_the_end_of_the_run_if_it_is_to() {
    let ns = until_told();
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["contextUpdatePolicy"] = json!("AfterCompletion");
    ns.create(&task).ok();
    ns.wait_phase(TASK, 1, "Running");
    add_context(&ns, "do more");
    let waits = |task: &Value| task["status"]["message"].as_str().is_some_and(|text| text.contains("version 2 waits"));
    let task = ns.wait(TASK, "waiting", waits);
    assert_eq!((&task["status"]["phase"], &task["status"]["contextVersion"]), (&json!("Running"), &json!(1)));
    assert_eq!((task["spec"]["contextVersion"].as_u64(), ns.find("job/svc-1-v2")), (Some(2), None));
    end(&ns, 1, "succeeded");
    let task = ns.wait_phase(TASK, 2, "Running");
    assert_eq!(outcomes(&task), [(1, "Succeeded"), (2, "goes on")]);
}

#[test]
fn the_history_keeps_as_many_runs_as_it_may_with_their_files() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["historyLimit"] = json!(1);
    ns.create(&task).ok();
    ns.wait_phase(TASK, 1, "Succeeded");
    for version in 2..5 {
        add_context(&ns, &format!("do {version}"));
        ns.wait_phase(TASK, version, "Succeeded");
    }
    let task = ns.wait(TASK, "cut", |task| outcomes(task).len() == 2);
    assert_eq!(outcomes(&task), [(3, "Succeeded"), (4, "Succeeded")]);
    ns.wait("job/svc-1-v2", "gone", Value::is_null);
    for kind in ["configmaps", "jobs"] {
        assert_eq!(names(&ns, kind), ["svc-1-v3", "svc-1-v4"], "{kind}");
    }
}

#[test]
fn a_finished_task_goes_when_its_time_is_over() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["ttlSecondsAfterFinished"] = json!(2);
    ns.create(&task).ok();
    ns.wait_phase(TASK, 1, "Succeeded");
    ns.wait(TASK, "gone", Value::is_null);
    ns.wait("job/svc-1-v1", "gone", Value::is_null);
}

#[test]
fn a_task_deleted_and_created_again_within_a_second_runs_again_once_the_old_pod_is_gone() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    let old = pods(&ns, 1)[0]["metadata"]["uid"].clone();
    ns.kubectl(&["delete", TASK, "--wait=false"]).ok();
    // refused while the old one ends; then it is a new task of the same name, whose objects may be left
    loop {
        let created = ns.create(&task_run(1, &[("task.md", "do it again")]));
        if created.ok {
            break;
        }
        assert!(created.stderr.contains("AlreadyExists"), "{}", created.stderr);
    }
    ns.wait_phase(TASK, 1, "Running");
    let pods = pods(&ns, 1);
    assert_eq!(pods.len(), 1);
    assert_ne!(pods[0]["metadata"]["uid"], old);
    assert_eq!(ns.get("configmap/svc-1-v1")["data"]["task.md"], "do it again");
}

#[test]
fn a_namespace_with_a_running_task_can_be_deleted() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    Cluster::shared().kubectl(&["delete", "namespace", &ns.name, "--timeout=60s"]).ok();
}

#[test]
fn the_next_run_waits_for_pods_that_a_deletion_left_over() {
    // the API server's own default orphans a Job's pods
    for raw in [true, false] {
        let ns = until_told();
        ns.create(&task_run(1, &[("task.md", "do it")])).ok();
        ns.wait_phase(TASK, 1, "Running");
        let left = pods(&ns, 1)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        match raw {
            true => {
                let path = format!("/apis/batch/v1/namespaces/{}/jobs/svc-1-v1", ns.name);
                ns.kubectl(&["delete", "--raw", &path]).ok();
            }
            false => drop(ns.kubectl(&["delete", "job/svc-1-v1", "--wait=false"]).ok()),
        }
        ns.wait_phase(TASK, 1, "Failed");
        add_context(&ns, "do more");
        let task = ns.wait(TASK, "waiting or running", |task| {
            let names_it = task["status"]["message"].as_str().is_some_and(|message| message.contains(&left));
            names_it || (task["status"]["contextVersion"] == 2 && task["status"]["phase"] == "Running")
        });
        assert!(!raw || task["status"]["phase"] == "Pending", "the orphan lives on");
        ns.kubectl(&["delete", "pod", &left, "--wait=false", "--ignore-not-found"]).ok();
        let task = ns.wait_phase(TASK, 2, "Running");
        assert_eq!(outcomes(&task), [(1, "Unknown"), (2, "goes on")]);
        assert!(pods(&ns, 1).iter().all(|pod| pod["status"]["phase"] != "Running"));
    }
}

#[test]
fn a_job_that_somebody_unsuspends_starts_nothing_beside_the_old_run() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    add_context(&ns, "do more");
    ns.wait("job/svc-1-v2", "there", Value::is_object);
    ns.merge("job/svc-1-v2", &json!({"spec": {"suspend": false}})).ok();
    let task = ns.wait_phase(TASK, 2, "Running");
    assert_eq!(outcomes(&task), [(1, "Superseded"), (2, "goes on")]);
    let started = |version| pods(&ns, version)[0]["status"]["startTime"].as_str().expect("a time").to_owned();
    let ended = task["status"]["runs"][0]["completionTime"].as_str().expect("a time").to_owned();
    assert!(*started(2) >= ended[..19], "{} {ended}", started(2));
}

#[test]
fn an_edited_agent_changes_the_next_run_only() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    let before = pods(&ns, 1)[0]["metadata"]["uid"].clone();
    let mut edited = agent("agent", &json!({"kwok.test/run-for": "until-told"}));
    edited["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.test/agent:2");
    ns.kubectl_on(&["apply", "--server-side", "--force-conflicts"], &edited).ok();
    ns.wait("agent/agent", "judged", |agent| agent["status"]["conditions"][0]["observedGeneration"] == 2);
    let image = |version| pods(&ns, version)[0]["spec"]["containers"][0]["image"].clone();
    assert_eq!((image(1), &pods(&ns, 1)[0]["metadata"]["uid"]), (json!("example.test/agent:1"), &before));
    add_context(&ns, "do more");
    ns.wait_phase(TASK, 2, "Running");
    assert_eq!(image(2), "example.test/agent:2");
}

#[test]
fn an_agent_says_whether_a_job_can_be_made_of_it() {
    let ns = Cluster::shared().namespace(&json!({}));
    let valid = |agent: &Value| agent["status"]["conditions"][0]["status"].clone();
    ns.wait("agent/agent", "valid", |agent| valid(agent) == "True");
    let limits = |cpu: &str| {
        let container =
            json!({"name": "agent", "image": "example.test/agent:1", "resources": {"limits": {"cpu": cpu}}});
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [container]}}}}}})
    };
    ns.merge("agent/agent", &limits("banana")).ok();
    let agent = ns.wait("agent/agent", "invalid", |agent| valid(agent) == "False");
    let message = agent["status"]["conditions"][0]["message"].as_str().expect("a message");
    assert!(message.contains("quantit"), "{message}");
    ns.merge("agent/agent", &limits("1")).ok();
    ns.wait("agent/agent", "valid again", |agent| valid(agent) == "True");
    assert!(ns.list("jobs").is_empty());
}

#[test]
fn a_workspace_is_shared_by_all_versions_and_outlives_the_task() {
    let ns = until_told();
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "by-hand",
        "resources": {"requests": {"storage": "1Gi"}}});
    ns.merge("agent/agent", &json!({"spec": {"workspace": {"claimTemplate": claim}}})).ok();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait(TASK, "stalled", |task| is_stalled(task, "UnboundPersistentVolumeClaim"));
    let uid = ns.get("pvc/workspace-svc-1")["metadata"]["uid"].clone();
    add_context(&ns, "do more");
    ns.wait("job/svc-1-v2", "there", Value::is_object);
    let volumes = ns.get("job/svc-1-v2")["spec"]["template"]["spec"]["volumes"].clone();
    assert!(volumes.to_string().contains("workspace-svc-1"), "{volumes}");
    ns.kubectl(&["delete", TASK, "--timeout=60s"]).ok();
    assert_eq!(ns.get("pvc/workspace-svc-1")["metadata"]["uid"], uid);
}

#[test]
fn a_quota_that_forbids_pods_is_told() {
    let ns = Cluster::shared().namespace(&json!({}));
    ns.kubectl(&["create", "quota", "none", "--hard=pods=0"]).ok();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait(TASK, "stalled", |task| is_stalled(task, "FailedCreate"));
    ns.kubectl(&["delete", "quota", "none"]).ok();
    ns.wait_phase(TASK, 1, "Succeeded");
}

#[test]
fn kubectl_kstatus_and_argo_cd_know_how_a_task_stands() {
    let ns = until_told();
    let stands = |name: &str| {
        let object = ns.get(name);
        let argo_cd = ns.cluster.argo_cd(&object);
        format!("{} {}", ns.cluster.kstatus(&object), argo_cd.split(' ').next().unwrap_or_default())
    };
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["agentName"] = json!("late");
    ns.create(&task).ok();
    let stalled = ns.wait(TASK, "stalled", |task| is_stalled(task, "AgentNotFound"));
    assert_eq!(stands(TASK), "Failed Degraded");
    let message = stalled["status"]["message"].as_str().expect("a message");
    assert_eq!(ns.cluster.argo_cd(&stalled), format!("Degraded {message}"), "it says why");
    ns.merge(TASK, &json!({"spec": {"agentName": "agent", "suspend": true}})).ok();
    let suspended = ns.wait(TASK, "suspended", |task| condition_reason(task, "Suspended") == "Suspended");
    assert_eq!(stands(TASK), "InProgress Suspended");
    let mut edited = suspended;
    edited["metadata"]["generation"] = json!(99);
    assert_eq!(ns.cluster.argo_cd(&edited), "Progressing waiting for the operator");
    ns.merge(TASK, &json!({"spec": {"suspend": false}})).ok();
    ns.wait_phase(TASK, 2, "Running");
    assert_eq!(stands(TASK), "InProgress Progressing");
    end(&ns, 2, "succeeded");
    ns.kubectl(&["wait", "--for=condition=Complete", TASK, "--timeout=60s"]).ok();
    assert_eq!(stands(TASK), "Current Healthy");
    add_context(&ns, "do more");
    ns.wait_phase(TASK, 3, "Running");
    assert_eq!(stands(TASK), "InProgress Progressing");
    end(&ns, 3, "failed");
    ns.kubectl(&["wait", "--for=condition=Failed", TASK, "--timeout=60s"]).ok();
    assert_eq!(stands(TASK), "Failed Degraded");
    edited["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(ns.cluster.argo_cd(&edited), "Progressing its run is being ended");
}

#[test]
fn argo_cd_knows_whether_an_agent_is_valid() {
    let ns = until_told();
    let mut agent = ns.wait("agent/agent", "judged", |agent| agent["status"]["conditions"].is_array());
    assert_eq!(ns.cluster.argo_cd(&agent), "Healthy");
    agent["metadata"]["generation"] = json!(99);
    assert_eq!(ns.cluster.argo_cd(&agent), "Progressing waiting for the operator");
    agent["status"]["conditions"][0]["observedGeneration"] = json!(99);
    agent["status"]["conditions"][0]["status"] = json!("False");
    agent["status"]["conditions"][0]["message"] = json!("cpu: banana");
    assert_eq!(ns.cluster.argo_cd(&agent), "Degraded cpu: banana");
}
