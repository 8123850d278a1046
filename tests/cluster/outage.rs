//! With the webhook away: what waits for it and what must not.

use crate::support::{Cluster, Operator, markdown, task_run};
use serde_json::{Value, json};

const TASK: &str = "taskrun/task-1";

#[test]
fn without_the_webhook_only_new_context_waits() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "until-told"}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.create(&task_run(2, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    drop(operator);

    let refused = ns.create(&task_run(3, &[("task.md", "do it")])).refused();
    assert!(refused.contains("failed calling webhook \"mutate.taskruns.orchestrator.io\""), "{refused}");
    let files = json!({"spec": {"markdownFiles": markdown(&[("task.md", "do more")])}});
    assert!(ns.merge(TASK, &files).refused().contains("failed calling webhook"));
    // the kill switch, labels, limits, status, finalizers, deletion and all other kinds go on
    ns.merge(TASK, &json!({"spec": {"cancel": true, "suspend": true, "historyLimit": 3}})).ok();
    ns.kubectl(&["label", TASK, "team=a"]).ok();
    let status = json!({"status": {"message": "by hand"}}).to_string();
    ns.kubectl(&["patch", TASK, "--subresource=status", "--type=merge", "-p", &status]).ok();
    ns.kubectl(&["create", "configmap", "other", "--from-literal=a=b"]).ok();
    ns.kubectl(&["delete", "taskrun/task-2", "--wait=false"]).ok();
    ns.merge("taskrun/task-2", &json!({"metadata": {"finalizers": null}})).ok();
    ns.wait("taskrun/task-2", "gone", Value::is_null);

    let operator = Operator::start(&cluster, &[]);
    ns.wait_phase(TASK, 1, "Failed");
    ns.create(&task_run(3, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-3", 1, "Running");

    // switched off: the schema still holds the versions, and the reconciler the markdown rules
    for (kind, verb) in [("mutatingwebhookconfiguration", "mutate"), ("validatingwebhookconfiguration", "validate")] {
        let nowhere = json!({"matchLabels": {"no": "namespace"}});
        let webhook = json!({"name": format!("{verb}.taskruns.orchestrator.io"), "namespaceSelector": nowhere});
        let off = json!({"webhooks": [webhook]}).to_string();
        cluster.kubectl(&["patch", kind, "taskrun-operator", "--type=strategic", "-p", &off]).ok();
    }
    // the API server takes a moment to see it
    let create = || ns.kubectl_on(&["create", "--dry-run=server"], &task_run(4, &[("task.md", "do it")]));
    let refused = (0..1_000).map(|_| create()).find(|answer| !answer.ok).expect("a refusal").refused();
    assert!(refused.contains("spec.contextVersion: Required value"), "{refused}");
    let mut task = task_run(4, &[("task.md", "<!-- todo -->")]);
    task["spec"]["contextVersion"] = json!(1);
    ns.create(&task).ok();
    let task = ns.wait("taskrun/task-4", "stalled", |task| task["status"]["phase"] == "Pending");
    let message = task["status"]["message"].as_str().expect("a message");
    assert!(message.contains("spec.markdownFiles[0].content: \"task.md\" is empty"), "{message}");
    assert_eq!(ns.find("job/svc-4-v1"), None);
    let change = |version: u64, text: &str| {
        ns.merge(
            "taskrun/task-4",
            &json!({"spec": {"contextVersion": version, "markdownFiles": markdown(&[("task.md", text)])}}),
        )
    };
    for (version, text) in [(1, "other"), (3, "other"), (0, "other"), (3, "<!-- todo -->")] {
        let refused = change(version, text).refused();
        assert!(refused.contains("spec.contextVersion"), "{version}: {refused}");
    }
    change(2, "do it").ok();
    ns.wait_phase("taskrun/task-4", 2, "Running");
    drop(operator);
}

/// Stored when the schema and the webhook were not there yet: 1.4 MB, with a finalizer.
#[test]
fn an_object_that_breaks_newer_rules_can_be_changed_and_deleted() {
    let cluster = Cluster::start();
    cluster.install();
    cluster
        .kubectl(&["delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "taskrun-operator"])
        .ok();
    let shipped = cluster.kubectl(&["get", "crd", "taskruns.orchestrator.io", "-o", "json"]).ok();
    let mut lax: Value = serde_json::from_str(&shipped).expect("JSON");
    lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    // they speak of fields of the schema
    lax["spec"]["versions"][0]["selectableFields"].take();
    cluster.kubectl_on(&["replace"], &lax).ok();
    let ns = cluster.namespace(&json!({}));
    let mut huge = task_run(1, &[("task.md", &"text ".repeat(280_000)), ("empty.md", "")]);
    huge["metadata"]["finalizers"] = json!(["example.test/hold"]);
    huge["spec"]["contextVersion"] = json!(1);
    // the schema's change takes a moment to be served
    let mut stored = ns.create(&huge);
    for _ in 0..100 {
        if stored.ok {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        stored = ns.create(&huge);
    }
    stored.ok();
    let mut malformed = task_run(2, &[]);
    malformed["spec"]["markdownFiles"] = json!(123);
    malformed["spec"]["contextVersion"] = json!(1);
    ns.create(&malformed).ok();

    cluster
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy")])
        .ok();
    let operator = Operator::start(&cluster, &[]);
    // one that cannot be read stops nobody else
    ns.create(&task_run(3, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-3", 1, "Succeeded");
    ns.wait(TASK, "judged", |task| task["status"]["phase"] == "Pending");

    ns.kubectl(&["annotate", TASK, "note=a"]).ok();
    // what would grow it is refused, what mends it is not
    let env = json!({"spec": {"env": [{"name": "A", "value": "b"}]}});
    assert!(ns.merge(TASK, &env).refused().contains("more than the 1310720"));
    ns.kubectl(&["delete", TASK, "--wait=false"]).ok();
    ns.merge(TASK, &json!({"metadata": {"finalizers": null}})).ok();
    ns.wait(TASK, "gone", Value::is_null);
    ns.kubectl(&["delete", "taskrun/task-2", "--timeout=30s"]).ok();
    assert!(!operator.log().contains("panicked"));
}
