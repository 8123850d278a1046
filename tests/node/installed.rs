//! The node, and the ways to install the operator on it, as README and docs/operations.md have them.

use crate::support::{Cluster, Output};
use serde_json::Value;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// The label that everything of the operator has.
const OURS: &str = "app.kubernetes.io/name=taskrun-operator";
const CLUSTER_WIDE: &str = "mutatingwebhookconfigurations,validatingwebhookconfigurations,customresourcedefinitions,\
    clusterroles,clusterrolebindings,priorityclasses";

pub struct Node {
    pub cluster: Cluster,
    is_installed: bool,
}

/// The node, with the operator on it.
pub fn node() -> MutexGuard<'static, Node> {
    let mut node = empty_or_not();
    if !node.is_installed {
        node.install();
    }
    node
}

/// The node as the test before has left it.
pub fn empty_or_not() -> MutexGuard<'static, Node> {
    static NODE: LazyLock<Mutex<Node>> = LazyLock::new(|| Mutex::new(Node::start()));
    // a test that failed has left a node all the same
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    #[expect(clippy::disallowed_methods, reason = "run.sh hands it to this binary")]
    fn start() -> Self {
        let given = |name| {
            let value = std::env::var(name).unwrap_or_default();
            assert!(!value.is_empty(), "{name} is not set: tests/node/run.sh runs this");
            value
        };
        let cluster = Cluster::start_in(
            "node",
            &[
                format!("--node={}", given("TASKRUN_TEST_NODE_CGROUP")),
                format!("--image={}", given("TASKRUN_TEST_NODE_IMAGE")),
            ],
        );
        Self { cluster, is_installed: false }
    }

    pub fn is_installed(&self) -> bool {
        self.is_installed
    }

    /// `kubectl apply -k deploy/`, as it ships, until each replica is ready: the API server trusts what it serves.
    pub fn install(&mut self) {
        self.cluster.install();
        self.rolled_out();
        self.is_installed = true;
    }

    pub fn rolled_out(&self) {
        let rollout = ["rollout", "status", "deployment/taskrun-operator", "--timeout=90s"];
        let status = self.operators(&rollout);
        assert!(status.ok, "{}{}", status.stderr, self.operators(&["describe", "pods"]).stdout);
    }

    /// As docs/operations.md has it.
    pub fn uninstall(&mut self) {
        self.is_installed = false;
        self.operators(&["delete", "deployment", "taskrun-operator", "--cascade=foreground", "--timeout=90s"]).ok();
        let mut uninstall = self.cluster.command(env!("CARGO_BIN_EXE_taskrun-operator"));
        uninstall.arg("uninstall");
        Output::of(uninstall, "").ok();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
        self.cluster.kubectl(&["delete", "-k", folder, "--ignore-not-found", "--timeout=90s"]).ok();
    }

    /// Nothing of the operator is left in the cluster, and no process of it on the node.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.cluster.kubectl(&["get", CLUSTER_WIDE, "-l", OURS, "-o", "name"]).ok(), "");
        let crds = self.cluster.kubectl(&["get", "customresourcedefinitions", "-o", "name"]).ok();
        assert!(!crds.contains("orchestrator.io"), "{crds}");
        let namespace = ["get", "namespace", "taskrun-system", "--ignore-not-found", "-o", "name"];
        assert_eq!(self.cluster.kubectl(&namespace).ok(), "");
        assert_eq!(processes("/taskrun-operator"), Vec::<u32>::new());
    }

    /// kubectl in the operator's namespace.
    pub fn operators(&self, args: &[&str]) -> Output {
        self.cluster.kubectl(&[&["-n", "taskrun-system"], args].concat())
    }

    /// The operator's pods.
    pub fn pods(&self) -> Vec<Value> {
        let pods = self.operators(&["get", "pods", "-l", OURS, "-o", "json"]).ok();
        let pods: Value = serde_json::from_str(&pods).expect("JSON");
        pods["items"].as_array().cloned().expect("items")
    }
}

/// The processes in all containers whose program has this path in there.
pub fn processes(program: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // the launcher's own are not in a container: their programs have other paths
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.as_os_str() == program))
        .collect()
}
