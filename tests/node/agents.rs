//! Agents that are shell scripts, with a workspace that the test can look into.

use crate::support::{Cluster, Namespace};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub const TASK: &str = "taskrun/task-1";

/// A namespace whose Agent runs a script in a container that is nobody's.
pub struct Agents<'a> {
    pub ns: Namespace<'a>,
    workspace: PathBuf,
}

impl<'a> Agents<'a> {
    /// The script's `$W` is the workspace, a folder of this machine.
    pub fn running(cluster: &'a Cluster, script: &str) -> Self {
        Self::running_with(cluster, script, |_| {})
    }

    /// The same, with another container.
    pub fn running_with(cluster: &'a Cluster, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("agents-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let workspace = cluster.file(&name);
        std::fs::create_dir(&workspace).expect("a folder");
        std::fs::set_permissions(&workspace, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
        cluster.kubectl(&["create", "namespace", &name]).ok();
        cluster.kubectl_on(&["create"], &volume(&name, &workspace)).ok();
        let mut agent = agent(&name, script);
        change(&mut agent["spec"]["jobTemplate"]["spec"]["template"]["spec"]);
        let ns = Namespace { cluster, name };
        ns.kubectl_on(&["create"], &agent).ok();
        Self { ns, workspace }
    }

    /// A file of the workspace; empty while it is not there.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.workspace.join(file)).unwrap_or_default()
    }

    /// A file made by the test, such as one that the agent waits for.
    pub fn touch(&self, file: &str) {
        std::fs::write(self.workspace.join(file), "").expect("a file");
    }

    /// The files of the workspace.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.workspace).expect("a folder").map(|entry| entry.expect("an entry"));
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// What the status says of the run of a version.
    pub fn run(&self, version: u64) -> Value {
        let task = self.ns.get(TASK);
        let runs = task["status"]["runs"].as_array().cloned().unwrap_or_default();
        runs.into_iter().find(|run| run["contextVersion"] == version).unwrap_or_default()
    }

    /// Pods that are there.
    pub fn pods(&self) -> Vec<Value> {
        self.ns.list("pods")
    }
}

impl Drop for Agents<'_> {
    /// One that hangs would show in a later test.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ns.cluster.kubectl(&["delete", "namespace", &self.ns.name, "--timeout=90s"]).ok();
            self.ns.cluster.kubectl(&["delete", "persistentvolume", &self.ns.name, "--timeout=90s"]).ok();
        }
    }
}

/// No provisioner runs here: the test makes the volume that the claims of the namespace's one task are bound to.
fn volume(name: &str, folder: &std::path::Path) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": folder, "type": "Directory"},
    }})
}

fn agent(volume: &str, script: &str) -> Value {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}}});
    let container = json!({
        "name": "agent", "image": "localhost/busybox:1", "command": ["sh", "-c", script],
        "env": [{"name": "W", "value": "/workspace"}],
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    });
    json!({"apiVersion": "orchestrator.io/v1", "kind": "Agent", "metadata": {"name": "agent"}, "spec": {
        "workspace": {"claimTemplate": claim},
        "jobTemplate": {"spec": {"template": {"spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }}}},
    }})
}
