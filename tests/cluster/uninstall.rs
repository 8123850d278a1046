//! The operator goes, and nothing of it holds anything up; a cluster starts where nothing of it runs yet.

use crate::support::{Cluster, Operator, Output, task_run};
use serde_json::json;
use std::time::Instant;

const KINDS: &str = "mutatingwebhookconfigurations,validatingwebhookconfigurations";

pub fn uninstall(cluster: &Cluster, args: &[&str]) -> Output {
    let mut command = cluster.command(env!("CARGO_BIN_EXE_taskrun-operator"));
    command.arg("uninstall").args(args);
    Output::of(command, "")
}

#[test]
fn uninstalling_leaves_nothing_that_holds_up_a_write_or_a_deletion() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "10m"}));
    for id in 1..4 {
        ns.create(&task_run(id, &[("task.md", "do it")])).ok();
    }
    ns.wait_phase("taskrun/task-1", 1, "Running");
    ns.kubectl(&["annotate", "taskrun/task-2", "a=b"]).ok();
    let others = json!({"metadata": {"finalizers": ["example.com/other", "orchestrator.io/run-cleanup"]}});
    ns.merge("taskrun/task-3", &others).ok();

    let refused = uninstall(&cluster, &["--timeout=2"]).refused();
    assert!(refused.contains("an operator still runs") && refused.contains("delete deployment"), "{refused}");
    assert_eq!(cluster.kubectl(&["get", KINDS, "-o", "name"]).ok().lines().count(), 2, "nothing was taken away");

    let refused = uninstall(&cluster, &["--operator-namespace=nosuch"]).refused();
    assert!(refused.contains("does not run in namespace nosuch"), "{refused}");
    assert_eq!(cluster.kubectl(&["get", KINDS, "-o", "name"]).ok().lines().count(), 2, "nothing was taken away");

    operator.signal("TERM");
    operator.wait_end();
    let told = uninstall(&cluster, &[]).ok();
    for line in [
        "mutatingwebhookconfiguration/taskrun-operator deleted",
        "validatingwebhookconfiguration/taskrun-operator deleted",
        "finalizer orchestrator.io/run-cleanup taken off 3 TaskRuns",
        "secret/taskrun-operator-tls deleted",
        "lease/taskrun-operator deleted",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    assert_eq!(cluster.kubectl(&["get", KINDS, "-o", "name"]).ok(), "");
    assert_eq!(ns.get("taskrun/task-3")["metadata"]["finalizers"], json!(["example.com/other"]));
    assert_eq!(ns.get("job/svc-1-v1")["status"]["active"], 1, "a run goes on");
    let again = uninstall(&cluster, &[]).ok();
    assert!(again.contains("taken off 0 TaskRuns") && again.contains("lease/taskrun-operator is not there"), "{again}");

    ns.merge("taskrun/task-3", &json!({"metadata": {"finalizers": null}})).ok();
    ns.kubectl(&["delete", "taskruns", "--all", "--timeout=30s"]).ok();
    cluster.kubectl(&["delete", "namespace", &ns.name, "--timeout=60s"]).ok();
    cluster.kubectl(&["delete", "namespace", "taskrun-system", "--timeout=60s"]).ok();
    uninstall(&cluster, &[]).ok();
    cluster.kubectl(&["delete", "crd", "taskruns.orchestrator.io", "agents.orchestrator.io", "--timeout=30s"]).ok();
    uninstall(&cluster, &[]).ok();
}

#[test]
fn a_cluster_starts_where_nothing_of_ours_runs_and_so_do_we() {
    let mut cluster = Cluster::start();
    cluster.install();
    // before its CRDs and configurations
    let kinds = ["crd", "mutatingwebhookconfiguration", "validatingwebhookconfiguration"];
    let gone = ["taskruns.orchestrator.io", "taskrun-operator", "taskrun-operator"];
    for (kind, name) in kinds.iter().zip(gone) {
        cluster.kubectl(&["delete", kind, name]).ok();
    }
    let operator = Operator::launch(&cluster, &[]);
    cluster.install();
    operator.wait_ready();
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "1s"}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-1", 1, "Succeeded");
    let (name, addresses) = (ns.name, [operator.webhook(), operator.admin()]);

    // all of it at once, as where the only node loses power
    operator.kill();
    drop(operator);
    cluster.restart();
    cluster.kubectl(&["create", "namespace", "other"]).ok();
    cluster.kubectl(&["create", "configmap", "other"]).ok();
    cluster.kubectl(&["run", "other", "--image=other"]).ok();
    let task = task_run(2, &[("task.md", "do it")]);
    let create = || cluster.kubectl_on(&["create", "-n", &name], &task);
    assert!(create().refused().contains("failed calling webhook"), "it fails closed");
    let started = Instant::now();
    let operator = Operator::launch_at(&cluster, addresses, &[]);
    operator.wait_ready();
    println!("ready {:.1} s after its start on a cluster that has just started", started.elapsed().as_secs_f64());
    create().ok();
    let done = ["wait", "-n", &name, "taskrun/task-2", "--for=condition=Complete", "--timeout=60s"];
    cluster.kubectl(&done).ok();
}
