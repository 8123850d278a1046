//! A control plane on which plans are run, each in a namespace of its own with its own proxy and operators.

use crate::call::ASIDE;
use crate::oracle::{Reference, acts, end_state, unrecorded};
use crate::plan::{Fault, Plan, When};
use crate::process::{Operators, Settings};
use crate::proxy::Proxy;
use crate::scenario::{Task, play};
use crate::support::{ApiWrite, Cluster, agent};
use crate::witness::Witness;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long nobody may write once a plan has settled.
const QUIET: Duration = Duration::from_secs(3);
/// How long a settled plan may take to become what a clean run ends as.
const SETTLING: Duration = Duration::from_mins(1);
/// Writes that a report lists.
const MOST_WRITES: usize = 60;
/// The operator's start, with its first lists.
const START: Duration = Duration::from_mins(1);

pub struct Bench {
    pub cluster: Cluster,
    pub admin: Client,
    pub witness: Arc<Witness>,
    /// A client without credentials.
    upstream: Client,
    kubeconfig: Value,
    folder: PathBuf,
    number: AtomicUsize,
}

impl Bench {
    /// What ships is installed, but for the webhook: the operators of many plans would each write their own address into
    /// its configurations. So tasks bring their `contextVersion`, as the schema asks for.
    pub async fn start() -> Self {
        let cluster = Cluster::start();
        cluster.install();
        let webhooks = "mutatingwebhookconfiguration,validatingwebhookconfiguration";
        cluster.kubectl(&["delete", webhooks, "taskrun-operator"]).ok();
        cluster.kubectl_on(&["create"], &lease_role()).ok();
        let token = cluster.kubectl(&["-n", "taskrun-system", "create", "token", "taskrun-operator"]).ok();
        let admin = cluster.kubectl(&["config", "view", "--raw", "-o", "json"]).ok();
        let mut kubeconfig: Value = serde_json::from_str(&admin).expect("JSON");
        kubeconfig["users"][0]["user"] = json!({});
        let upstream = client(&kubeconfig).await;
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
        let folder = std::env::temp_dir().join(format!("taskrun-faults-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
        let admin = cluster.client().await;
        let witness = Witness::start(&admin);
        Self { cluster, admin, witness, upstream, kubeconfig, folder, number: AtomicUsize::default() }
    }

    /// Runs a plan until it has settled; a clean run without a reference says what the others are held against.
    pub async fn run(&self, plan: Plan, reference: Option<&Reference>) -> Run {
        let namespace = format!("faults-{}", self.number.fetch_add(1, Ordering::SeqCst));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut kubeconfig = self.kubeconfig.clone();
        // plain http, on loopback
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        kubeconfig["clusters"][0]["cluster"] = json!({ "server": server });
        let settings = Settings {
            kubeconfig: self.folder.join(format!("{namespace}.kubeconfig")),
            log: self.folder.join(format!("{namespace}.log")),
            namespace: namespace.clone(),
        };
        std::fs::write(&settings.kubeconfig, kubeconfig.to_string()).expect("a file");
        let proxy = Proxy::new(plan.fault, self.upstream.clone(), Operators::new(settings));
        let serving = tokio::spawn(proxy.clone().serve(listener));
        let end = Reference { end: Value::Null, acts: reference.map(|clean| clean.acts.clone()).unwrap_or_default() };
        let mut run = Run { plan, namespace, proxy, serving, end, settled_at: 0, violations: vec![] };
        if let Err(violation) = self.carry_through(&mut run, reference).await {
            run.violations.push(violation);
        }
        run.settled_at = run.proxy.writes_so_far();
        run
    }

    async fn carry_through(&self, run: &mut Run, reference: Option<&Reference>) -> Result<(), String> {
        let (proxy, namespace) = (run.proxy.clone(), run.namespace.clone());
        self.prepare(&namespace).await;
        proxy.operators.start();
        timeout(START, proxy.watches_are_open()).await.map_err(|_| "the operator does not start")?;
        if let Fault::Watch(_, _, When::AtStart) = run.plan.fault {
            proxy.strike();
        }
        play(run.plan.scenario, &mut Task::new(self, &proxy, &namespace)).await?;
        proxy.calm_down().await;
        if let Some(reference) = reference {
            let is_so = |room: &_| end_state(room) == reference.end;
            let _ = timeout(SETTLING, self.witness.wait(&namespace, "settled", is_so)).await;
        }
        let by_two = run.plan.fault.is_by_two();
        if reference.is_none() || by_two {
            // the one that goes on may still carry out what it had planned long ago
            let _ = timeout(SETTLING, is_quiet(&proxy)).await;
        }
        let before = proxy.writes_so_far();
        tokio::time::sleep(QUIET).await;
        if proxy.writes_so_far() > before {
            run.violations.push(format!("{} writes after it had settled", proxy.writes_so_far() - before));
        }
        let record = proxy.record();
        let (end, acts) = self.witness.look(&namespace, |room| (end_state(room), acts(&record, room, by_two)));
        if let Some(reference) = reference {
            run.violations.extend(reference.differences(&end, &acts));
        }
        run.violations.extend(self.witness.look(&namespace, |room| room.violations.clone()));
        run.end = Reference { end, acts };
        Ok(())
    }

    /// A namespace with an Agent, whose pods run until told and take time to stop.
    async fn prepare(&self, namespace: &str) {
        create::<Namespace>(Api::all(self.admin.clone()), &json!({"metadata": {"name": namespace}})).await;
        let annotations = json!({"kwok.test/run-for": "until-told", "kwok.test/stop-after": "1500ms"});
        let agents = ApiResource::from_gvk(&GroupVersionKind::gvk("orchestrator.io", "v1", "Agent"));
        let agents: Api<DynamicObject> = Api::namespaced_with(self.admin.clone(), namespace, &agents);
        create(agents, &agent("agent", &annotations)).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), namespace);
        // pods need it; who makes it is not fast
        while accounts.get_opt("default").await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Judges what came after: runs that have waited for a while, as many as there are.
    pub fn end(&self, runs: &mut [Run]) {
        let audit = self.cluster.operator_writes();
        for run in runs {
            let later = run.proxy.writes_so_far() - run.settled_at;
            run.proxy.operators.stop();
            run.serving.abort();
            let is_of_run = |write: &&ApiWrite| write.namespace == run.namespace && !ASIDE.contains(&&*write.resource);
            let audit: Vec<&ApiWrite> = audit.iter().filter(is_of_run).collect();
            let late = (later > 0).then(|| format!("{later} writes long after it had settled"));
            let late: Vec<String> = late.into_iter().chain(unrecorded(&run.proxy.record(), &audit)).collect();
            if !late.is_empty() {
                run.violations.extend(late);
                run.tell();
            }
        }
    }

    /// What the operators said is kept where something was wrong.
    pub fn clear(self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One plan, carried through; its operators live until the end.
pub struct Run {
    pub plan: Plan,
    pub namespace: String,
    pub proxy: Arc<Proxy>,
    serving: JoinHandle<()>,
    pub end: Reference,
    settled_at: usize,
    pub violations: Vec<String>,
}

impl Run {
    /// Says what went wrong as soon as it is known.
    pub fn tell(&self) {
        if !self.violations.is_empty() {
            println!("{}", self.report());
        }
    }

    /// What went wrong, with what is needed to see why.
    pub fn report(&self) -> String {
        let writes = self.proxy.record().into_iter().enumerate().map(|(at, write)| {
            let answer = write.code.map_or("not sent".to_owned(), |code| code.to_string());
            format!("\n      {} {} {}: {answer}", at + 1, write.call.masked(), write.call.name)
        });
        let (writes, log) = (writes.take(MOST_WRITES).collect::<String>(), self.proxy.operators.log().display());
        format!("  {}: {}\n    log: {log}\n    writes:{writes}", self.plan, self.violations.join("\n    "))
    }
}

/// Waits until nothing was written for a while.
async fn is_quiet(proxy: &Proxy) {
    let mut before = usize::MAX;
    while proxy.writes_so_far() != before {
        before = proxy.writes_so_far();
        tokio::time::sleep(QUIET).await;
    }
}

/// Each plan's operators have a lease in its own namespace.
fn lease_role() -> Value {
    let (group, role) = ("rbac.authorization.k8s.io", "faults-leases");
    let version = format!("{group}/v1");
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": role}, "rules": [{
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "patch"]}]},
        {"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "namespace": "taskrun-system", "name": "taskrun-operator"}]},
    ]})
}

async fn client(kubeconfig: &Value) -> Client {
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig.clone()).expect("a kubeconfig");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("usable");
    config.default_retry = false;
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(config).expect("a client")
}

async fn create<K>(api: Api<K>, manifest: &Value)
where
    K: Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(manifest.clone()).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("created");
}
