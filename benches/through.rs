//! Writes through the API server: with no webhook, with policies in CEL of what CEL can express, with a webhook that
//! reads reviews and lets all through, with the one in Go, and with ours. Each side has a namespace of one cluster, so
//! that one write follows the other.

use crate::report::{Figures, Table, quantile};
use crate::{Plan, direct, reviews, support};
use futures::future::join_all;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Cluster, Operator};
use tokio::runtime::Runtime;

/// Those that are compared.
const SIDES: [&str; 6] = ["none", "policy", "floor", "Go", "ours", "ours, told"];
/// Those whose writer tells the next version: of the last, only the patch of ours is left out that way.
const TOLD: [&str; 3] = ["none", "floor", "ours, told"];
/// Beside one alone.
const WRITERS: [usize; 2] = [8, MOST_WRITERS];
const MOST_WRITERS: usize = 32;
/// Of markdown in each write.
const MARKDOWN: usize = 4 * 1024;

/// The TaskRuns of a side.
struct Side {
    name: &'static str,
    /// Of each, where nobody else counts.
    versions: Vec<AtomicU64>,
    /// What each write begins anew.
    markdown: String,
    api: Api<DynamicObject>,
}

/// All of it.
pub fn run(plan: &Plan) -> Vec<Table> {
    let cluster = Cluster::start();
    cluster.install();
    // it reconciles nothing of what is written here
    let _operator = Operator::start(&cluster, &["--namespace=nowhere", "--log=warn"]);
    let select = |side: &str| json!({"matchLabels": {"bench": side}});
    let folder = plan.folder.join("certificate");
    let ca = direct::certificate(&folder, "127.0.0.1");
    let others = ["floor", "Go"].map(|side| (side, direct::start(plan, side, None, &folder)));
    for kind in ["mutating", "validating"] {
        let configuration = format!("{kind}webhookconfiguration");
        let ours = cluster.kubectl(&["get", &configuration, "taskrun-operator", "-o", "json"]).ok();
        let ours: Value = serde_json::from_str(&ours).expect("JSON");
        let path = if kind == "mutating" { "mutate" } else { "validate" };
        let patch = json!([{"op": "add", "path": "/webhooks/0/namespaceSelector", "value": select("ours")}]);
        cluster.kubectl(&["patch", &configuration, "taskrun-operator", "--type=json", "-p", &patch.to_string()]).ok();
        for (side, (_, address)) in &others {
            let mut other = ours.clone();
            other["metadata"] = json!({"name": format!("bench-{}", side.to_lowercase())});
            let webhook = &mut other["webhooks"][0];
            webhook["namespaceSelector"] = select(side);
            webhook["clientConfig"] = json!({"url": format!("https://{address}/{path}"), "caBundle": ca});
            cluster.kubectl_on(&["create"], &other).ok();
        }
    }
    cluster.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/policy.yaml")]).ok();
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(cluster.client());
    let sides = SIDES.map(|name| {
        let namespace = format!("bench-{}", name.to_lowercase().replace(", ", "-"));
        let labels = json!({"bench": name.split(',').next()});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
        cluster.kubectl_on(&["create"], &object).ok();
        let versions = (0..MOST_WRITERS).map(|_| AtomicU64::new(1)).collect();
        let api = Api::namespaced_with(client.clone(), &namespace, &support::task_run_resource());
        Side { name, versions, markdown: reviews::markdown(MARKDOWN), api }
    });
    // the API server takes a moment to know of configurations
    std::thread::sleep(Duration::from_secs(3));
    runtime.block_on(async {
        for side in &sides {
            join_all((0..MOST_WRITERS).map(|writer| side.create(writer))).await;
        }
        let mut tables = vec![alone(plan, &sides).await];
        for writers in WRITERS {
            tables.push(together(plan, &sides, writers).await);
        }
        tables
    })
}

/// One writer: each write of a side is followed by one of the next, so that all see the same machine.
async fn alone(plan: &Plan, sides: &[Side]) -> Table {
    let writes = if plan.is_quick { 60 } else { 250 };
    let mut seconds: Vec<Vec<Figures>> = sides.iter().map(|_| vec![Figures::default(); 2]).collect();
    let mut number = 0;
    for round in 0..=plan.rounds {
        let mut of_round: Vec<Vec<f64>> = sides.iter().map(|_| vec![]).collect();
        for _ in 0..writes {
            number += 1;
            for turn in 0..sides.len() {
                let side = (number + turn) % sides.len();
                of_round[side].push(sides[side].write(0, number).await);
            }
        }
        // the first is a warm-up
        for (figures, mut all) in seconds.iter_mut().zip(of_round).filter(|_| round > 0) {
            all.sort_unstable_by(f64::total_cmp);
            figures[0].0.push(quantile(&all, 0.5) * 1e3);
            figures[1].0.push(quantile(&all, 0.99) * 1e3);
        }
    }
    let columns = ["p50 ms", "added ms", "p99 ms"];
    let mut table = Table::new("A write through the API server, 1 writer", "admission", &columns);
    for (side, figures) in sides.iter().zip(&seconds) {
        let added = figures[0].minus(&seconds[0][0]);
        table.row(side.name, vec![figures[0].clone(), added, figures[1].clone()]);
    }
    table
}

/// Many writers, each of a TaskRun of its own.
async fn together(plan: &Plan, sides: &[Side], writers: usize) -> Table {
    let time = plan.seconds(4.0);
    let mut figures: Vec<[Figures; 3]> = sides.iter().map(|_| Default::default()).collect();
    let mut number = 1_000_000;
    for round in 0..plan.rounds {
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            number += 1_000_000;
            let (began, side) = (Instant::now(), &sides[at]);
            let all = join_all((0..writers).map(async |writer| {
                let mut seconds = vec![];
                while began.elapsed() < time {
                    seconds.push(side.write(writer, number + seconds.len()).await);
                }
                seconds
            }));
            let mut all = all.await.concat();
            all.sort_unstable_by(f64::total_cmp);
            #[expect(clippy::cast_precision_loss, reason = "thousands")]
            figures[at][0].0.push(all.len() as f64 / began.elapsed().as_secs_f64());
            figures[at][1].0.push(quantile(&all, 0.5) * 1e3);
            figures[at][2].0.push(quantile(&all, 0.99) * 1e3);
        }
    }
    let columns = ["writes/s", "by none's", "p50 ms", "p99 ms"];
    let mut table = Table::new(&format!("Writes through the API server, {writers} writers"), "admission", &columns);
    for (side, [rate, p50, p99]) in sides.iter().zip(&figures) {
        table.row(side.name, vec![rate.clone(), rate.by(&figures[0][0]), p50.clone(), p99.clone()]);
    }
    table
}

impl Side {
    /// The TaskRun of a writer.
    async fn create(&self, writer: usize) {
        let id = u32::try_from(writer).expect("a few") + 1;
        let mut object = support::task_run(id, &[("task.md", "do it")]);
        if TOLD.contains(&self.name) {
            object["spec"]["contextVersion"] = json!(1);
        }
        let object = serde_json::from_value(object).expect("an object");
        let created = self.api.create(&PostParams::default(), &object).await.expect("created");
        assert_eq!(created.data["spec"]["contextVersion"], 1, "{}", self.name);
    }

    /// Changes its context, and tells how many seconds that took.
    async fn write(&self, writer: usize, number: usize) -> f64 {
        let name = format!("task-{}", writer + 1);
        let text = format!("{number}: {}", self.markdown);
        let mut patch = json!({"spec": {"markdownFiles": support::markdown(&[("task.md", &text)])}});
        if TOLD.contains(&self.name) {
            patch["spec"]["contextVersion"] = json!(self.versions[writer].fetch_add(1, Ordering::Relaxed) + 1);
        }
        let began = Instant::now();
        let written = self.api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("written");
        let took = began.elapsed().as_secs_f64();
        assert!(written.data["spec"]["contextVersion"].as_u64().is_some_and(|version| version > 1), "{}", self.name);
        took
    }
}
