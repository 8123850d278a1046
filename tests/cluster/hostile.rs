//! What others may do or be slow at: none of it stops the operator or breaks a law.

use crate::support::{Cluster, Operator, agent, markdown, task_run};
use serde_json::{Value, json};
use std::time::Duration;

const TASK: &str = "taskrun/task-1";

/// Both pass the schema, and do not fit the types that they are read into.
#[test]
fn objects_that_cannot_be_read_stop_nobody_else() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "until-told"}));
    let mut bad = agent("bad", &json!({}));
    let container = &mut bad["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    container["livenessProbe"] = json!({"httpGet": {"port": 3_000_000_000_u64}});
    container["env"] = json!([{"name": "TOKEN", "value": "marker-of-a-secret"}]);
    ns.create(&bad).ok();
    let operator = Operator::start(&cluster, &[]);
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    let mut of_bad = task_run(2, &[("task.md", "do it")]);
    of_bad["spec"]["agentName"] = json!("bad");
    ns.create(&of_bad).ok();
    let stalled = ns.wait("taskrun/task-2", "stalled", |task| task["status"]["message"].is_string());
    let message = stalled["status"]["message"].as_str().expect("a message");
    assert!(message.starts_with("Agent \"bad\": cannot be read"), "{message}");
    let bad = ns.wait("agent/bad", "judged", |agent| agent["status"].is_object());
    assert_eq!(bad["status"]["conditions"][0]["status"], "False");
    ns.kubectl(&["label", "agent", "bad", "note=a"]).ok();

    let status = json!({"status": {"startTime": "9999-12-31T23:59:59Z"}}).to_string();
    ns.kubectl(&["patch", TASK, "--subresource=status", "--type=merge", "-p", &status]).ok();
    ns.kubectl(&["delete", TASK, "--wait=false"]).ok();
    ns.wait(TASK, "gone", Value::is_null);
    ns.wait("job/svc-1-v1", "gone", Value::is_null);
    assert!(!operator.log().contains("marker-of-a-secret"));
    let judged =
        cluster.operator_writes().into_iter().filter(|write| write.resource == "agents" && write.name == "bad");
    assert_eq!(judged.count(), 1);
}

/// A Job controller that is late would make a pod of a Job that is long deleted: the next run is recorded
/// only when it is known to have seen the deletion.
#[test]
fn a_late_job_controller_starts_no_pod_beside_the_next_run() {
    let cluster = Cluster::start();
    cluster.install();
    let _operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "until-told"}));
    let controller = cluster.pid_of("kube-controller-manager");
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    for version in 2..6 {
        signal("STOP", &controller);
        let job = format!("job/svc-1-v{}", version - 1);
        let text = format!("do it {version}");
        ns.kubectl(&["delete", &job, "--cascade=background"]).ok();
        ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("task.md", &text)])}})).ok();
        ns.wait(&format!("job/svc-1-v{version}"), "created", Value::is_object);
        std::thread::sleep(Duration::from_millis(300));
        let runs = ns.get(TASK)["status"]["runs"].clone();
        let is_recorded = runs.as_array().expect("runs").iter().any(|run| run["contextVersion"] == version);
        assert!(!is_recorded, "the Job controller has not seen it");
        signal("CONT", &controller);
        let task = ns.wait_phase(TASK, version, "Running");
        let alive = ns.list("pods").into_iter().filter(|pod| pod["status"]["phase"] == "Running");
        assert_eq!(alive.count(), 1, "{task}");
    }
}

fn signal(signal: &str, pid: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{signal}"), pid]).status();
    assert!(sent.expect("kill").success());
}

#[test]
fn webhook_configurations_that_were_applied_again_are_healed() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    operator.signal("TERM");
    operator.wait_end();
    cluster
        .kubectl(&["delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "taskrun-operator"])
        .ok();
    cluster.install();
    let _operator = operator.restart(&[]);
    let healed = "mutatingwebhookconfiguration/taskrun-operator";
    ns.wait(healed, "healed", |found| found["webhooks"][0]["clientConfig"]["url"].is_string());
    ns.wait("validatingwebhookconfiguration/taskrun-operator", "healed", |found| {
        found["webhooks"][0]["clientConfig"]["url"].is_string()
    });
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Succeeded");
}
