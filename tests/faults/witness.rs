//! An independent witness: it watches the API server by itself, not through the proxy, keeps what it sees by namespace,
//! and notes each moment at which a law of the run protocol is broken.

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The longest that anything is waited for: a dead watch is given up after 55 s, and a minute is the longest backoff.
pub const PATIENCE: Duration = Duration::from_secs(150);
const GATE: &str = "orchestrator.io/release";
const TASK_RUN_UID: &str = "orchestrator.io/task-run-uid";

/// What is seen in one namespace: it has one task.
#[derive(Default)]
pub struct Room {
    /// By kind and name.
    objects: BTreeMap<(&'static str, String), Value>,
    /// The Jobs that were ever let start, by TaskRun and version.
    started: BTreeMap<(String, String), BTreeSet<String>>,
    pub violations: BTreeSet<String>,
}

impl Room {
    /// Takes note of what is so now.
    pub fn note(&mut self, kind: &'static str, object: &Value, exists: bool) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match exists {
            true => self.objects.insert((kind, name), object.clone()),
            false => self.objects.remove(&(kind, name)),
        };
        let starts = (kind == "pods" && !is_gated(object)) || (kind == "jobs" && object["spec"]["suspend"] == false);
        if starts {
            self.starts(kind, object);
        }
        let alive: Vec<&Value> = self.of("pods").filter(|pod| is_alive(pod)).collect();
        if alive.len() > 1 {
            let names: Vec<&str> = alive.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            self.violations.insert(format!("alive at once: {}", names.join(", ")));
        }
    }

    fn starts(&mut self, kind: &str, object: &Value) {
        let job = match kind {
            "jobs" => &object["metadata"]["uid"],
            _ => label(object, "batch.kubernetes.io/controller-uid"),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (task_run, version) = (text(label(object, TASK_RUN_UID)), text(label(object, "context-version")));
        let jobs = self.started.entry((task_run, version.clone())).or_default();
        jobs.insert(text(job));
        if jobs.len() > 1 {
            self.violations.insert(format!("version {version} was started by {} Jobs", jobs.len()));
        }
    }

    /// The objects of a kind.
    pub fn of(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((of, _), _)| *of == kind).map(|(_, object)| object)
    }

    /// The task.
    pub fn task_run(&self) -> Option<&Value> {
        self.of("taskruns").next()
    }

    /// Whether this Job was ever let start.
    pub fn has_started(&self, job: &str) -> bool {
        self.started.values().any(|jobs| jobs.contains(job))
    }

    /// Whether any Job of this version was let start.
    pub fn has_run(&self, version: &Value) -> bool {
        self.started.keys().any(|(_, of)| version == of.as_str())
    }

    fn forget_others(&mut self, kind: &'static str, listed: &BTreeSet<String>) {
        self.objects.retain(|(of, _), object| *of != kind || listed.contains(&object["metadata"]["uid"].to_string()));
    }
}

pub fn label<'a>(object: &'a Value, name: &str) -> &'a Value {
    &object["metadata"]["labels"][name]
}

pub fn is_alive(pod: &Value) -> bool {
    !["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase) && !is_gated(pod)
}

fn is_gated(pod: &Value) -> bool {
    pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| gates.iter().any(|gate| gate["name"] == GATE))
}

/// All namespaces.
#[derive(Default)]
pub struct Witness {
    rooms: Mutex<BTreeMap<String, Room>>,
    changed: watch::Sender<()>,
}

impl Witness {
    /// Watches until the runtime ends.
    pub fn start(client: &Client) -> Arc<Self> {
        let witness = Arc::new(Self::default());
        for (kind, group, version, name) in [
            ("taskruns", "orchestrator.io", "v1", "TaskRun"),
            ("jobs", "batch", "v1", "Job"),
            ("pods", "", "v1", "Pod"),
            ("configmaps", "", "v1", "ConfigMap"),
        ] {
            let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, name));
            tokio::spawn(witness.clone().watch(kind, Api::all_with(client.clone(), &resource)));
        }
        witness
    }

    async fn watch(self: Arc<Self>, kind: &'static str, api: Api<DynamicObject>) {
        let config = if kind == "configmaps" {
            watcher::Config::default().labels("orchestrator.io/task")
        } else {
            watcher::Config::default()
        };
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(json!(object.uid()).to_string());
                    self.note(kind, &object, true);
                }
                Ok(watcher::Event::InitDone) => {
                    self.rooms(|rooms| rooms.values_mut().for_each(|room| room.forget_others(kind, &listed)));
                }
                Ok(watcher::Event::Apply(object)) => self.note(kind, &object, true),
                Ok(watcher::Event::Delete(object)) => self.note(kind, &object, false),
                // a broken watch begins anew
                Err(_) => {}
            }
            self.changed.send_replace(());
        }
    }

    fn note(&self, kind: &'static str, object: &DynamicObject, exists: bool) {
        let json = serde_json::to_value(object).expect("JSON");
        let namespace = object.namespace().unwrap_or_default();
        self.rooms(|rooms| rooms.entry(namespace).or_default().note(kind, &json, exists));
    }

    fn rooms<T>(&self, look: impl FnOnce(&mut BTreeMap<String, Room>) -> T) -> T {
        look(&mut self.rooms.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is seen in a namespace now.
    pub fn look<T>(&self, namespace: &str, look: impl FnOnce(&Room) -> T) -> T {
        self.rooms(|rooms| look(rooms.entry(namespace.to_owned()).or_default()))
    }

    /// Waits until it is so there.
    pub async fn wait(&self, namespace: &str, what: &str, is_so: impl Fn(&Room) -> bool) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !self.look(namespace, &is_so) {
                let _ = changed.changed().await;
            }
        };
        let seen = || self.look(namespace, |room| room.task_run().map(|task_run| task_run["status"].to_string()));
        timeout(PATIENCE, waiting).await.map_err(|_| format!("not {what} in time: {}", seen().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, version: &str, job: &str, phase: &str) -> Value {
        let labels =
            json!({TASK_RUN_UID: "task", "context-version": version, "batch.kubernetes.io/controller-uid": job});
        json!({"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"phase": phase}})
    }

    #[test]
    fn two_runs_at_once_are_seen() {
        let mut room = Room::default();
        room.note("pods", &pod("a", "1", "job-1", "Running"), true);
        let mut gated = pod("b", "2", "job-2", "Pending");
        gated["spec"]["schedulingGates"] = json!([{"name": GATE}]);
        room.note("pods", &gated, true);
        assert!(room.violations.is_empty(), "nothing starts behind the gate");
        room.note("pods", &pod("b", "2", "job-2", "Pending"), true);
        assert_eq!(room.violations.pop_first().expect("a violation"), "alive at once: a, b");

        let mut room = Room::default();
        room.note("pods", &pod("a", "1", "job-1", "Running"), true);
        room.note("pods", &pod("a", "1", "job-1", "Failed"), true);
        room.note("pods", &pod("b", "2", "job-2", "Running"), true);
        room.note("pods", &pod("b", "2", "job-2", "Running"), false);
        room.note("pods", &pod("c", "3", "job-3", "Running"), true);
        assert!(room.violations.is_empty(), "one after the other");
    }

    #[test]
    fn a_version_that_two_jobs_start_is_seen() {
        let mut room = Room::default();
        let job = |uid: &str, suspend: bool| {
            let labels = json!({TASK_RUN_UID: "task", "context-version": "1"});
            json!({"metadata": {"name": "svc-1-v1", "uid": uid, "labels": labels}, "spec": {"suspend": suspend}})
        };
        room.note("jobs", &job("stray", true), true);
        room.note("jobs", &job("stray", true), false);
        room.note("jobs", &job("first", false), true);
        room.note("jobs", &job("first", true), true);
        room.note("pods", &pod("a", "1", "first", "Succeeded"), true);
        assert!(room.violations.is_empty() && !room.has_started("stray"), "a stray that never starts is allowed");
        room.note("jobs", &job("second", false), true);
        assert_eq!(room.violations.pop_first().expect("a violation"), "version 1 was started by 2 Jobs");
    }
}
