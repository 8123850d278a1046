//! The life of a run, from the context to its end.

use crate::support::{Cluster, Namespace, agent, markdown, task_run};
use serde_json::{Value, json};
use std::time::Duration;

pub const TASK: &str = "taskrun/task-1";

/// A namespace whose pods run until told.
pub fn until_told() -> Namespace<'static> {
    Cluster::shared().namespace(&json!({"kwok.test/run-for": "until-told"}))
}

pub fn condition<'a>(task: &'a Value, type_: &str) -> &'a Value {
    let conditions = task["status"]["conditions"].as_array().expect("conditions");
    conditions.iter().find(|condition| condition["type"] == type_).expect("the condition")
}

/// The pods of a version's Job.
pub fn pods(ns: &Namespace<'_>, version: u64) -> Vec<Value> {
    let version = json!(version.to_string());
    ns.list("pods").into_iter().filter(|pod| pod["metadata"]["labels"]["context-version"] == version).collect()
}

pub fn end(ns: &Namespace<'_>, version: u64, outcome: &str) {
    for pod in pods(ns, version) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        ns.kubectl(&["annotate", "pod", name, &format!("kwok.test/outcome={outcome}")]).ok();
    }
}

#[test]
fn a_task_runs_once_with_all_its_context() {
    let ns = Cluster::shared().namespace(&json!({"kwok.test/message": "opened a pull request"}));
    let mut task = task_run(1, &[("task.md", "do it"), ("prompt.md", "now")]);
    task["spec"]["env"] = json!([{"name": "BRANCH", "value": "a-$(TASK_ID)"}]);
    ns.create(&task).ok();
    let task = ns.wait_phase(TASK, 1, "Succeeded");
    let uid = &task["metadata"]["uid"];

    let config_map = ns.get("configmap/svc-1-v1");
    assert_eq!(config_map["data"], json!({"task.md": "do it", "prompt.md": "now"}));
    assert_eq!(config_map["immutable"], true);
    let job = ns.get("job/svc-1-v1");
    for object in [&config_map, &job] {
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["uid"], &owner["controller"]), (uid, &json!(true)));
        assert_eq!(object["metadata"]["labels"]["task-id"], "1");
        assert_eq!(object["metadata"]["labels"]["context-version"], "1");
    }
    let pod = &pods(&ns, 1)[0]["spec"];
    let mount = &pod["containers"][0]["volumeMounts"][0];
    assert_eq!((&mount["name"], &mount["mountPath"]), (&json!("taskrun-context"), &json!("/context")));
    assert_eq!(mount["readOnly"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(
        pod["containers"][0]["env"],
        json!([
            {"name": "TASK_ID", "value": "1"}, {"name": "SERVICE_NAME", "value": "svc"},
            {"name": "AGENT_NAME", "value": "agent"}, {"name": "CONTEXT_VERSION", "value": "1"},
            {"name": "CONTEXT_DIR", "value": "/context"}, {"name": "BRANCH", "value": "a-$$(TASK_ID)"},
        ])
    );

    let status = &task["status"];
    assert_eq!(status["jobName"], "svc-1-v1");
    assert_eq!(status["attempts"], 1);
    assert_eq!(status["message"], "opened a pull request");
    assert_eq!(status["observedGeneration"], task["metadata"]["generation"]);
    for time in ["startTime", "completionTime", "lastUpdated"] {
        assert!(status[time].is_string(), "{time}");
    }
    assert_eq!(condition(&task, "Complete")["status"], "True");
    for type_ in ["Failed", "Suspended", "Reconciling", "Stalled"] {
        assert_eq!(condition(&task, type_)["status"], "False", "{type_}");
    }
    let run = &status["runs"][0];
    assert_eq!(
        (&run["outcome"], &run["jobUid"], &run["changedBy"]),
        (&json!("Succeeded"), &job["metadata"]["uid"], &json!("admin"))
    );
    ns.kubectl(&["wait", "--for=condition=Complete", TASK, "--timeout=5s"]).ok();
    let reasons: Vec<Value> = ns
        .list("events.events.k8s.io")
        .into_iter()
        .filter(|e| e["regarding"]["kind"] == "TaskRun")
        .map(|e| e["reason"].clone())
        .collect();
    for reason in ["Starting", "Running", "Succeeded"] {
        assert_eq!(reasons.iter().filter(|r| **r == reason).count(), 1, "{reason}: {reasons:?}");
    }
}

#[test]
fn a_first_run_costs_six_writes_and_a_settled_task_none() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    end(&ns, 1, "succeeded");
    ns.wait_phase(TASK, 1, "Succeeded");
    let writes = || -> Vec<_> {
        let all = Cluster::shared().operator_writes();
        all.into_iter()
            // an Agent is judged once, whatever runs
            .filter(|write| write.namespace == ns.name && write.resource != "agents")
            .map(|w| (w.verb, w.resource, w.subresource, w.code))
            .collect()
    };
    let at_the_end = writes();
    let write = |verb: &str, resource: &str, subresource: &str, code: i64| {
        (verb.to_owned(), resource.to_owned(), subresource.to_owned(), code)
    };
    assert_eq!(
        at_the_end,
        [
            write("create", "configmaps", "", 201),
            write("create", "jobs", "", 201),
            write("patch", "taskruns", "status", 200),
            write("patch", "jobs", "", 200),
            write("patch", "taskruns", "status", 200),
            write("patch", "taskruns", "status", 200),
        ]
    );
    println!("a first run costs {} reads", Cluster::shared().operator_reads(&ns.name).len());
    // changes that mean nothing wake the reconciler, and it writes nothing
    ns.kubectl(&["annotate", TASK, "note=a"]).ok();
    ns.kubectl(&["label", "job", "svc-1-v1", "note=a"]).ok();
    ns.create(&task_run(2, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-2", 1, "Running");
    assert_eq!(writes().len(), 6 + 5, "only the second task's");
}

#[test]
fn new_context_ends_the_run_and_starts_the_next_when_its_pod_is_gone() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    ns.edit(TASK, "s/do\\ it/do\\ it\\ well/").ok();
    let waiting = ns.wait(TASK, "waiting", |task| condition_reason(task, "Reconciling") == "WaitingForPreviousRun");
    assert_eq!(waiting["status"]["phase"], "Pending");
    let job = ns.get("job/svc-1-v2");
    assert_eq!(job["spec"]["suspend"], true);
    assert_eq!(job["spec"]["template"]["spec"]["schedulingGates"], json!([{"name": "orchestrator.io/release"}]));
    assert!(pods(&ns, 2).is_empty(), "nothing of version 2 starts while version 1 lives");

    let task = ns.wait_phase(TASK, 2, "Running");
    assert!(pods(&ns, 1).is_empty() || pods(&ns, 1)[0]["status"]["phase"] == "Failed");
    assert_eq!(ns.find("job/svc-1-v1"), None);
    let runs = &task["status"]["runs"];
    assert_eq!((&runs[0]["outcome"], &runs[0]["message"]), (&json!("Superseded"), &json!("superseded by version 2")));
    assert_eq!(ns.get("configmap/svc-1-v2")["data"]["task.md"], "do it well");
    assert_eq!(ns.get("configmap/svc-1-v1")["data"]["task.md"], "do it", "history is kept");
    end(&ns, 2, "succeeded");
    ns.wait_phase(TASK, 2, "Succeeded");
}

pub fn condition_reason(task: &Value, type_: &str) -> String {
    let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let on = conditions.iter().find(|c| c["type"] == type_ && c["status"] == "True");
    on.and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn a_failed_run_says_why_and_is_not_repeated() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    end(&ns, 1, "failed");
    let task = ns.wait_phase(TASK, 1, "Failed");
    assert_eq!(condition(&task, "Failed")["reason"], "BackoffLimitExceeded");
    assert_eq!(condition(&task, "Stalled")["status"], "True");
    let message = task["status"]["message"].as_str().expect("a message");
    assert!(message.contains("container agent ended with exit code 1"), "{message}");
    assert_eq!(task["status"]["attempts"], 1);
    assert_eq!(pods(&ns, 1).len(), 1);
}

#[test]
fn a_deleted_job_is_not_started_again() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    ns.kubectl(&["delete", "job", "svc-1-v1"]).ok();
    let task = ns.wait_phase(TASK, 1, "Failed");
    assert_eq!(condition(&task, "Failed")["reason"], "JobGone");
    assert_eq!(task["status"]["runs"][0]["outcome"], "Unknown");
    ns.kubectl(&["annotate", TASK, "note=a"]).ok();
    // a re-run of the same context is a new version
    ns.merge(TASK, &json!({"spec": {"contextVersion": 2}})).ok();
    ns.wait_phase(TASK, 2, "Running");
    assert_eq!(ns.find("job/svc-1-v1"), None);
    end(&ns, 2, "succeeded");
    ns.wait_phase(TASK, 2, "Succeeded");
}

#[test]
fn deleting_a_task_ends_its_pod_first() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    ns.kubectl(&["delete", TASK, "--wait=false"]).ok();
    while ns.find(TASK).is_some() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let alive: Vec<Value> = pods(&ns, 1).into_iter().filter(|pod| pod["status"]["phase"] == "Running").collect();
    assert!(alive.is_empty(), "{alive:?}");
    ns.wait("configmap/svc-1-v1", "gone", Value::is_null);
    ns.wait("job/svc-1-v1", "gone", Value::is_null);
    ns.create(&task_run(1, &[("task.md", "do it again")])).ok();
    ns.wait_phase(TASK, 1, "Running");
}

#[test]
fn a_missing_agent_is_waited_for() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["agentName"] = json!("late");
    ns.create(&task).ok();
    let task = ns.wait(TASK, "stalled", |task| condition_reason(task, "Stalled") == "AgentNotFound");
    assert!(task["status"]["message"].as_str().expect("a message").contains("\"late\""));
    ns.create(&agent("late", &json!({}))).ok();
    let task = ns.wait_phase(TASK, 1, "Succeeded");
    assert_eq!(condition(&task, "Stalled")["status"], "False");
}

#[test]
fn an_agent_that_no_job_can_be_made_of_is_told() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut bad = agent("bad", &json!({}));
    bad["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "banana"}});
    ns.create(&bad).ok();
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["agentName"] = json!("bad");
    ns.create(&task).ok();
    let task = ns.wait(TASK, "stalled", |task| condition_reason(task, "Stalled") == "InvalidAgent");
    let message = task["status"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("banana") || message.contains("quantit"), "{message}");
}

#[test]
fn a_suspended_task_starts_when_it_is_lifted_and_a_running_one_pauses() {
    let ns = until_told();
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["suspend"] = json!(true);
    ns.create(&task).ok();
    ns.wait(TASK, "suspended", |task| condition_reason(task, "Suspended") == "Suspended");
    assert_eq!(ns.find("job/svc-1-v1"), None);
    ns.merge(TASK, &json!({"spec": {"suspend": false}})).ok();
    ns.wait_phase(TASK, 1, "Running");
    ns.merge(TASK, &json!({"spec": {"suspend": true}})).ok();
    ns.wait(TASK, "suspended", |task| condition_reason(task, "Suspended") == "Suspended");
    ns.merge(TASK, &json!({"spec": {"suspend": false}})).ok();
    let task = ns.wait(TASK, "at its second attempt", |task| task["status"]["attempts"] == 2);
    assert_eq!(task["status"]["phase"], "Running");
    assert_eq!(task["status"]["runs"].as_array().map(Vec::len), Some(1), "it is one run");
}

#[test]
fn a_cancelled_run_ends_with_its_job_kept_and_never_starts_again() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    ns.merge(TASK, &json!({"spec": {"cancel": true}})).ok();
    let task = ns.wait_phase(TASK, 1, "Failed");
    assert_eq!(task["status"]["runs"][0]["outcome"], "Cancelled");
    assert!(ns.find("job/svc-1-v1").is_some());
    ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("task.md", "do more")])}})).ok();
    let task = ns.wait_phase(TASK, 2, "Failed");
    assert_eq!(task["status"]["runs"][1]["outcome"], "Cancelled");
    assert_eq!(ns.find("job/svc-1-v2"), None);
    ns.merge(TASK, &json!({"spec": {"cancel": false, "contextVersion": 3}})).ok();
    ns.wait_phase(TASK, 3, "Running");
}

#[test]
fn a_job_of_somebody_else_is_not_taken_over() {
    let ns = until_told();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "svc-1-v1"}, "spec": {"suspend": true,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.test/a"}]}}}});
    ns.create(&job).ok();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait(TASK, "stalled", |task| condition_reason(task, "Stalled") == "NameConflict");
    assert_eq!(ns.get("job/svc-1-v1")["spec"]["suspend"], true);
    ns.kubectl(&["delete", "job", "svc-1-v1"]).ok();
    ns.wait_phase(TASK, 1, "Running");
}

#[test]
fn a_run_goes_on_where_the_next_version_cannot_start() {
    let ns = until_told();
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    let mine =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "svc-1-v2"}, "data": {"mine": "1"}});
    ns.create(&mine).ok();
    ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("task.md", "do more")])}})).ok();
    ns.wait(TASK, "stalled", |task| condition_reason(task, "Stalled") == "NameConflict");
    let job = ns.get("job/svc-1-v1");
    assert_eq!(job["metadata"]["deletionTimestamp"], json!(null), "it was ended for one that cannot start");
    ns.kubectl(&["delete", "configmap", "svc-1-v2"]).ok();
    ns.wait_phase(TASK, 2, "Running");
}

#[test]
fn a_pod_that_cannot_start_is_told() {
    let ns = Cluster::shared().namespace(&json!({"kwok.test/stuck": "ImagePullBackOff"}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    let task = ns.wait(TASK, "stalled", |task| condition_reason(task, "Stalled") == "ImagePullBackOff");
    assert_eq!(task["status"]["phase"], "Pending");
}
