//! Admission without an outage: replicas behind their Service, as in a cluster, on addresses that are not loopback.
//!
//! The test plays the kubelet and the endpoint slice controller; the API server finds the webhook by the Service that
//! ships. What it calls must be there whatever is restarted, left idle or renewed: no write may fail.

mod endpoints;
mod heard;
mod line;
mod load;
mod network;
mod pool;
mod rotation;
#[path = "../cluster/support.rs"]
#[expect(dead_code, reason = "the tests in tests/cluster use all of it")]
mod support;

use crate::support::{Cluster, Operator};
use endpoints::Endpoints;
use load::Load;
use serde_json::json;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Replicas that are restarted, one that is not, and a server that only listens.
const REPLICAS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];
const QUIET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
const LISTENER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
/// Content of TaskRuns in other namespaces is judged all the same, and nothing is run.
const ARGS: &[&str] = &["--namespace=taskrun-system", "--shutdown-delay=10"];
/// The same, with certificates that are renewed every 16 s.
const ROTATING: &[&str] = &["--namespace=taskrun-system", "--shutdown-delay=10", "--cert-lifetime=24s"];
const ROTATIONS: usize = 3;
const MINUTE: Duration = Duration::from_mins(1);
/// Writes a second.
const RATE: u32 = 200;
const WRITES: usize = 10_000;

/// Restarts, idle connections and new certificates, in one cluster.
#[test]
fn no_write_fails_whatever_the_webhook_goes_through() {
    let addresses = [REPLICAS[0], REPLICAS[1], QUIET, LISTENER];
    network::in_namespace("no_write_fails_whatever_the_webhook_goes_through", &addresses, || {
        go_through_all(&Runtime::new().expect("a runtime"));
    });
}

fn go_through_all(runtime: &Runtime) {
    let cluster = Cluster::start_with(&[
        "--enable-aggregator-routing=true",
        // as before 1.37: a connection is used as long as it is there, whatever becomes of the endpoint
        "--feature-gates=WebhookRoundTripLoadBalancing=false",
    ]);
    cluster.install();
    heard::assert_called_as_in_clusters(&cluster, (LISTENER, 9443).into());
    let client = runtime.block_on(cluster.client());
    let endpoints = runtime.block_on(async { Endpoints::start(client.clone(), "webhook") });
    let launch = |ip| Operator::launch_at(&cluster, [(ip, 9443), (ip, 8080)].map(SocketAddr::from), ARGS);
    let mut replicas: VecDeque<Operator> = REPLICAS.map(launch).into();
    for replica in &replicas {
        runtime.block_on(endpoints.started(replica.webhook(), replica.admin()));
    }
    let quiet = launch(QUIET);
    quiet.wait_ready();
    let trusting = line::trusting(&runtime.block_on(rotation::fetch_bundles(&client))[0]);

    std::thread::scope(|scope| {
        let swept = scope.spawn(|| line::sweep(quiet.webhook(), &trusting));
        let pool = scope.spawn(|| runtime.block_on(pool::leave_idle(&cluster, &quiet)));
        let restarted = runtime.block_on(restart_all(&cluster, &endpoints, &mut replicas));
        assert_none("while replicas are restarted", &restarted);
        assert_none("through the API server's pool", &pool.join().expect("no panic"));
        assert_none("over idle connections", &swept.join().expect("no panic"));
    });
    // one that leads would renew certificates by its own lifetime
    quiet.signal("TERM");
    quiet.wait_end();
    let rotated = runtime.block_on(rotate(&cluster, &endpoints, replicas));
    assert_none("while certificates are renewed", &rotated);
}

/// Restarts one after the other, again and again, until so many writes were made; returns what failed.
async fn restart_all(cluster: &Cluster, endpoints: &Endpoints, replicas: &mut VecDeque<Operator>) -> Vec<String> {
    let load = Load::start(&cluster.namespace(&json!({})), RATE).await;
    let (started, mut restarts) = (Instant::now(), 0);
    while load.made() < WRITES {
        assert!(started.elapsed() < 3 * MINUTE, "only {} writes", load.made());
        let replica = replicas.pop_front().expect("a replica");
        replicas.push_back(restart(replica, endpoints, ARGS).await);
        restarts += 1;
    }
    println!("{restarts} restarts");
    load.finish().await
}

async fn restart(replica: Operator, endpoints: &Endpoints, args: &[&str]) -> Operator {
    replica.signal("TERM");
    endpoints.terminating(replica.webhook()).await;
    replica.wait_end();
    let replica = replica.restart(args);
    endpoints.started(replica.webhook(), replica.admin()).await;
    replica
}

/// Has the certificate replaced some times within a minute; returns which writes failed.
async fn rotate(cluster: &Cluster, endpoints: &Endpoints, replicas: VecDeque<Operator>) -> Vec<String> {
    let load = Load::start(&cluster.namespace(&json!({})), RATE).await;
    let mut rotating = vec![];
    for replica in replicas {
        rotating.push(restart(replica, endpoints, ROTATING).await);
    }
    // which asks for a new one: the present one is good for months
    cluster.kubectl(&["-n", "taskrun-system", "delete", "secret", "taskrun-operator-tls"]).ok();
    let addresses: Vec<SocketAddr> = rotating.iter().map(Operator::webhook).collect();
    rotation::follow(cluster, &addresses, ROTATIONS, MINUTE).await;
    load.finish().await
}

/// Says the first of them, not thousands.
#[track_caller]
fn assert_none(when: &str, failures: &[String]) {
    assert!(failures.is_empty(), "{} failed {when}: {:#?}", failures.len(), &failures[..failures.len().min(20)]);
}
