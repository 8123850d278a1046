//! The operator killed at random moments, again and again: nothing runs twice, nothing runs beside
//! another run of its task, and everything settles.

use crate::support::{ApiWrite, Cluster, Operator, PATIENCE, markdown, task_run};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TASKS: u32 = 50;
const KILLS: u32 = 50;

/// What an independent watcher of pods saw.
#[derive(Default)]
struct Seen {
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
        let task = pod.labels()["app.kubernetes.io/instance"].clone();
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_twice_though_the_operator_is_killed_fifty_times() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::start();
    cluster.install();
    let mut operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "3s", "kwok.test/stop-after": "2s"}));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, &ns.name);
    let noted = seen.clone();
    let watching = tokio::spawn(async move {
        let events = watcher(pods, watcher::Config::default()).default_backoff().boxed();
        let _ = events.try_for_each(|event| { noted.lock().expect("no panic").note(&event); std::future::ready(Ok(())) }).await;
    });

    // tasks come, get more context and are killed over at all stages of their starts
    let (mut created, mut edited) = (0, 0);
    let mut versions: BTreeMap<u32, u64> = BTreeMap::new();
    for kill in 0..KILLS {
        operator.wait_ready();
        while created < TASKS && created <= kill {
            created += 1;
            ns.create(&task_run(created, &[("task.md", "do it")])).ok();
            versions.insert(created, 1);
        }
        // every other task gets new context some kills after its start
        if kill % 2 == 1 && kill > 3 {
            edited = kill - 2;
            let files = json!({"spec": {"markdownFiles": markdown(&[("task.md", "do it"), ("more.md", "more")])}});
            ns.merge(&format!("taskrun/task-{edited}"), &files).ok();
            versions.insert(edited, 2);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..150))).await;
        operator.kill();
        operator = operator.restart(&[]);
    }
    operator.wait_ready();
    assert!(created == TASKS && edited > 0);

    let api = ns.task_runs().await;
    let started = Instant::now();
    loop {
        let tasks = api.list(&Default::default()).await.expect("a list");
        let unsettled: Vec<String> = tasks.iter().filter(|task| task.data["status"]["phase"] != "Succeeded").map(|task| format!("{}: {}", task.name_any(), task.data["status"]["message"])).collect();
        if unsettled.is_empty() && tasks.items.len() == TASKS as usize {
            for task in tasks {
                let id = u32::try_from(task.data["spec"]["taskId"].as_u64().expect("an id")).expect("an id");
                assert_eq!(task.data["status"]["contextVersion"], versions[&id]);
            }
            break;
        }
        assert!(started.elapsed() < PATIENCE, "not settled: {unsettled:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    watching.abort();

    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.violations, Vec::<String>::new());
    for (job, uids) in &seen.jobs {
        assert_eq!(uids.len(), 1, "pods of {job} come from one Job");
    }
    for (job, pods) in &seen.pods {
        assert_eq!(pods.len(), 1, "Job {job} had one pod");
    }
    let writes = cluster.operator_writes();
    let count = |is: &dyn Fn(&ApiWrite) -> bool| {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for write in writes.iter().filter(|write| write.resource == "jobs" && is(write)) {
            *counts.entry(write.name.clone()).or_default() += 1;
        }
        counts
    };
    let released = count(&|write| write.verb == "patch" && write.code == 200);
    assert!(released.len() >= TASKS as usize && released.values().all(|n| *n == 1), "released once: {released:?}");
    let made = count(&|write| write.verb == "create" && write.code == 201);
    assert!(made.values().all(|n| *n == 1), "made once: {made:?}");

    // settled for good: another restart writes nothing
    let before = cluster.operator_writes().len();
    let operator = operator.restart(&[]);
    operator.wait_ready();
    ns.kubectl(&["annotate", "taskrun", "--all", "note=a"]).ok();
    ns.create(&task_run(TASKS + 1, &[("task.md", "do it")])).ok();
    ns.wait_phase(&format!("taskrun/task-{}", TASKS + 1), 1, "Succeeded");
    let after: Vec<ApiWrite> = cluster.operator_writes().split_off(before);
    let of_settled: Vec<&ApiWrite> = after.iter().filter(|w| w.namespace == ns.name && !w.name.contains(&(TASKS + 1).to_string())).collect();
    assert!(of_settled.is_empty(), "{of_settled:?}");
}
