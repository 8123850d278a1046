//! The operator's own pods: what they may do, what becomes of them, and how they go.

use crate::agents::{Agents, TASK};
use crate::installed::{empty_or_not, node, processes};
use crate::support::{Output, build, task_run, wait_until};
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::sleep;

/// Begins once a version, unless the operator starts it twice; ends when it is told.
const COUNTED: &str = r#"
echo "$CONTEXT_VERSION" >>"$W/begun"
trap 'exit 0' TERM
while [ ! -e "$W/finish-$CONTEXT_VERSION" ]; do sleep 0.1; done
"#;

#[test]
fn the_process_is_nobody_s_and_can_write_nothing() {
    let _node = node();
    let pids = processes("/taskrun-operator");
    assert_eq!(pids.len(), 2, "two replicas");
    for pid in pids {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("its process");
        let status = read("status");
        let lines = ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"];
        for line in lines {
            assert!(status.contains(line), "{line} is not in {status}");
        }
        let mounts = read("mountinfo");
        let root = mounts.lines().find(|mount| mount.split(' ').nth(4) == Some("/")).expect("a root");
        assert!(root.split(' ').nth(5).is_some_and(|options| options.starts_with("ro,")), "{root}");
        // nothing but the executable, and what the runtime mounts
        let files =
            std::fs::read_dir(format!("/proc/{pid}/root")).expect("its root").map(|entry| entry.expect("an entry"));
        let mut files: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        files.sort_unstable();
        assert_eq!(files, ["dev", "etc", "proc", "sys", "taskrun-operator", "var"]);
    }
}

#[test]
fn replicas_that_are_killed_come_back_and_nothing_is_run_twice() {
    let node = node();
    let agents = Agents::running(&node.cluster, COUNTED);
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    wait_until("version 1 begins", || agents.read("begun") == "1\n");
    let restarts = || node.pods().iter().map(restart_count).collect::<Vec<_>>();
    let before: u64 = restarts().iter().sum();
    for pid in processes("/taskrun-operator") {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill").success());
    }
    wait_until("both are restarted", || restarts().iter().sum::<u64>() == before + 2);
    node.rolled_out();
    assert_eq!(agents.read("begun"), "1\n");
    agents.ns.merge(TASK, &json!({"spec": {"markdownFiles": [{"filename": "task.md", "content": "do more"}]}})).ok();
    wait_until("version 2 begins", || agents.read("begun") == "1\n2\n");
    agents.touch("finish-2");
    agents.ns.wait_phase(TASK, 2, "Succeeded");
    assert_eq!(agents.read("begun"), "1\n2\n");
    assert_eq!(agents.pods().len(), 1, "version 1's is gone");
}

fn restart_count(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

#[test]
fn no_write_fails_while_the_deployment_is_rolled_out_anew() {
    let node = node();
    let agents = Agents::running(&node.cluster, "exit 0");
    let task: DynamicObject = serde_json::from_value(task_run(1, &[("task.md", "do it")])).expect("an object");
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let mut writes = 0;
    std::thread::scope(|scope| {
        let rolled_out = scope.spawn(|| {
            node.operators(&["rollout", "restart", "deployment/taskrun-operator"]).ok();
            node.rolled_out();
            // the old ones serve on until their addresses are forgotten
            wait_until("the old ones end", || node.pods().len() == 2);
        });
        Runtime::new().expect("a runtime").block_on(async {
            let tasks = agents.ns.task_runs().await;
            while !rolled_out.is_finished() {
                tasks.create(&dry_run, &task).await.expect("admitted");
                writes += 1;
                sleep(Duration::from_millis(10)).await;
            }
        });
    });
    println!("{writes} writes");
    assert!(writes > 200, "{writes} writes prove little");
}

#[test]
fn what_is_uninstalled_leaves_nothing_behind_and_can_be_installed_again() {
    let mut node = node();
    let agents = Agents::running(&node.cluster, COUNTED);
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    wait_until("version 1 begins", || agents.read("begun") == "1\n");
    let namespace = agents.ns.name.clone();
    // it would wait for what is taken away next
    std::mem::forget(agents);
    node.uninstall();
    node.assert_empty();
    let pods = || node.cluster.kubectl(&["-n", &namespace, "get", "pods,jobs", "-o", "name"]).ok();
    wait_until("the agent's Job and pod are gone with its TaskRun", || pods().is_empty());
    for kind in ["namespace", "persistentvolume"] {
        node.cluster.kubectl(&["delete", kind, &namespace, "--timeout=90s"]).ok();
    }
    drop(node);
    let mut node = empty_or_not();
    node.install();
    let agents = Agents::running(&node.cluster, "exit 0");
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    agents.ns.wait_phase(TASK, 1, "Succeeded");
}

#[test]
fn helm_installs_it_upgrades_it_while_an_agent_works_and_uninstalls_it() {
    let mut node = empty_or_not();
    if node.is_installed() {
        node.uninstall();
    }
    let helm = |args: &[&str]| {
        let mut helm = node.cluster.command(build("helm").join("helm4"));
        for kind in ["CACHE", "CONFIG", "DATA"] {
            helm.env(format!("HELM_{kind}_HOME"), node.cluster.file("helm"));
        }
        helm.args(["-n", "taskrun-system", "--timeout=90s"]).args(args);
        let output = Output::of(helm, "");
        assert!(output.ok, "{}{}", output.stderr, node.operators(&["describe", "pods"]).stdout);
    };
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/chart");
    helm(&["install", "taskrun-operator", chart, "--create-namespace", "--wait"]);
    helm(&["test", "taskrun-operator"]);
    let agents = Agents::running(&node.cluster, COUNTED);
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    wait_until("version 1 begins", || agents.read("begun") == "1\n");
    helm(&["upgrade", "taskrun-operator", chart, "--wait", "--set=args={--shutdown-delay=5}"]);
    assert_eq!(agents.read("begun"), "1\n");
    agents.touch("finish-1");
    agents.ns.wait_phase(TASK, 1, "Succeeded");

    helm(&["uninstall", "taskrun-operator", "--wait"]);
    assert_eq!(processes("/taskrun-operator"), Vec::<u32>::new());
    assert!(agents.ns.find(TASK).is_some(), "TaskRuns stay");
    agents.ns.kubectl(&["delete", TASK, "--timeout=30s"]).ok();
    drop(agents);
    let crds = ["delete", "crd", "taskruns.orchestrator.io", "agents.orchestrator.io", "--timeout=30s"];
    node.cluster.kubectl(&crds).ok();
    node.cluster.kubectl(&["delete", "namespace", "taskrun-system", "--timeout=90s"]).ok();
    node.assert_empty();
}
