//! What `/metrics` says of what really happened, and that promtool has nothing to say against it.

use crate::reconcile::{TASK, end};
use crate::support::{Cluster, Namespace, Operator, Output, PATIENCE, agent, build, markdown, task_run};
use serde_json::json;
use std::time::{Duration, Instant};

const DENIED: &str =
    r#"admission_reviews_total{decision="denied",operation="create",reason="empty_file",webhook="validate"}"#;

/// The value of a series, named as it stands in the text; none where it is not there.
fn value(operator: &Operator, series: &str) -> Option<f64> {
    let text = operator.http("/metrics").expect("an answer");
    text.lines().find_map(|line| line.strip_prefix(&format!("taskrun_{series} "))?.parse().ok())
}

fn wait_value(operator: &Operator, series: &str, is_so: impl Fn(f64) -> bool) {
    let started = Instant::now();
    while !value(operator, series).is_some_and(&is_so) {
        assert!(started.elapsed() < PATIENCE, "{series} stays at {:?}", value(operator, series));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn assert_values(operator: &Operator, expected: &[(&str, f64)]) {
    for (series, expected) in expected {
        assert_eq!(value(operator, series), Some(*expected), "{series}");
    }
}

fn add_context(ns: &Namespace<'_>, text: &str) {
    ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("task.md", text)])}})).ok();
}

#[test]
fn what_happens_is_counted_once_and_a_restart_counts_nothing_again() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    assert_values(
        &operator,
        &[
            (DENIED, 0.0),
            (r#"runs_total{outcome="Succeeded"}"#, 0.0),
            (r#"reconcile_errors_total{reason="refused"}"#, 0.0),
            ("context_version_bumps_total", 0.0),
        ],
    );
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "until-told"}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase(TASK, 1, "Running");
    for version in 2..5 {
        add_context(&ns, &format!("do {version}"));
        ns.wait_phase(TASK, version, "Running");
    }
    ns.create(&task_run(2, &[("task.md", "<!-- nothing -->")])).refused();
    wait_value(&operator, "version_to_running_seconds_count", |count| count >= 4.0);
    assert_values(
        &operator,
        &[
            ("context_version_bumps_total", 3.0),
            ("version_to_job_seconds_count", 4.0),
            ("version_to_running_seconds_count", 4.0),
            (r#"runs_total{outcome="Superseded"}"#, 3.0),
            // and the trial of the Agent
            (r#"apiserver_requests_total{code="201",resource="jobs",verb="create"}"#, 4.0 + 1.0),
            (DENIED, 1.0),
            (r#"admission_reviews_total{decision="patched",operation="update",reason="none",webhook="mutate"}"#, 3.0),
            (r#"taskruns{phase="Running"}"#, 1.0),
            ("admission_in_flight", 0.0),
        ],
    );
    stalls_and_is_tried_again(&ns, &operator);
    has_nothing_against(&operator);

    // its run ends while nobody is there to see it
    operator.kill();
    operator.wait_end();
    end(&ns, 4, "succeeded");
    let operator = operator.restart(&[]);
    ns.wait_phase(TASK, 4, "Succeeded");
    wait_value(&operator, r#"taskruns{phase="Succeeded"}"#, |count| count > 0.0);
    let once = [
        (r#"runs_total{outcome="Succeeded"}"#, 1.0),
        (r#"runs_total{outcome="Superseded"}"#, 0.0),
        ("context_version_bumps_total", 0.0),
        ("version_to_job_seconds_count", 0.0),
    ];
    assert_values(&operator, &once);
    operator.kill();
    operator.wait_end();
    let operator = operator.restart(&[]);
    operator.wait_ready();
    wait_value(&operator, r#"taskruns{phase="Succeeded"}"#, |count| count > 0.0);
    assert_values(&operator, &[(r#"runs_total{outcome="Succeeded"}"#, 0.0)]);
    assert!(value(&operator, r#"cache_age_seconds{resource="taskruns"}"#).is_some_and(|age| age < 60.0));
}

/// A Job that the API server refuses.
fn stalls_and_is_tried_again(ns: &Namespace<'_>, operator: &Operator) {
    let mut bad = agent("bad", &json!({}));
    let container = &mut bad["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"limits": {"cpu": "banana"}});
    ns.create(&bad).ok();
    let mut task = task_run(3, &[("task.md", "do it")]);
    task["spec"]["agentName"] = json!("bad");
    ns.create(&task).ok();
    wait_value(operator, "taskruns_stalled", |count| count >= 1.0);
    wait_value(operator, r#"reconcile_errors_total{reason="refused"}"#, |count| count >= 1.0);
    wait_value(operator, "reconcile_retries_total", |count| count >= 1.0);
    assert_values(operator, &[(r#"taskruns{phase="Pending"}"#, 1.0), ("taskruns_stalled", 1.0)]);
}

/// What promtool says of all that is served.
fn has_nothing_against(operator: &Operator) {
    let answer = operator.http("/metrics").expect("an answer");
    let (_, text) = answer.split_once("\r\n\r\n").expect("a body");
    let mut promtool = std::process::Command::new(build("prometheus").join("promtool"));
    promtool.args(["check", "metrics"]);
    let said = Output::of(promtool, text);
    assert!(said.ok && said.stdout.is_empty() && said.stderr.is_empty(), "{}{}", said.stdout, said.stderr);
}
