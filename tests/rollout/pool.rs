//! The API server's own pool of connections, left idle: by webhooks that only the writes of one namespace call.

use super::endpoints::Endpoints;
use crate::support::{Cluster, Namespace, Operator, markdown, task_run};
use futures::future::join_all;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// Writes at once: more than the connections that the API server keeps idle, 25.
const WRITERS: u32 = 40;
/// Connections that are idle then, at least.
const LEAST: usize = 12;
/// Seconds for which the pool is left alone. 5 s: a server's usual limit for the first request; 90 s: the API server's
/// own for an idle connection.
const IDLE: [u64; 4] = [5, 5, 20, 90];
/// Half of the time over which the writes after it are spread.
const SPREAD: Duration = Duration::from_millis(250);

/// Writes over connections that were idle; returns what failed.
pub async fn leave_idle(cluster: &Cluster, replica: &Operator) -> Vec<String> {
    let endpoints = Endpoints::start(cluster.client().await, "idle");
    endpoints.started(replica.webhook(), replica.admin()).await;
    let ns = cluster.namespace(&json!({}));
    for id in 1..=WRITERS {
        let mut task = task_run(id, &[("task.md", "begin")]);
        task["spec"]["suspend"] = json!(true);
        ns.create_task_run(&task).await;
    }
    call_for(cluster, &ns);
    let mut failures = write_all(&ns.task_runs().await, "first", Duration::ZERO).await;
    let open = connections(replica.webhook());
    assert!(open >= LEAST, "the pool has {open} connections");
    for (round, idle) in IDLE.map(Duration::from_secs).into_iter().enumerate() {
        tokio::time::sleep(idle.saturating_sub(SPREAD)).await;
        // the API server closes idle connections of its own clients after 90 s, too: this one has none yet
        let api = ns.task_runs().await;
        let failed = write_all(&api, &format!("round {round}"), SPREAD * 2).await;
        failures.extend(failed.into_iter().map(|failed| format!("after {idle:?}: {failed}")));
        failures.extend(write_all(&api, &format!("again {round}"), Duration::ZERO).await);
    }
    println!(
        "{} writes over connections of the pool that were idle; {} failed",
        WRITERS as usize * (1 + 2 * IDLE.len()),
        failures.len()
    );
    failures
}

/// Has the same webhooks called once more for this namespace, at a port of the Service that only one replica has: so
/// they have connections of their own.
fn call_for(cluster: &Cluster, ns: &Namespace<'_>) {
    let port = json!({"spec": {"ports": [{"name": "idle", "port": 444, "targetPort": 9443}]}}).to_string();
    cluster.kubectl(&["-n", "taskrun-system", "patch", "service", "taskrun-operator", "-p", &port]).ok();
    let kind = "validatingwebhookconfiguration";
    let shipped = cluster.kubectl(&["get", kind, "taskrun-operator", "-o", "json"]).ok();
    let mut idle: Value = serde_json::from_str(&shipped).expect("JSON");
    idle["metadata"] = json!({"name": "idle"});
    idle["webhooks"][0]["clientConfig"]["service"]["port"] = json!(444);
    idle["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": ns.name}});
    cluster.kubectl_on(&["create"], &idle).ok();
}

/// Connections of this network namespace to an address, by their callers.
fn connections(to: SocketAddr) -> usize {
    let SocketAddr::V4(to) = to else { return 0 };
    let to = format!("{:08X}:{:04X}", u32::from_ne_bytes(to.ip().octets()), to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    // after a number come the local address, the remote one and the state, of which 01 is established
    let is_one = |line: &&str| line.split_whitespace().skip(2).take(2).eq([to.as_str(), "01"]);
    table.lines().filter(is_one).count()
}

/// One write of each object, each at a random time within this; returns what failed.
async fn write_all(api: &Api<DynamicObject>, text: &str, within: Duration) -> Vec<String> {
    let writes = (1..=WRITERS).map(|id| async move {
        tokio::time::sleep(within.mul_f64(fastrand::f64())).await;
        let patch = json!({"spec": {"markdownFiles": markdown(&[("task.md", text)])}});
        api.patch(&format!("task-{id}"), &PatchParams::default(), &Patch::Merge(patch)).await.err()
    });
    join_all(writes).await.into_iter().flatten().map(|error| error.to_string()).collect()
}
