//! Writes at a steady rate, whatever becomes of the earlier ones, and none twice.

use crate::support::{Namespace, markdown, task_run};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// TaskRuns that are written in turn: more than are written at once, or they would conflict.
const OBJECTS: u32 = 200;
/// Writes at once: above it the API server refuses some (`--max-mutating-requests-inflight`), and later ones wait.
const MOST_AT_ONCE: usize = 100;
/// A write that takes longer has failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than any test.
const MOST_WRITES: u32 = 1_000_000;

/// Changes of content, each of which both webhooks are asked about.
pub struct Load {
    api: Api<DynamicObject>,
    tally: Arc<Tally>,
    writing: JoinHandle<()>,
    started: Instant,
}

#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    made: AtomicUsize,
    took: Mutex<Vec<Duration>>,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Creates the objects and goes on from there, so many writes a second.
    pub async fn start(ns: &Namespace<'_>, rate: u32) -> Self {
        let api = ns.task_runs().await;
        for id in 1..=OBJECTS {
            let mut task = task_run(id, &[("task.md", "begin")]);
            task["spec"]["suspend"] = json!(true);
            let task = serde_json::from_value(task).expect("an object");
            api.create(&PostParams::default(), &task).await.expect("created");
        }
        let tally = Arc::new(Tally::default());
        let writing = tokio::spawn(write_all(api.clone(), tally.clone(), Duration::from_secs(1) / rate));
        Self { api, tally, writing, started: Instant::now() }
    }

    /// How many writes were answered.
    pub fn made(&self) -> usize {
        self.tally.made.load(Ordering::Relaxed)
    }

    /// Ends it; returns what failed. Each other write is a version.
    pub async fn finish(self) -> Vec<String> {
        self.tally.is_over.store(true, Ordering::Relaxed);
        self.writing.await.expect("no panic");
        let (failures, seconds) = (self.tally.failures.lock().expect("no panic").clone(), self.started.elapsed());
        let mut took = self.tally.took.lock().expect("no panic").clone();
        took.sort();
        let rate = took.len() * 1000 / usize::try_from(seconds.as_millis()).expect("minutes");
        let at = |part: usize| took.get(took.len() * part / 1000).copied().unwrap_or_default();
        println!(
            "{} writes in {seconds:.1?}, {} a second, {} failed; p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, most {:.1?}",
            took.len(),
            rate,
            failures.len(),
            at(500),
            at(990),
            at(999),
            took.last().copied().unwrap_or_default(),
        );
        let stored = self.api.list(&ListParams::default()).await.expect("a list").items;
        let versions = stored.iter().map(|task| task.data["spec"]["contextVersion"].as_u64().expect("a version") - 1);
        let written = took.len() - failures.len();
        assert!(versions.sum::<u64>() >= written as u64, "each write is a version of its own");
        failures
    }
}

async fn write_all(api: Api<DynamicObject>, tally: Arc<Tally>, every: Duration) {
    let (started, mut ticks, mut writes) = (Instant::now(), tokio::time::interval(every), JoinSet::new());
    let turns = Arc::new(Semaphore::new(MOST_AT_ONCE));
    for number in 0..MOST_WRITES {
        if tally.is_over.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let turn = turns.clone().acquire_owned().await.expect("never closed");
        let (api, tally) = (api.clone(), tally.clone());
        writes.spawn(async move {
            let begun = Instant::now();
            let written = tokio::time::timeout(WRITE_TIMEOUT, write(&api, number)).await;
            let failed = match written {
                Ok(Ok(_)) => None,
                Ok(Err(kube::Error::Api(status))) => Some(status.message),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer".to_owned()),
            };
            tally.took.lock().expect("no panic").push(begun.elapsed());
            tally.made.fetch_add(1, Ordering::Relaxed);
            let failed = failed.map(|failed| format!("{:.3} s: {failed}", started.elapsed().as_secs_f64()));
            tally.failures.lock().expect("no panic").extend(failed);
            drop(turn);
        });
        // what has ended is let go
        while writes.try_join_next().is_some() {}
    }
    writes.join_all().await;
}

async fn write(api: &Api<DynamicObject>, number: u32) -> Result<DynamicObject, kube::Error> {
    let files = markdown(&[("task.md", &format!("edit {number}"))]);
    let name = format!("task-{}", number % OBJECTS + 1);
    api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"markdownFiles": files}}))).await
}
