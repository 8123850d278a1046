//! Memory beside TaskRuns that are settled, and the time to be back after a kill: ours, beside a bare reflector, which
//! lists and keeps the same TaskRuns without their markdown and does nothing.

use crate::bursts::{self, NAMESPACE, task_run};
use crate::machine::{self, MIB, Process};
use crate::report::{Figures, Table};
use crate::{Plan, support};
use futures::stream::{self, StreamExt};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, ResourceExt};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Cluster, Operator};
use taskrun_operator::crd::TaskRun;

const KIB: f64 = 1024.0;
/// The longest that anything may take.
const LONGEST: Duration = Duration::from_mins(5);
/// Starts of each, of which the median counts.
const STARTS: usize = 3;

/// All of it.
pub fn run(plan: &Plan) -> Vec<Table> {
    let sizes: &[(usize, &[u32])] = match plan.is_quick {
        true => &[(4, &[1_000]), (64, &[1_000])],
        false => &[(4, &[1_000, 10_000, 50_000]), (64, &[1_000, 10_000])],
    };
    let wanted = |kib: usize, counts: &[u32]| -> Vec<u32> {
        counts.iter().copied().filter(|count| plan.wants(&format!("{kib} KiB, {count} TaskRuns"))).collect()
    };
    let sizes = sizes.iter().map(|(kib, counts)| (*kib, wanted(*kib, counts)));
    sizes.filter(|(_, counts)| !counts.is_empty()).map(|(kib, counts)| of_size(kib, &counts)).collect()
}

fn of_size(kib: usize, counts: &[u32]) -> Table {
    let cluster = Cluster::start();
    bursts::prepare(&cluster);
    bursts::leave_out_webhooks(&cluster, true);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let columns = [
        "RSS MiB",
        "peak MiB",
        "KiB a TaskRun",
        "ready s after a kill",
        "first reconcile s",
        "bare reflector: ready s",
        "first reconcile by that",
        "bare reflector: RSS MiB",
    ];
    let mut table = Table::new(&format!("Memory and start, {kib} KiB of markdown"), "settled TaskRuns", &columns);
    let (mut there, mut empty) = (0, f64::NAN);
    for &count in [0].iter().chain(counts) {
        let settled = runtime.block_on(settle(&cluster, there + 1..=count, kib * 1024));
        there = count;
        let mut figures: [Figures; 8] = Default::default();
        let mut operator = Operator::start(&cluster, &["--log=warn"]);
        for _ in 0..STARTS {
            let (next, ready, first) = start(operator, count);
            operator = next;
            let usage = machine::usage(&operator.pid);
            if count == 0 {
                empty = usage.rss;
            }
            let (reflector_ready, reflector_rss) = bare_reflector(&cluster);
            let each = (usage.rss - empty) / KIB / f64::from(count.max(1));
            let of_round = [
                usage.rss / MIB,
                usage.peak / MIB,
                each,
                ready,
                first,
                reflector_ready,
                first / reflector_ready,
                reflector_rss / MIB,
            ];
            figures.iter_mut().zip(of_round).for_each(|(figures, value)| figures.0.push(value));
        }
        // or what was measured were its writes
        assert_eq!(runtime.block_on(last_updated(&cluster, count)), settled, "a settled TaskRun was written to");
        table.row(&count.to_string(), figures.to_vec());
    }
    table
}

/// TaskRuns whose run has ended, and whose Job is gone by its time to live; tells when the last was written to.
async fn settle(cluster: &Cluster, ids: std::ops::RangeInclusive<u32>, markdown: usize) -> Option<String> {
    let api = Api::<TaskRun>::namespaced(cluster.client().await, NAMESPACE);
    let (now, last) = (taskrun_operator::clock::now().to_string(), *ids.end());
    stream::iter(ids)
        .for_each_concurrent(bursts::CONCURRENCY, |id| {
            let (api, now) = (api.clone(), now.clone());
            async move {
                let made = api.create(&PostParams::default(), &task_run(id, markdown)).await.expect("created");
                let run = bursts::status(
                    &format!("svc-{id}-v1"),
                    &made.uid().unwrap_or_default(),
                    &now,
                    "Succeeded",
                    Some("Succeeded"),
                );
                api.patch_status(&made.name_any(), &PatchParams::default(), &Patch::Merge(run)).await.expect("settled");
            }
        })
        .await;
    last_updated(cluster, last).await
}

/// When the status of one was last written; nothing where there is none.
async fn last_updated(cluster: &Cluster, id: u32) -> Option<String> {
    let api = Api::<TaskRun>::namespaced(cluster.client().await, NAMESPACE);
    let found = api.get_opt(&format!("task-{id}")).await.expect("an answer");
    Some(found?.status?.last_updated?.0.to_string())
}

/// Kills the operator and starts it again: seconds until it is ready, and until its first reconcile; returns once it has
/// looked at all.
fn start(operator: Operator, count: u32) -> (Operator, f64, f64) {
    operator.kill();
    let operator = operator.restart(&["--log=warn"]);
    let (began, mut ready, mut first) = (Instant::now(), None, None);
    let reconciles = || -> Option<f64> {
        let metrics = operator.http("/metrics")?;
        let counts = metrics.lines().filter(|line| line.starts_with("taskrun_reconcile_duration_seconds_count"));
        Some(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    loop {
        let took = began.elapsed();
        assert!(took < LONGEST, "it does not start: {}", operator.log());
        if ready.is_none() && operator.http("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            ready = Some(took.as_secs_f64());
        }
        let done = reconciles().unwrap_or_default();
        if first.is_none() && done > 0.0 {
            first = Some(took.as_secs_f64());
        }
        if let Some(ready) = ready
            && done >= f64::from(count)
        {
            // what the start took is given back
            std::thread::sleep(Duration::from_secs(2));
            return (operator, ready, first.unwrap_or(ready));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Seconds until a bare reflector has all, and the memory that it takes.
fn bare_reflector(cluster: &Cluster) -> (f64, f64) {
    let address = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    let account = support::account_kubeconfig(cluster, "taskrun-system", "taskrun-operator");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["serve", "reflector", &address.to_string()]).arg(account);
    let began = Instant::now();
    let process = Process::start(None, &command);
    process.wait_for(address);
    let ready = began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(1));
    (ready, process.usage().rss)
}

/// Keeps all TaskRuns without their markdown; listens there once it has them.
pub async fn reflect(address: SocketAddr, kubeconfig: &Path) {
    let api = Api::<TaskRun>::all(support::client_of(kubeconfig).await);
    let (store, writer) = reflector::store();
    let prune = |task_run: &mut TaskRun| {
        task_run.metadata.managed_fields = None;
        task_run.spec.markdown_files = vec![];
    };
    let events = watcher(api, watcher::Config::default().page_size(50)).modify(prune).reflect(writer);
    let keep = tokio::spawn(events.for_each(async |event| drop(event.expect("a watch"))));
    store.wait_until_ready().await.expect("all of them");
    let _listens = TcpListener::bind(address).expect("a free port");
    keep.await.expect("no panic");
}
