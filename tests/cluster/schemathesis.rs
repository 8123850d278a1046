//! The PM API against its own description, by schemathesis: whatever is sent, the answer is one that was promised.
//!
//! What is asked and which checks are on: `tests/schemathesis/schemathesis.toml`. For more than `make test` does:
//! `SCHEMATHESIS="--max-examples 1000 --seed 2" cargo test --test cluster schemathesis -- --nocapture`.

use crate::support::{Cluster, Namespace, Operator, agent, free_port, task_run};
use serde_json::json;
use std::process::{Command, Stdio};

/// The same requests each time, as far as the answers are the same.
const SEED: &str = "--seed=1";

#[test]
fn the_api_answers_as_its_description_says() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "200ms"}));
    let (port, namespace) = (free_port(), format!("--api-namespace={}", ns.name));
    let address = format!("--api-addr=127.0.0.1:{port}");
    let args = [address.as_str(), "--api-plain-http", &namespace, "--api-rate-limit=100000"];
    let _operator = Operator::start(&cluster, &args);
    create_tasks(&ns);

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis");
    let build = Command::new("./build.sh").current_dir(folder).stderr(Stdio::inherit()).output();
    let build = build.expect("tests/schemathesis/build.sh is there");
    assert!(build.status.success(), "schemathesis could not be installed");
    let installed = String::from_utf8(build.stdout).expect("a path");
    let run = Command::new(format!("{}/bin/python", installed.trim()))
        .args(["-m", "schemathesis.cli", "run", &format!("http://127.0.0.1:{port}/api/v1/openapi.json"), SEED])
        .args(more().split_whitespace())
        .current_dir(folder)
        .env("TASKRUN_TOKEN", ns.user("fuzzer", &[("*", "taskruns.orchestrator.io,pods,pods/log,configmaps,events")]))
        .env("HYPOTHESIS_STORAGE_DIRECTORY", format!("{}/hypothesis", installed.trim()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("it starts");
    let report = String::from_utf8_lossy(&run.stdout);
    println!("{report}");
    assert!(run.status.success(), "an answer is not as described: {}", String::from_utf8_lossy(&run.stderr));
}

/// More arguments.
#[expect(clippy::disallowed_methods, reason = "cargo hands a test nothing else")]
fn more() -> String {
    std::env::var("SCHEMATHESIS").unwrap_or_default()
}

/// Tasks 1 to 6 in all states; 7 to 9 may be deleted.
fn create_tasks(ns: &Namespace<'_>) {
    ns.create(&agent("endless", &json!({"kwok.test/run-for": "until-told"}))).ok();
    ns.create(&agent("failing", &json!({"kwok.test/outcome": "failed", "kwok.test/run-for": "200ms"}))).ok();
    let agents = ["agent", "endless", "failing", "nobody", "endless", "endless", "agent", "endless", "nobody"];
    for (id, agent) in (1..).zip(agents) {
        let mut task = task_run(id, &[("task.md", "do it")]);
        task["spec"]["agentName"] = json!(agent);
        task["spec"]["historyLimit"] = json!(100);
        ns.create(&task).ok();
    }
    ns.merge("taskrun/task-5", &json!({"spec": {"suspend": true}})).ok();
    ns.merge("taskrun/task-6", &json!({"spec": {"cancel": true}})).ok();
    ns.wait_phase("taskrun/task-1", 1, "Succeeded");
    ns.merge("taskrun/task-1", &json!({"spec": {"contextVersion": 2}})).ok();
    ns.wait_phase("taskrun/task-1", 2, "Succeeded");
    ns.wait_phase("taskrun/task-2", 1, "Running");
    ns.wait_phase("taskrun/task-3", 1, "Failed");
}
