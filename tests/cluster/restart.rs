//! The operator killed at random moments, again and again: nothing runs twice, nothing runs beside
//! another run of its task, and everything settles.

use crate::support::{ApiWrite, Cluster, Namespace, Operator, PATIENCE, markdown, task_run};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TASKS: u32 = 50;
const KILLS: u32 = TASKS;

/// What an independent watcher of pods saw.
#[derive(Default)]
pub struct Seen {
    /// Live pods by task: uid to Job.
    alive: BTreeMap<String, BTreeMap<String, String>>,
    /// Jobs whose pods were ever seen, by Job name: a version has one Job, of one uid.
    jobs: BTreeMap<String, BTreeSet<String>>,
    /// Pods by Job uid.
    pods: BTreeMap<String, BTreeSet<String>>,
    violations: Vec<String>,
}

impl Seen {
    fn note(&mut self, event: &watcher::Event<Pod>) {
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => self.pod(pod, true),
            watcher::Event::Delete(pod) => self.pod(pod, false),
            _ => {}
        }
    }

    fn pod(&mut self, pod: &Pod, exists: bool) {
        let task = pod.labels()["orchestrator.io/task"].clone();
        let owner = pod.owner_references().first().expect("an owner").clone();
        let uid = pod.uid().expect("a uid");
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let alive = self.alive.entry(task.clone()).or_default();
        if exists && phase != "Succeeded" && phase != "Failed" {
            alive.insert(uid.clone(), owner.name.clone());
        } else {
            alive.remove(&uid);
        }
        if alive.len() > 1 {
            self.violations.push(format!("{task}: {alive:?} live at once"));
        }
        self.jobs.entry(owner.name).or_default().insert(owner.uid.clone());
        self.pods.entry(owner.uid).or_default().insert(uid);
    }

    /// Watches until the task is aborted.
    pub async fn watch(seen: Arc<Mutex<Self>>, pods: Api<Pod>) {
        let events = watcher(pods, watcher::Config::default()).default_backoff();
        let note = |event| {
            // a broken watch begins anew with a list
            if let Ok(event) = event {
                seen.lock().expect("no panic").note(&event);
            }
            std::future::ready(())
        };
        events.for_each(note).await;
    }

    pub fn judge(&self) {
        assert_eq!(self.violations, Vec::<String>::new());
        for (job, uids) in &self.jobs {
            assert_eq!(uids.len(), 1, "pods of {job} come from one Job");
        }
        for (job, pods) in &self.pods {
            assert_eq!(pods.len(), 1, "Job {job} had one pod");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_twice_though_the_operator_is_killed_fifty_times() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "3s", "kwok.test/stop-after": "2s"}));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, &ns.name);
    let watching = tokio::spawn(Seen::watch(seen.clone(), pods));

    let (_operator, versions) = submit_and_kill(&ns, operator, fastrand::Rng::with_seed(seed)).await;
    wait_settled(&ns, &versions).await;
    watching.abort();
    let seen = seen.lock().expect("no panic");
    seen.judge();
    let released = judge_writes(&cluster);
    // a release whose answer was lost with the operator has no code in the audit log, but pods
    assert!(seen.jobs.len() >= TASKS as usize && released.len() >= TASKS as usize / 2);
}

/// Tasks come, half of them get more context, and the operator is killed over all of it. Returns the
/// operator and the version that each task has in the end.
async fn submit_and_kill(
    ns: &Namespace<'_>,
    mut operator: Operator,
    mut random: fastrand::Rng,
) -> (Operator, BTreeMap<u64, u64>) {
    let mut versions = BTreeMap::new();
    for kill in 1..=KILLS {
        operator.wait_ready();
        ns.create(&task_run(kill, &[("task.md", "do it")])).ok();
        versions.insert(u64::from(kill), 1);
        if kill > 3 && kill % 2 == 0 {
            let files = json!({"spec": {"markdownFiles": markdown(&[("task.md", "do it"), ("more.md", "more")])}});
            ns.merge(&format!("taskrun/task-{}", kill - 3), &files).ok();
            versions.insert(u64::from(kill - 3), 2);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..250))).await;
        operator.kill();
        operator = operator.restart(&[]);
    }
    operator.wait_ready();
    (operator, versions)
}

async fn wait_settled(ns: &Namespace<'_>, versions: &BTreeMap<u64, u64>) {
    let (api, started) = (ns.task_runs().await, Instant::now());
    loop {
        let tasks = api.list(&ListParams::default()).await.expect("a list").items;
        let is_settled = |task: &&DynamicObject| {
            let version = task.data["spec"]["taskId"].as_u64().and_then(|id| versions.get(&id));
            task.data["status"]["phase"] == "Succeeded"
                && task.data["status"]["contextVersion"].as_u64().as_ref() == version
        };
        if tasks.len() == versions.len() && tasks.iter().all(|task| is_settled(&task)) {
            return;
        }
        let others = tasks.iter().filter(|task| !is_settled(task));
        let others: Vec<String> =
            others.map(|task| format!("{}: {}", task.name_any(), task.data["status"]["message"])).collect();
        assert!(started.elapsed() < PATIENCE, "not settled: {others:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Each Job was made and released at most once. Returns the releases.
pub fn judge_writes(cluster: &Cluster) -> BTreeMap<String, u32> {
    let released = count(cluster, |write| write.verb == "patch" && write.code == 200);
    assert!(released.values().all(|n| *n == 1), "released once: {released:?}");
    let created = count(cluster, |write| write.verb == "create" && write.code == 201);
    assert!(created.values().all(|n| *n == 1), "made once: {created:?}");
    released
}

/// The operator's writes of each Job.
fn count(cluster: &Cluster, is: impl Fn(&ApiWrite) -> bool) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for write in cluster.operator_writes().iter().filter(|write| write.resource == "jobs" && is(write)) {
        *counts.entry(write.name.clone()).or_default() += 1;
    }
    counts
}
