//! The operator's options.

use crate::support::{Cluster, Operator, agent, task_run};
use serde_json::{Value, json};

/// A task of a service that numbers its tasks apart.
fn by_service(service: &str, id: u32) -> Value {
    let mut task = task_run(id, &[("task.md", "do it")]);
    task["metadata"]["name"] = json!(format!("{service}-task-{id}"));
    task["spec"]["serviceName"] = json!(service);
    task["spec"]["agentName"] = json!("nobody");
    task
}

#[test]
fn options_choose_namespaces_names_and_the_default_agent() {
    let cluster = Cluster::start();
    cluster.install();
    let (ours, other) = (cluster.namespace(&json!({})), cluster.namespace(&json!({})));
    let watched = format!("--namespace={}", ours.name);
    let operator = Operator::start(&cluster, &[&watched, "--task-names=by-service", "--default-agent=agent"]);

    let refused = ours.create(&task_run(7, &[("task.md", "do it")])).refused();
    assert!(refused.contains("metadata.name: must be \"svc-task-7\""), "{refused}");
    other.create(&by_service("billing", 7)).ok();
    for service in ["auth", "billing"] {
        ours.create(&by_service(service, 7)).ok();
        ours.wait_phase(&format!("taskrun/{service}-task-7"), 1, "Succeeded");
    }
    // its own agent is taken as soon as there is one
    ours.create(&agent("nobody", &json!({"kwok.test/outcome": "failed"}))).ok();
    ours.create(&by_service("auth", 8)).ok();
    ours.wait_phase("taskrun/auth-task-8", 1, "Failed");
    assert_eq!(other.get("taskrun/billing-task-7")["status"], Value::Null, "its namespace is not ours");

    // names are for all of an installation
    drop(operator);
    let operator = Operator::launch(&cluster, &[]);
    let log = operator.wait_end();
    assert!(log.contains("is not named by --task-names=by-id") && log.contains("auth-task-7"), "{log}");
}
