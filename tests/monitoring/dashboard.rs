//! Every query of the dashboard returns data while the operator is at work; and the plots of `docs/monitoring.md`,
//! which are drawn from the same queries.

use crate::prometheus::{JOB, Prometheus};
use crate::support::{Cluster, Namespace, Operator, free_port, markdown, task_run};
use crate::{plot, read, rules};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use taskrun_operator::clock;

const DASHBOARD: &str = "deploy/options/monitoring/dashboard.json";
/// How long the load goes on.
const LOAD: Duration = Duration::from_mins(1);
/// From one write to the next, at first.
const PAUSE: Duration = Duration::from_millis(600);
/// Grafana's: four times the time between two scrapes, and more.
const RATE_INTERVAL: &str = "15s";
/// The panels that are drawn, with the names of their files.
const PLOTS: [(&str, &str); 4] = [
    ("reviews", "Reviews"),
    ("review-time", "Time of a review"),
    ("phases", "TaskRuns by phase"),
    ("start-time", "From a version to its Job, to running"),
];

#[test]
#[expect(clippy::disallowed_methods, reason = "whether the plots are to be written, by `make plots`")]
fn every_query_of_the_dashboard_returns_data_under_load() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect(DASHBOARD);
    let cluster = Cluster::start();
    cluster.install();
    let addresses: [[SocketAddr; 2]; 2] =
        std::array::from_fn(|_| [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port()))));
    let replicas = addresses.map(|at| Operator::launch_at(&cluster, at, &[]));
    replicas[0].wait_ready();
    let prometheus = Prometheus::start(&cluster, &addresses.map(|[_, admin]| admin), &rules::rules());
    let began = now();
    load(&cluster.namespace(&json!({"kwok.test/run-for": "8s"})));
    let ended = now();

    let panels = dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row");
    let mut silent = vec![];
    for panel in panels {
        assert_eq!(panel["datasource"], json!({"uid": "${datasource}"}), "{}", panel["title"]);
        for query in queries(panel) {
            let series = prometheus.query(&query);
            if !series.iter().any(|series| number(&series["value"]).is_finite()) {
                silent.push(format!("{}: {query}: {series:?}", panel["title"]));
            }
        }
    }
    assert!(silent.is_empty(), "without data: {silent:#?}");
    assert_variables(&dashboard, &prometheus);
    for (file, title) in PLOTS {
        let panel = dashboard["panels"].as_array().expect("panels").iter().find(|panel| panel["title"] == title);
        let drawn = draw(panel.expect(title), &prometheus, began, ended);
        if std::env::var_os("TASKRUN_PLOTS").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/monitoring/{file}.svg"));
            std::fs::write(path, drawn).expect("a file");
        }
    }
}

/// The variables are those that the queries use, and Prometheus has what is to be chosen.
fn assert_variables(dashboard: &Value, prometheus: &Prometheus) {
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "job"]);
    let query = variables[1]["query"]["query"].as_str().expect("a query");
    let (metric, label) =
        query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')?.split_once(", ")).expect("one");
    let found = prometheus.query(metric);
    assert!(!found.is_empty() && found.iter().all(|series| series["metric"][label] == JOB), "{found:?}");
}

/// Those of a panel, with Grafana's variables filled in.
fn queries(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().expect("targets").iter();
    let filled = targets.map(|target| target["expr"].as_str().expect("a query"));
    let filled = filled.map(|query| query.replace("$job", JOB).replace("$__rate_interval", RATE_INTERVAL));
    filled.inspect(|query| assert!(!query.contains('$'), "a variable that nobody fills in: {query}")).collect()
}

/// Creates and edits TaskRuns, ever faster and then slower, and some that are refused, fail, wait or are cancelled.
fn load(ns: &Namespace<'_>) {
    let started = Instant::now();
    let mut waits = task_run(1_000, &[("task.md", "do it")]);
    waits["spec"]["agentName"] = json!("nobody");
    ns.create(&waits).ok();
    for id in 1.. {
        let gone = started.elapsed();
        if gone >= LOAD {
            break;
        }
        ns.create(&task_run(id, &[("task.md", "do it")])).ok();
        if id % 2 == 0 {
            let files = markdown(&[("task.md", &format!("do it {}", "well ".repeat(40 * (id as usize % 500))))]);
            ns.merge(&format!("taskrun/task-{}", id / 2), &json!({"spec": {"markdownFiles": files}})).ok();
        }
        if id % 5 == 0 {
            ns.create(&task_run(2_000, &[("task.md", " ")])).refused();
        }
        // from slow to fast and back
        let part = gone.as_secs_f64() / LOAD.as_secs_f64();
        sleep(PAUSE.mul_f64((2.0 * part - 1.0).abs()));
    }
}

fn draw(panel: &Value, prometheus: &Prometheus, began: f64, ended: f64) -> String {
    let targets = panel["targets"].as_array().expect("targets");
    let mut lines = vec![];
    for (query, target) in queries(panel).iter().zip(targets) {
        let legend = target["legendFormat"].as_str().expect("a legend");
        for series in prometheus.query_range(query, began, ended) {
            let labels = series["metric"].as_object().expect("labels").iter();
            let name = labels.fold(legend.to_owned(), |name, (label, value)| {
                name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
            });
            let points = series["values"].as_array().expect("values").iter();
            let points = points.map(|point| (point[0].as_f64().expect("a time") - began, number(point)));
            lines.push(plot::Line { name, points: points.filter(|(_, value)| value.is_finite()).collect() });
        }
    }
    let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().expect("a unit");
    plot::svg(panel["title"].as_str().expect("a title"), unit, &lines)
}

/// The value of a point, which Prometheus writes as a text.
fn number(point: &Value) -> f64 {
    point[1].as_str().and_then(|value| value.parse().ok()).expect("a number")
}

fn now() -> f64 {
    clock::now().as_duration().as_secs_f64()
}
