//! The reconciler: bursts of TaskRuns, and a steady arrival, under a real Job controller, scheduler and kwok. Beside it
//! the same controller in Go, and the limit: a bare client that makes the same writes and asks nobody.
//!
//! All times are the API server's, from its audit log: from the creation of a TaskRun to that of its Job.

use crate::machine::{self, Process};
use crate::report::{Figures, Table, quantile};
use crate::{Plan, reviews, support};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Object;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Cluster, Operator};
use taskrun_operator::crd::{Agent, TaskRun};
use taskrun_operator::plan::{build_config_map, build_job};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Those that are compared.
const SIDES: [&str; 3] = ["ours", "Go", "bare client"];
/// TaskRuns that are created at once, and reconciles at once of each side.
pub const CONCURRENCY: usize = 32;
/// Where they are.
pub const NAMESPACE: &str = "bench";
/// Of markdown in each.
const MARKDOWN: usize = 4 * 1024;
/// The longest that a burst may take.
const LONGEST: Duration = Duration::from_mins(20);
/// Tasks before the clock runs: caches are filled, connections there.
const WARM: u32 = 20;

/// A burst, or a steady arrival of so many a second.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    tasks: u32,
    rate: Option<u32>,
    rounds: usize,
}

/// All of it, as it is asked for: each takes long.
pub fn run(plan: &Plan) -> impl Iterator<Item = Table> {
    let rounds = |many: usize| if plan.is_quick { 1 } else { many };
    let loads = [
        Load { name: "burst of 1,000", tasks: 1_000, rate: None, rounds: rounds(3) },
        Load { name: "50 a second", tasks: if plan.is_quick { 500 } else { 1_500 }, rate: Some(50), rounds: rounds(2) },
        Load { name: "burst of 10,000", tasks: 10_000, rate: None, rounds: 1 },
    ];
    let wanted = loads.into_iter().filter(|load| plan.wants(load.name) && !(plan.is_quick && load.tasks > 1_000));
    wanted.map(|load| of_load(plan, load))
}

/// Of one side, a figure a round.
#[derive(Default)]
struct Measured {
    created: Figures,
    p50: Figures,
    p99: Figures,
    succeeded: Figures,
    writes: Figures,
    calls: Figures,
    cpu: Figures,
    server_cpu: Figures,
}

fn of_load(plan: &Plan, load: Load) -> Table {
    let mut measured: [Measured; 3] = Default::default();
    for round in 0..load.rounds {
        for turn in 0..SIDES.len() {
            let side = (round + turn) % SIDES.len();
            measure(plan, SIDES[side], load, &mut measured[side]);
        }
    }
    let columns = [
        "TaskRuns/s to Job created",
        "by the bare client's",
        "p50 s from creation",
        "p99 s",
        "p99 by the bare client's",
        "TaskRuns/s to Succeeded",
        "writes a life",
        "calls a life",
        "own CPU ms a life",
        "API server's CPU ms a life",
    ];
    let mut table = Table::new(&format!("Reconciler, {}", load.name), "side", &columns);
    let [.., bare] = &measured;
    for (name, own) in SIDES.iter().zip(&measured) {
        let Measured { created, p50, p99, succeeded, writes, calls, cpu, server_cpu } = own;
        let figures = [
            created,
            &created.by(&bare.created),
            p50,
            p99,
            &p99.by(&bare.p99),
            succeeded,
            writes,
            calls,
            cpu,
            server_cpu,
        ];
        table.row(name, figures.into_iter().cloned().collect());
    }
    table
}

fn measure(plan: &Plan, side: &str, load: Load, measured: &mut Measured) {
    let cluster = Cluster::start();
    prepare(&cluster);
    let runtime = Runtime::new().expect("a runtime");
    let operator = (side == "ours").then(|| Operator::start(&cluster, &["--log=warn"]));
    let account = support::account_kubeconfig(&cluster, "taskrun-system", "taskrun-operator");
    let peer = (side == "Go").then(|| {
        let mut command = Command::new(&plan.peer);
        command.args(["controller", "--concurrency", &CONCURRENCY.to_string(), "--kubeconfig"]).arg(&account);
        Process::start(None, &command)
    });
    leave_out_webhooks(&cluster, operator.is_some());
    let bare = (side == "bare client").then_some(account.as_path());
    let pid = operator.as_ref().map(|operator| operator.pid.as_str()).or(peer.as_ref().map(|peer| peer.pid.as_str()));
    let mut audit = Audit::of(&cluster);
    runtime.block_on(create(&cluster, bare, 1..=WARM, None));
    let mut succeeded = Succeeded::watch(&runtime, &cluster);
    succeeded.wait(&runtime, WARM as usize);
    let server = cluster.pid_of("kube-apiserver");
    audit.read_on();
    let called = audit.calls;
    let usage = || (pid.map(|pid| machine::usage(pid).cpu), machine::usage(&server).cpu);
    let before = usage();
    runtime.block_on(create(&cluster, bare, WARM + 1..=WARM + load.tasks, load.rate));
    succeeded.wait(&runtime, (WARM + load.tasks) as usize);
    let after = usage();
    audit.read_on();
    let tasks = f64::from(load.tasks);
    let lives: Vec<&Life> = (WARM + 1..=WARM + load.tasks).filter_map(|id| audit.lives.get(&id)).collect();
    let first = lives.iter().filter_map(|life| life.created).min().expect("a TaskRun");
    let since_first = |time: Option<Timestamp>| seconds(first, time.expect("it happened"));
    let until =
        |time: fn(&Life) -> Option<Timestamp>| lives.iter().map(|life| since_first(time(life))).fold(0.0, f64::max);
    let mut waits: Vec<f64> =
        lives.iter().map(|life| seconds(life.created.expect("created"), life.job.expect("a Job"))).collect();
    waits.sort_unstable_by(f64::total_cmp);
    let per_life = |count: fn(&Life) -> u32| f64::from(lives.iter().map(|life| count(life)).sum::<u32>()) / tasks;
    for (figures, value) in [
        (&mut measured.created, tasks / until(|life| life.job)),
        (&mut measured.p50, quantile(&waits, 0.5)),
        (&mut measured.p99, quantile(&waits, 0.99)),
        (&mut measured.succeeded, tasks / until(|life| life.ended)),
        (&mut measured.writes, per_life(|life| life.writes)),
        (&mut measured.calls, f64::from(audit.calls - called) / tasks),
        (&mut measured.cpu, after.0.zip(before.0).map_or(0.0, |(after, before)| (after - before) * 1e3 / tasks)),
        (&mut measured.server_cpu, (after.1 - before.1) * 1e3 / tasks),
    ] {
        figures.0.push(value);
    }
    eprintln!("{side}, {}: {:.1}/s to Job created", load.name, measured.created.0.last().expect("one"));
}

/// The webhook takes no part in the creations: the other sides have none.
pub fn leave_out_webhooks(cluster: &Cluster, are_healed: bool) {
    let webhooks = "mutatingwebhookconfiguration,validatingwebhookconfiguration";
    if !are_healed {
        cluster.kubectl(&["delete", webhooks, "taskrun-operator"]).ok();
        return;
    }
    let selector = json!({"matchLabels": {"bench": "none"}});
    let patch = json!([{"op": "add", "path": "/webhooks/0/namespaceSelector", "value": selector}]).to_string();
    for kind in webhooks.split(',') {
        cluster.kubectl(&["patch", kind, "taskrun-operator", "--type=json", "-p", &patch]).ok();
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// The CRDs, the rights, and an Agent whose runs succeed after a moment.
pub fn prepare(cluster: &Cluster) {
    cluster.install();
    cluster.kubectl(&["create", "namespace", NAMESPACE]).ok();
    let agent = support::agent("agent", &json!({"kwok.test/run-for": "100ms"}));
    cluster.kubectl_on(&["-n", NAMESPACE, "create"], &agent).ok();
}

/// Creates TaskRuns as the webhook would have left them; `bare` is the account of a bare client, which then makes the
/// writes of their lives.
async fn create(
    cluster: &Cluster,
    bare: Option<&std::path::Path>,
    ids: std::ops::RangeInclusive<u32>,
    rate: Option<u32>,
) {
    let api = Api::<TaskRun>::namespaced(cluster.client().await, NAMESPACE);
    let (to_bare, created) = unbounded_channel();
    let writer = match bare {
        Some(account) => {
            let agents = Api::<Agent>::namespaced(cluster.client().await, NAMESPACE);
            let agent = agents.get("agent").await.expect("an Agent");
            Some(tokio::spawn(write(support::client_of(account).await, Arc::new(agent), created)))
        }
        None => None,
    };
    let (began, first) = (Instant::now(), *ids.start());
    let creations = stream::iter(ids).for_each_concurrent(CONCURRENCY, |id| {
        let (api, to_bare) = (api.clone(), to_bare.clone());
        async move {
            if let Some(rate) = rate {
                let due = Duration::from_secs_f64(f64::from(id - first) / f64::from(rate));
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
            let task_run = api.create(&PostParams::default(), &task_run(id, MARKDOWN)).await.expect("created");
            let _ = to_bare.send(task_run);
        }
    });
    creations.await;
    drop(to_bare);
    if let Some(writer) = writer {
        writer.await.expect("no panic");
    }
}

/// One that was judged and has its version.
pub fn task_run(id: u32, markdown: usize) -> TaskRun {
    let mut object = support::task_run(id, &[("task.md", &reviews::markdown(markdown))]);
    object["metadata"]["labels"] = json!({"task-id": id.to_string(), "service-name": "svc"});
    object["metadata"]["annotations"] = json!({"orchestrator.io/context-changed-by": "kubernetes-admin"});
    object["metadata"]["finalizers"] = json!(["orchestrator.io/run-cleanup"]);
    object["spec"]["contextVersion"] = json!(1);
    serde_json::from_value(object).expect("a TaskRun")
}

/// The six writes of each life, one after the other, many lives at once, whatever becomes of the Jobs.
async fn write(client: Client, agent: Arc<Agent>, created: UnboundedReceiver<TaskRun>) {
    let created = stream::unfold(created, async |mut created| Some((created.recv().await?, created)));
    created
        .for_each_concurrent(CONCURRENCY, |task_run| {
            let (client, agent) = (client.clone(), agent.clone());
            async move { live(client, &agent, task_run).await }
        })
        .await;
}

async fn live(client: Client, agent: &Agent, task_run: TaskRun) {
    let (task_runs, jobs) =
        (Api::<TaskRun>::namespaced(client.clone(), NAMESPACE), Api::<Job>::namespaced(client.clone(), NAMESPACE));
    let config_map = build_config_map(&task_run);
    Api::<ConfigMap>::namespaced(client, NAMESPACE).create(&PostParams::default(), &config_map).await.expect("created");
    let job = build_job(&task_run, agent).expect("a Job");
    let job = jobs.create(&PostParams::default(), &job).await.expect("created");
    let name = task_run.name_any();
    let now = taskrun_operator::clock::now().to_string();
    let (job_name, uid) = (job.name_any(), job.uid().unwrap_or_default());
    let status = |phase: &str, outcome: Option<&str>| status(&job_name, &uid, &now, phase, outcome);
    patch(task_runs.patch_status(&name, &PatchParams::default(), &Patch::Merge(status("Pending", None)))).await;
    let released = json!({"spec": {"suspend": false, "template": {"spec": {"schedulingGates": null}}}});
    patch(jobs.patch(&job.name_any(), &PatchParams::default(), &Patch::Merge(released))).await;
    patch(task_runs.patch_status(&name, &PatchParams::default(), &Patch::Merge(status("Running", None)))).await;
    patch(task_runs.patch_status(
        &name,
        &PatchParams::default(),
        &Patch::Merge(status("Succeeded", Some("Succeeded"))),
    ))
    .await;
}

/// The status of a TaskRun with one run, as the operator writes it: it finds nothing to mend in one that has ended.
pub fn status(job: &str, uid: &str, now: &str, phase: &str, outcome: Option<&str>) -> Value {
    let (is_over, message) = (outcome.is_some(), format!("Job {job}: {phase}"));
    let condition = |kind: &str, is_so: bool| {
        let (status, reason, message) = if is_so { ("True", phase, &*message) } else { ("False", "AsExpected", "") };
        json!({
            "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
            "observedGeneration": 1,
        })
    };
    let mut run = json!({
        "contextVersion": 1, "jobName": job, "jobUid": uid, "startTime": now, "attempts": 1, "message": message,
        "changedBy": "kubernetes-admin",
    });
    if let Some(outcome) = outcome {
        run["outcome"] = json!(outcome);
        run["completionTime"] = json!(now);
    }
    json!({"status": {
        "phase": phase, "jobName": job, "attempts": 1, "message": message, "lastUpdated": now, "contextVersion": 1,
        "observedGeneration": 1, "startTime": now, "completionTime": outcome.map(|_| now), "runs": [run],
        "conditions": [
            condition("Complete", is_over), condition("Failed", false), condition("Suspended", false),
            condition("Reconciling", !is_over), condition("Stalled", false),
        ],
    }})
}

async fn patch<K: DeserializeOwned + Debug>(call: impl Future<Output = kube::Result<K>>) {
    call.await.expect("patched");
}

/// What the API server says of one TaskRun.
#[derive(Default)]
struct Life {
    created: Option<Timestamp>,
    job: Option<Timestamp>,
    ended: Option<Timestamp>,
    writes: u32,
}

/// The audit log, read as it grows.
struct Audit {
    log: PathBuf,
    read: u64,
    /// Of the operator's account, in the namespace, but for Events.
    calls: u32,
    lives: HashMap<u32, Life>,
}

/// TaskRuns that have succeeded, as their watch tells.
struct Succeeded(UnboundedReceiver<String>, HashSet<String>);

impl Succeeded {
    fn watch(runtime: &Runtime, cluster: &Cluster) -> Self {
        let (tell, told) = unbounded_channel();
        let client = runtime.block_on(cluster.client());
        runtime.spawn(async move {
            let resource = support::task_run_resource();
            let api: Api<Object<Value, Phase>> = Api::namespaced_with(client, NAMESPACE, &resource);
            let mut objects = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(object) = objects.next().await {
                let object = object.expect("a watch");
                if object.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded")) {
                    let _ = tell.send(object.name_any());
                }
            }
        });
        Self(told, HashSet::new())
    }

    fn wait(&mut self, runtime: &Runtime, many: usize) {
        let Self(told, names) = self;
        let all = async {
            while names.len() < many {
                names.insert(told.recv().await.expect("a watch"));
            }
        };
        let all = runtime.block_on(async { tokio::time::timeout(LONGEST, all).await });
        assert!(all.is_ok(), "{} of {many} have succeeded", self.1.len());
    }
}

/// What of a status is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
struct Phase {
    phase: Option<String>,
}

impl Audit {
    fn of(cluster: &Cluster) -> Self {
        Self { log: cluster.file("audit.log"), read: 0, calls: 0, lives: HashMap::new() }
    }

    fn read_on(&mut self) {
        let mut log = std::fs::File::open(&self.log).expect("an audit log");
        log.seek(SeekFrom::Start(self.read)).expect("it only grows");
        let mut log = BufReader::with_capacity(1 << 20, log);
        let mut line = String::new();
        loop {
            line.clear();
            let length = log.read_line(&mut line).expect("text");
            if !line.ends_with('\n') {
                return;
            }
            self.read += length as u64;
            if let Ok(entry) = serde_json::from_str(&line) {
                self.take(&entry);
            }
        }
    }

    fn take(&mut self, entry: &Value) {
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if text("/objectRef/namespace") != NAMESPACE || entry["stage"] != "ResponseComplete" {
            return;
        }
        let (verb, resource, subresource) =
            (text("/verb"), text("/objectRef/resource"), text("/objectRef/subresource"));
        let is_done = entry["responseStatus"]["code"].as_i64().is_some_and(|code| code < 300);
        let at: Option<Timestamp> = text("/stageTimestamp").parse().ok();
        let is_creation = (verb, resource) == ("create", "taskruns");
        let is_theirs = text("/user/username") == "system:serviceaccount:taskrun-system:taskrun-operator";
        if is_theirs && resource != "events" && verb != "watch" {
            self.calls += 1;
        }
        // task-{id} and svc-{id}-v1
        let name = text("/objectRef/name");
        let id = name.strip_prefix("task-").or_else(|| name.strip_prefix("svc-")?.strip_suffix("-v1"));
        let Some(life) = id.and_then(|id| id.parse().ok()).map(|id: u32| self.lives.entry(id).or_default()) else {
            return;
        };
        if is_creation && is_done {
            life.created = at;
        }
        if !is_theirs || resource == "events" || !["create", "update", "patch", "delete"].contains(&verb) {
            return;
        }
        life.writes += 1;
        match (verb, resource, subresource) {
            ("create", "jobs", _) if is_done => life.job = at,
            ("patch" | "update", "taskruns", "status") if is_done => life.ended = at,
            _ => {}
        }
    }
}
