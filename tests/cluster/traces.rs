//! Traces: a version is one, from its admission to its end; and whatever becomes of the collector, nobody waits for it.

use crate::reconcile::TASK;
use crate::support::{Cluster, Operator, markdown, task_run};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a collector does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Collects {
    All,
    Nothing,
    Silently,
}

/// A collector on loopback, as long as the test.
struct Collector {
    endpoint: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(what: Collects) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let bodies = Arc::default();
        let kept = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, what, &kept));
            }
        });
        Self { endpoint, bodies }
    }

    fn requests(&self) -> usize {
        self.bodies.lock().expect("no panic").len()
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().expect("no panic");
        let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(&**body).expect("OTLP"));
        requests.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }
}

/// Answers the requests of a connection until it ends.
fn serve(mut stream: TcpStream, what: Collects, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        kept.lock().expect("no panic").push(body);
        let status = match what {
            Collects::All => "200 OK",
            Collects::Nothing => "500 Internal Server Error",
            Collects::Silently => continue,
        };
        if write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn launch(cluster: &Cluster, endpoint: &str, env: &[(&str, &str)]) -> Operator {
    let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", Path::new(endpoint))];
    all.extend(env.iter().map(|(name, value)| (*name, Path::new(*value))));
    let operator = Operator::launch_in(cluster, &all, &["--log=info,taskrun_operator=trace"]);
    operator.wait_ready();
    operator
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Attribute::StringValue(text) => Some(text.clone()),
        Attribute::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is(span: &Span, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| attribute(span, key).as_deref() == Some(value))
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn annotation(task: &Value) -> Option<&str> {
    task["metadata"]["annotations"]["orchestrator.io/traceparent"].as_str()
}

/// The trace and the span of a `traceparent`.
fn ids(traceparent: &str) -> (String, String) {
    let parts: Vec<&str> = traceparent.split('-').collect();
    (parts[1].to_owned(), parts[2].to_owned())
}

fn env_of(job: &Value) -> Option<&str> {
    let env = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
    env.iter().find(|var| var["name"] == "TRACEPARENT")?["value"].as_str()
}

#[test]
fn a_version_is_one_trace_from_its_admission_to_its_end() {
    let (cluster, collector) = (Cluster::start(), Collector::start(Collects::All));
    cluster.install();
    // so late that all of it is what the end sends
    let operator = launch(&cluster, &collector.endpoint, &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]);
    let ns = cluster.namespace(&json!({}));
    ns.create(&task_run(1, &[("task.md", "secret words")])).ok();
    let first = ns.wait_phase(TASK, 1, "Succeeded");
    ns.kubectl(&["annotate", TASK, "--overwrite", "orchestrator.io/traceparent=mine"]).ok();
    assert_eq!(annotation(&ns.get(TASK)), annotation(&first), "it goes with the version alone");
    let edit = json!({"spec": {"markdownFiles": markdown(&[("task.md", "secret words, more")])}}).to_string();
    ns.kubectl(&["patch", TASK, "--type=merge", "-p", &edit, "--dry-run=server"]).ok();
    assert_eq!(annotation(&ns.get(TASK)), annotation(&first), "nothing is stored");
    ns.kubectl(&["patch", TASK, "--type=merge", "-p", &edit]).ok();
    let second = ns.wait_phase(TASK, 2, "Succeeded");
    operator.signal("TERM");
    let log = operator.wait_end();

    let (spans, uid) = (collector.spans(), first["metadata"]["uid"].as_str().expect("a uid"));
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (version, task) in [("1", &first), ("2", &second)] {
        let traceparent = annotation(task).expect("an annotation");
        assert_eq!(env_of(&ns.get(&format!("job/svc-1-v{version}"))), Some(traceparent));
        let (trace, admission) = ids(traceparent);
        let ours: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == trace).collect();
        let of = |name: &'static str| ours.iter().filter(move |span| span.name == name);
        let about = [("namespace", ns.name.as_str()), ("task_run", "task-1"), ("version", version)];
        assert!(ours.iter().all(|span| attribute(span, "version").is_none() || is(span, &about)), "of one version");

        let root = of("admission").find(|span| hex(&span.span_id) == admission).expect("the mutating one");
        assert!(is(root, &[("webhook", "Mutate"), ("decision", "Patched"), ("dry_run", "false")]), "{root:?}");
        assert!(root.parent_span_id.is_empty());
        let judged = of("admission").find(|span| is(span, &[("webhook", "Validate")])).expect("the validating one");
        let reconciles: Vec<&&Span> = of("reconcile").collect();
        assert!(!reconciles.is_empty() && reconciles.iter().all(|span| is(span, &[("uid", uid)])));
        for span in reconciles.iter().chain([&judged]) {
            assert_eq!(hex(&span.parent_span_id), admission, "{span:?}");
        }
        let job = format!("svc-1-v{version}");
        for (write, object) in [("CreateJob", job.as_str()), ("PatchStatus", "Running"), ("PatchStatus", "Succeeded")] {
            let span = of(write).find(|span| is(span, &[("object", object)]));
            let span = span.unwrap_or_else(|| panic!("no {write} {object}"));
            assert!(reconciles.iter().any(|reconcile| reconcile.span_id == span.parent_span_id), "{span:?}");
        }
        let told = |line: &&Value| line["span"]["trace_id"] == *trace && line["span"]["task_run"] == "task-1";
        let told: Vec<&Value> = lines.iter().filter(told).collect();
        assert!(told.iter().all(|line| line["span"]["version"].as_u64() == version.parse().ok()), "{told:?}");
        assert!(told.iter().any(|line| line["span"]["span_id"] == *admission && line["message"] == "reviewed"));
        assert!(told.iter().any(|line| line["message"] == "task run" && line["span"]["uid"] == *uid), "{told:?}");
    }
    assert_ne!(ids(annotation(&first).expect("one")).0, ids(annotation(&second).expect("one")).0);
    assert!(spans.iter().any(|span| is(span, &[("dry_run", "true"), ("version", "2")])), "the dry run");
    let bodies = collector.bodies.lock().expect("no panic");
    assert!(bodies.iter().all(|body| !String::from_utf8_lossy(body).contains("secret words")), "markdown in a trace");
}

#[test]
fn an_admission_belongs_to_the_trace_of_the_api_server() {
    let config = std::env::temp_dir().join(format!("taskrun-test-tracing-{}.yaml", std::process::id()));
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: 127.0.0.1:9\nsamplingRatePerMillion: 1000000\n";
    std::fs::write(&config, text).expect("a file");
    let cluster = Cluster::start_with(&[&format!("--tracing-config-file={}", config.display())]);
    cluster.install();
    let collector = Collector::start(Collects::All);
    let operator = launch(&cluster, &collector.endpoint, &[]);
    let ns = cluster.namespace(&json!({}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    let task = ns.wait_phase(TASK, 1, "Succeeded");
    operator.signal("TERM");
    operator.wait_end();
    let _ = std::fs::remove_file(config);
    let (trace, admission) = ids(annotation(&task).expect("an annotation"));
    let spans = collector.spans();
    let root = spans.iter().find(|span| hex(&span.span_id) == admission).expect("the mutating one");
    assert_eq!((hex(&root.trace_id), root.parent_span_id.len()), (trace.clone(), 8), "{root:?}");
    let judged = spans.iter().find(|span| is(span, &[("webhook", "Validate"), ("task_run", "task-1")]));
    let judged = judged.expect("the validating one");
    assert_eq!((hex(&judged.trace_id), judged.parent_span_id.len()), (trace, 8), "{judged:?}");
}

#[test]
fn whatever_the_collector_does_writes_and_runs_go_on() {
    let cluster = Cluster::start();
    cluster.install();
    let gone = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address");
    let broken = Collector::start(Collects::Nothing);
    let silent = Collector::start(Collects::Silently);
    let cases = [("gone", &*format!("http://{gone}")), ("broken", &*broken.endpoint), ("silent", &*silent.endpoint)];
    for (case, endpoint) in cases {
        let env = [("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_BSP_MAX_QUEUE_SIZE", "2")];
        let operator = launch(&cluster, endpoint, &env);
        let ns = cluster.namespace(&json!({}));
        for id in 1..6 {
            ns.create(&task_run(id, &[("task.md", "do it")])).ok();
        }
        (1..6).for_each(|id| drop(ns.wait_phase(&format!("taskrun/task-{id}"), 1, "Succeeded")));
        let started = Instant::now();
        operator.signal("TERM");
        let log = operator.wait_end();
        assert!(started.elapsed() < Duration::from_secs(10), "{case}: the end waits {:?}", started.elapsed());
        let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        match case {
            "silent" => assert_eq!(told("SpanDroppingStarted"), 1, "{case}: {log}"),
            _ => assert_eq!(told("failed to send spans"), 1, "{case}: {log}"),
        }
    }
    assert!(broken.requests() > 0 && silent.requests() > 0);
}

#[test]
fn without_an_endpoint_there_are_no_traces() {
    let cluster = Cluster::start();
    cluster.install();
    let collector = Collector::start(Collects::All);
    for (env, spans) in [([("OTEL_SDK_DISABLED", "true")], false), ([("OTEL_SDK_DISABLED", "false")], true)] {
        let operator = launch(&cluster, &collector.endpoint, &env);
        let ns = cluster.namespace(&json!({}));
        ns.create(&task_run(1, &[("task.md", "do it")])).ok();
        let task = ns.wait_phase(TASK, 1, "Succeeded");
        operator.signal("TERM");
        let log = operator.wait_end();
        assert_eq!((annotation(&task).is_some(), env_of(&ns.get("job/svc-1-v1")).is_some()), (spans, spans));
        assert_eq!(collector.requests() > 0, spans);
        // the same words name a task in logs with and without
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = lines.filter(|line| line["message"] == "task run" && line["span"]["version"] == 1);
        assert!(told.clone().count() > 0 && told.clone().all(|line| line["span"]["uid"] == task["metadata"]["uid"]));
        assert!(told.clone().all(|line| line["span"]["trace_id"].is_string() == spans));
    }
}
