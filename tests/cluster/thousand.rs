//! A thousand tasks, a tenth of which fail, while the operator is killed every five seconds.

use crate::restart::{Seen, judge_writes};
use crate::support::{ApiWrite, Cluster, Namespace, Operator, agent, markdown, task_run};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TASKS: u32 = 1_000;
/// Every so many tasks one fails.
const FAILS: u32 = 10;
/// Every so many tasks one gets more context while it may be running.
const GROWS: u32 = 5;
const KILL_EVERY: Duration = Duration::from_secs(5);
/// The longest that all of it may take: nothing here is a measure of speed.
const PATIENCE: Duration = Duration::from_mins(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_end_right_though_the_operator_is_killed_every_five_seconds() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "2s", "kwok.test/stop-after": "1s"}));
    ns.create(&agent("failing", &json!({"kwok.test/run-for": "2s", "kwok.test/outcome": "failed"}))).ok();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, &ns.name);
    let watching = tokio::spawn(Seen::watch(seen.clone(), pods));

    let (api, started) = (ns.task_runs().await, Instant::now());
    let ((), (operator, kills)) = futures::join!(submit(&api), kill_until_settled(operator, &api));
    println!("{TASKS} tasks ended in {:?}, {kills} kills", started.elapsed());
    watching.abort();
    for task in api.list(&ListParams::default()).await.expect("a list") {
        judge(&task);
    }
    seen.lock().expect("no panic").judge();
    judge_writes(&cluster);
    a_restart_costs_nothing(&cluster, &ns, operator);
}

fn fails(id: u32) -> bool {
    id.is_multiple_of(FAILS)
}

fn grows(id: u32) -> bool {
    id % GROWS == 1
}

/// Creates the tasks and adds context to some.
async fn submit(api: &Api<DynamicObject>) {
    let live = async |id: u32| {
        let mut task = task_run(id, &[("task.md", "do it")]);
        if fails(id) {
            task["spec"]["agentName"] = json!("failing");
        }
        let task: DynamicObject = serde_json::from_value(task).expect("an object");
        let params = PostParams::default();
        until_taken(|| api.create(&params, &task)).await;
        if grows(id) {
            let patch = Patch::Merge(json!({"spec": {"markdownFiles": markdown(&[("task.md", "do more")])}}));
            let (name, params) = (format!("task-{id}"), PatchParams::default());
            until_taken(|| api.patch(&name, &params, &patch)).await;
        }
    };
    stream::iter(1..=TASKS).for_each_concurrent(8, live).await;
}

/// The webhook goes and comes with the operator: what it could not admit is tried again.
async fn until_taken<F>(write: impl Fn() -> F)
where
    F: Future<Output = Result<DynamicObject, kube::Error>>,
{
    let started = Instant::now();
    while let Err(error) = write().await {
        if matches!(&error, kube::Error::Api(status) if status.code == 409) {
            break; // made by an attempt whose answer was lost
        }
        assert!(started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn kill_until_settled(mut operator: Operator, api: &Api<DynamicObject>) -> (Operator, u32) {
    let (started, mut kills) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(KILL_EVERY).await;
        let tasks = api.list(&ListParams::default()).await.expect("a list").items;
        let settled = tasks.iter().filter(|task| is_settled(task)).count();
        if settled == TASKS as usize {
            return (operator, kills);
        }
        assert!(started.elapsed() < PATIENCE, "{settled} of {} have ended", tasks.len());
        operator.kill();
        operator = operator.restart(&[]);
        kills += 1;
    }
}

fn version(task: &DynamicObject) -> u64 {
    let id = task.data["spec"]["taskId"].as_u64().expect("a number");
    1 + u64::from(grows(u32::try_from(id).expect("a small one")))
}

fn is_settled(task: &DynamicObject) -> bool {
    let is_over = ["Succeeded", "Failed"].iter().any(|phase| task.data["status"]["phase"] == *phase);
    is_over && task.data["status"]["contextVersion"] == version(task)
}

fn judge(task: &DynamicObject) {
    let (spec, status) = (&task.data["spec"], &task.data["status"]);
    let expected = if spec["agentName"] == "failing" { "Failed" } else { "Succeeded" };
    assert_eq!(status["phase"], expected, "{status}");
    let runs = status["runs"].as_array().expect("runs");
    assert_eq!(runs.len() as u64, version(task), "{runs:?}");
    let is_known = |run: &Value| run["outcome"].is_string() && run["outcome"] != "Unknown";
    assert!(runs.iter().all(is_known), "{runs:?}");
}

/// Neither a restart nor a change that is none of its business makes the operator write a settled task.
fn a_restart_costs_nothing(cluster: &Cluster, ns: &Namespace<'_>, operator: Operator) {
    let before = cluster.operator_writes().len();
    let operator = operator.restart(&[]);
    operator.wait_ready();
    ns.kubectl(&["annotate", "taskrun", "--all", "note=a"]).ok();
    let (id, name) = (TASKS + 1, format!("taskrun/task-{}", TASKS + 1));
    ns.create(&task_run(id, &[("task.md", "do it")])).ok();
    ns.wait_phase(&name, 1, "Succeeded");
    let after = cluster.operator_writes().split_off(before);
    let is_settled = |write: &&ApiWrite| write.namespace == ns.name && !write.name.contains(&id.to_string());
    let of_settled: Vec<&ApiWrite> = after.iter().filter(is_settled).collect();
    assert!(of_settled.is_empty(), "{of_settled:?}");
}
