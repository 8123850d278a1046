//! Plays the kubelet's readiness probes and the endpoint slice controller for the operator's Service.

use crate::support::{PATIENCE, get};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often a replica is asked whether it is ready.
const PERIOD: Duration = Duration::from_secs(1);
/// The longest that a replica may take to say so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than any test.
const MOST_PROBES: u32 = 1200;

/// Where the API server finds the webhook: `EndpointSlice`s whose conditions are kept true while this lives.
pub struct Endpoints {
    shared: Arc<Shared>,
    probing: JoinHandle<()>,
}

struct Shared {
    slices: Api<EndpointSlice>,
    /// The Service's port for which these are.
    port: &'static str,
    /// Replicas by where their webhooks listen.
    replicas: Mutex<BTreeMap<SocketAddr, Replica>>,
    writing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct Replica {
    admin: SocketAddr,
    is_ready: bool,
    is_terminating: bool,
}

impl Endpoints {
    /// For a port of the Service.
    pub fn start(client: Client, port: &'static str) -> Self {
        let shared = Arc::new(Shared {
            slices: Api::namespaced(client, "taskrun-system"),
            port,
            replicas: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        });
        let probing = tokio::spawn(shared.clone().probe());
        Self { shared, probing }
    }

    /// A replica was started; returns when it is among the ready ones.
    pub async fn started(&self, webhook: SocketAddr, admin: SocketAddr) {
        let replica = Replica { admin, is_ready: false, is_terminating: false };
        self.shared.replicas.lock().expect("no panic").insert(webhook, replica);
        self.shared.write().await;
        let started = Instant::now();
        while !self.shared.replicas.lock().expect("no panic")[&webhook].is_ready {
            assert!(started.elapsed() < PATIENCE, "{webhook} is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A replica is told to end: it is taken out before it can say so by itself, as where its pod is deleted.
    pub async fn terminating(&self, webhook: SocketAddr) {
        if let Some(replica) = self.shared.replicas.lock().expect("no panic").get_mut(&webhook) {
            replica.is_terminating = true;
        }
        self.shared.write().await;
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.probing.abort();
    }
}

impl Shared {
    async fn probe(self: Arc<Self>) {
        for _ in 0..MOST_PROBES {
            let replicas = self.replicas.lock().expect("no panic").clone();
            let mut has_changed = false;
            for (webhook, replica) in replicas {
                let answer = tokio::task::spawn_blocking(move || get(replica.admin, "/readyz"));
                let answer = tokio::time::timeout(PROBE_TIMEOUT, answer).await;
                let answer = answer.ok().and_then(Result::ok).flatten().unwrap_or_default();
                let is_ready = answer.starts_with("HTTP/1.1 200");
                if let Some(replica) = self.replicas.lock().expect("no panic").get_mut(&webhook) {
                    has_changed |= replica.is_ready != is_ready;
                    replica.is_ready = is_ready;
                }
            }
            if has_changed {
                self.write().await;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn write(&self) {
        let _one_at_a_time = self.writing.lock().await;
        let replicas = self.replicas.lock().expect("no panic").clone();
        let endpoints: Vec<_> = replicas
            .iter()
            .map(|(webhook, replica)| {
                let (serving, terminating) = (replica.is_ready, replica.is_terminating);
                let ready = serving && !terminating;
                let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
                json!({"addresses": [webhook.ip()], "conditions": conditions})
            })
            .collect();
        let name = format!("taskrun-operator-{}", self.port);
        let slice = slice(&name, self.port, &endpoints);
        let params = PatchParams::apply("endpoint-slice-controller").force();
        self.slices.patch(&name, &params, &Patch::Apply(slice)).await.expect("an EndpointSlice is written");
    }
}

/// An `EndpointSlice` of the operator's Service.
pub fn slice(name: &str, port: &str, endpoints: &[Value]) -> Value {
    let labels = json!({"kubernetes.io/service-name": "taskrun-operator"});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "taskrun-system", "labels": labels},
        "ports": [{"name": port, "port": 9443, "protocol": "TCP"}], "endpoints": endpoints,
    })
}
