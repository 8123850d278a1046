//! Adopted Jobs, and what others do to them: Helm, policies, and people who write odd things.

use crate::helm::releases::{create_claim, start_task, values};
use crate::helm::{Helm, pods_of, start_agent};
use crate::support::{Cluster, Namespace, Operator, Output, agent, markdown, task_run};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ADOPTS: &str = "orchestrator.io/adopts-job";
const OPERATOR: &str = env!("CARGO_BIN_EXE_taskrun-operator");

/// A step of a migration as admin: what is said of each release.
#[track_caller]
fn migrate(ns: &Namespace<'_>, args: &[&str]) -> BTreeMap<String, Value> {
    let mut command = ns.cluster.command(OPERATOR);
    command.args(["migrate-helm", "-n", &ns.name, "-o", "json"]).args(args);
    let output = Output::of(command, "");
    assert!(!output.stdout.is_empty(), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let releases = report["releases"].as_array().expect("releases").iter();
    releases.map(|entry| (entry["release"].as_str().expect("a name").to_owned(), entry.clone())).collect()
}

/// A Job that runs until told, and that somebody says to be this task's.
pub fn job(name: &str, id: u32) -> Value {
    let labels = json!({"orchestrator.io/task": format!("svc-{id}"), "orchestrator.io/task-run": format!("task-{id}")});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
        "spec": {"template": {"metadata": {"annotations": {"kwok.test/run-for": "until-told"}}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "example.test/a:1"}]}}}})
}

pub fn adopting(ns: &Namespace<'_>, id: u32, job: &str) -> Value {
    let uid = ns.get(&format!("job/{job}"))["metadata"]["uid"].clone();
    let mut task = task_run(id, &[("task.md", "do it")]);
    task["metadata"]["annotations"] = json!({ADOPTS: format!("{job}/{}", uid.as_str().expect("a uid"))});
    task
}

#[test]
fn odd_annotations_are_refused_or_told_and_hold_up_nothing() {
    let ns = Cluster::shared().namespace(&json!({}));
    for (id, text) in (1..).zip(["", "/uid", "..", "?watch=true&x=", "%2e%2e%2fpods", "x/ in ("]) {
        let mut odd = task_run(id, &[("task.md", "do it")]);
        odd["metadata"]["annotations"] = json!({ADOPTS: text});
        let refused = ns.create(&odd).refused();
        assert!(refused.contains("must be NAME/UID of a Job"), "{text:?}: {refused}");
        // nobody asks the webhook about an annotation that comes later
        odd["metadata"]["annotations"] = json!({});
        odd["spec"]["suspend"] = json!(true);
        ns.create(&odd).ok();
        let name = format!("taskrun/task-{id}");
        ns.merge(&name, &json!({"metadata": {"annotations": {ADOPTS: text}}, "spec": {"suspend": false}})).ok();
        ns.wait(&name, "told", |task| task["status"]["message"].to_string().contains(ADOPTS));
        ns.kubectl(&["delete", &name, "--timeout=20s"]).ok();
    }
}

#[test]
fn no_agent_starts_beside_a_job_that_helm_made_again() {
    let ns = Cluster::shared().namespace(&json!({"kwok.test/run-for": "until-told"}));
    create_claim(&ns, "shared-workspace");
    ns.create(&agent("claude-agent-1", &json!({"kwok.test/run-for": "100ms"}))).ok();
    let release = start_agent(&ns, Helm::V3, "7");
    migrate(&ns, &["--apply"]);
    ns.wait_phase("taskrun/task-7", 1, "Running");
    let job = format!("job/{release}-claude-code");
    ns.kubectl(&["delete", &job]).ok();
    ns.wait("pods", "gone", |_| pods_of(&ns, "7").is_empty());
    Helm::V3.upgrade(&ns, &release, &values(&json!("7"), "svc", &json!({"kwok.test/run-for": "until-told"}))).ok();
    ns.wait("pods", "running", |_| pods_of(&ns, "7").iter().any(|pod| pod["status"]["phase"] == "Running"));
    ns.merge("taskrun/task-7", &json!({"spec": {"markdownFiles": markdown(&[("task.md", "more")])}})).ok();
    ns.wait("taskrun/task-7", "waiting", |task| {
        task["status"]["message"].to_string().contains("is not this TaskRun's")
    });
    assert_eq!(ns.list("jobs").len(), 1);
    assert!(migrate(&ns, &[])[&release]["reason"].to_string().contains("was installed again"));
    // uninstalled, its pod takes its time to end, and is waited for
    Helm::V3.uninstall(&ns, &release, &[]).ok();
    let helms = |pod: &Value| pod["metadata"]["labels"]["job-name"] == format!("{release}-claude-code");
    ns.wait("taskrun/task-7", "recorded", |task| task["status"]["runs"][1].is_object());
    assert!(!ns.list("pods").iter().any(helms), "version 2 was recorded before Helm's pod was gone");
    ns.wait_phase("taskrun/task-7", 2, "Succeeded");
}

#[test]
fn a_policy_that_forbids_labels_on_pods_hides_no_end_and_stops_no_cancel() {
    let cluster = Cluster::start();
    cluster.install();
    let _operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "pods"}, "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}]},
            "matchConditions": [
                {"name": "operator", "expression": "request.userInfo.username.contains('taskrun-operator')"}],
            "validations": [{"expression": "false", "message": "pods are not yours"}]}});
    ns.create(&policy).ok();
    ns.create(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "pods"}, "spec": {"policyName": "pods", "validationActions": ["Deny"]}}))
        .ok();
    let operator = "--as=system:serviceaccount:taskrun-system:taskrun-operator";
    ns.kubectl(&["run", "probe", "--image=example.test/a:1"]).ok();
    ns.wait("pod/probe", "not the operator's to label", |_| {
        !ns.kubectl(&["label", "pod", "probe", "a=b", "--overwrite", operator]).ok
    });
    for (id, name) in [(1, "ends"), (2, "cancelled")] {
        ns.create(&job(name, id)).ok();
        ns.create(&adopting(&ns, id, name)).ok();
        ns.wait_phase(&format!("taskrun/task-{id}"), 1, "Running");
    }
    ns.kubectl(&["annotate", "pods", "-l", "job-name=ends", "kwok.test/outcome=succeeded"]).ok();
    ns.merge("taskrun/task-2", &json!({"spec": {"cancel": true}})).ok();
    let outcome = |outcome: &'static str| move |task: &Value| task["status"]["runs"][0]["outcome"] == outcome;
    ns.wait("taskrun/task-1", "succeeded", outcome("Succeeded"));
    ns.wait("taskrun/task-2", "cancelled", outcome("Cancelled"));
}

/// Releases whose Jobs have ended, moved and recorded.
fn ended(ns: &Namespace<'_>, ids: &[&str]) -> Vec<String> {
    let quick = json!({"kwok.test/run-for": "100ms"});
    let releases: Vec<String> = ids.iter().map(|id| start_task(ns, Helm::V4, id, "svc", &quick)).collect();
    for release in &releases {
        ns.wait(&format!("job/{release}-claude-code"), "complete", |job| job["status"]["succeeded"] == 1);
    }
    migrate(ns, &["--apply"]);
    for id in ids {
        ns.wait_phase(&format!("taskrun/task-{id}"), 1, "Succeeded");
    }
    releases
}

#[test]
fn leaving_spares_what_is_of_others_and_tells_what_it_cannot_compare() {
    let ns = Cluster::shared().namespace(&json!({}));
    create_claim(&ns, "shared-workspace");
    ns.create(&agent("claude-agent-1", &json!({"kwok.test/run-for": "100ms"}))).ok();
    let labels = json!({"owned-by": "somebody-else"});
    ns.create(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "playbook", "labels": labels},
        "data": {"task.md": "By the book."}}))
        .ok();
    for (id, run_for) in [("31", "100ms"), ("32", "until-told")] {
        let mut values = values(&json!(id), "svc", &json!({"kwok.test/run-for": run_for}));
        values["taskConfigMapName"] = json!("playbook");
        Helm::V3.install(&ns, &format!("svc-task-{id}"), &values).ok();
    }
    let releases = ended(&ns, &["41", "42"]);
    ns.wait_phase("taskrun/task-31", 1, "Succeeded");
    // a history without place for version 1, and a file that is gone
    let cut = json!({"historyLimit": 0, "markdownFiles": markdown(&[("task.md", "other")])});
    ns.merge("taskrun/task-41", &json!({"spec": cut})).ok();
    ns.wait("taskrun/task-41", "cut", |task| {
        let runs = &task["status"]["runs"];
        runs.as_array().map(Vec::len) == Some(1) && runs[0]["contextVersion"] == 2
    });
    // the schema takes this time, and no reader does
    let odd = json!({"status": {"startTime": "9999-12-31T23:59:59Z"}}).to_string();
    ns.kubectl(&["patch", "taskrun/task-42", "--subresource=status", "--type=merge", "-p", &odd]).ok();

    let told = migrate(&ns, &["--delete-releases"]);
    let reason = |release: &str| told[release]["reason"].to_string();
    assert!(reason(&releases[0]).contains("cannot be compared any more"), "{}", told[&releases[0]]);
    assert!(reason(&releases[1]).contains("does not fit its schema"), "{}", told[&releases[1]]);
    assert_eq!(told["svc-task-31"]["action"], "deleted", "{}", told["svc-task-31"]);
    assert!(told["svc-task-31"]["notes"].to_string().contains("ConfigMap playbook is kept"));
    assert!(reason("svc-task-32").contains("its Job goes on"), "{}", told["svc-task-32"]);
    assert!(ns.find("configmap/playbook").is_some());
    assert_eq!(migrate(&ns, &["--verify"])["svc-task-32"]["action"], "verified");
}
