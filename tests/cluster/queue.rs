//! Runs that wait in a Kueue queue. Kueue itself is played by the test: what it does to a Job and to a
//! Workload is a patch of each.

use crate::reconcile::{TASK, condition_reason, until_told};
use crate::support::{Cluster, Namespace, task_run};
use serde_json::{Value, json};

/// Kueue's kind, with no more of a schema than is read or written here.
pub fn install_workloads(cluster: &Cluster) {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "workloads.kueue.x-k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "kueue.x-k8s.io", "scope": "Namespaced",
            "names": {"kind": "Workload", "listKind": "WorkloadList", "plural": "workloads", "singular": "workload"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    });
    cluster.kubectl_on(&["apply", "--server-side"], &crd).ok();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/workloads.kueue.x-k8s.io", "--timeout=30s"]).ok();
}

/// Kueue makes a Workload of the Job.
pub fn create_workload(ns: &Namespace<'_>, job: &Value) {
    let workload = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload",
        "metadata": {"name": "job-svc-1-v1", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
        "spec": {"queueName": "gpu", "active": true},
    });
    ns.create(&workload).ok();
}

pub fn is_active(workload: &Value) -> bool {
    workload["spec"]["active"] == true
}

#[test]
fn a_queued_run_starts_when_kueue_says_so_and_is_suspended_through_it() {
    install_workloads(Cluster::shared());
    let ns = until_told();
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "gpu"});
    ns.create(&task).ok();
    let is_queued = |task: &Value| task["status"].is_object() && condition_reason(task, "Reconciling") == "Queued";
    let task = ns.wait(TASK, "queued", is_queued);
    assert_eq!(task["status"]["message"], "Job svc-1-v1 waits in queue gpu");
    let job = ns.get("job/svc-1-v1");
    assert_eq!(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "gpu");
    assert_eq!((&job["spec"]["suspend"], ns.list("pods").len()), (&json!(true), 0));
    assert_eq!(job["spec"]["template"]["spec"]["schedulingGates"], Value::Null);
    create_workload(&ns, &job);

    ns.merge("job/svc-1-v1", &json!({"spec": {"suspend": false}})).ok();
    ns.wait_phase(TASK, 1, "Running");
    ns.merge(TASK, &json!({"spec": {"suspend": true}})).ok();
    ns.wait("workload/job-svc-1-v1", "inactive", |workload| !is_active(workload));
    assert_eq!(ns.get("job/svc-1-v1")["spec"]["suspend"], false, "that is Kueue's to do");
    ns.merge("job/svc-1-v1", &json!({"spec": {"suspend": true}})).ok();
    ns.wait(TASK, "suspended", |task| condition_reason(task, "Suspended") == "Suspended");
    ns.merge(TASK, &json!({"spec": {"suspend": false}})).ok();
    ns.wait("workload/job-svc-1-v1", "active", is_active);
    ns.wait(TASK, "queued", is_queued);
    ns.merge("job/svc-1-v1", &json!({"spec": {"suspend": false}})).ok();
    let task = ns.wait_phase(TASK, 1, "Running");
    assert_eq!(task["status"]["runs"].as_array().map(Vec::len), Some(1));
}
