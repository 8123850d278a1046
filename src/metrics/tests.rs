//! Each increment, by the text that is served.

use super::*;
use crate::admission::{About, Decision, Operation, Reason, Reviewed, Webhook};
use crate::crd::{Outcome, Phase};
use http::{Method, StatusCode, Uri};
use k8s_openapi::jiff::Timestamp;
use std::time::{Duration, Instant, UNIX_EPOCH};

fn metrics() -> Metrics {
    Metrics::new().expect("metrics")
}

/// The value of a series, given as it stands in the text.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = String::from_utf8(metrics.render()).expect("text");
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn reviewed(decision: Decision, reason: Option<Reason>) -> Reviewed {
    Reviewed { body: None, decision, reason, operation: Operation::Update, about: About::default() }
}

#[test]
fn reviews_are_counted_by_what_was_decided_and_why() {
    let metrics = metrics();
    let denied = reviewed(Decision::Denied, Some(Reason::EmptyFile));
    metrics.admission.reviewed(Webhook::Validate, &denied, 2_000, Duration::from_micros(60));
    metrics.admission.reviewed(Webhook::Mutate, &reviewed(Decision::Patched, None), 9, Duration::ZERO);
    let labels = r#"{decision="denied",operation="update",reason="empty_file",webhook="validate"}"#;
    assert_eq!(value(&metrics, &format!("taskrun_admission_reviews_total{labels}")), Some(1.0));
    let labels = r#"{decision="patched",operation="update",reason="none",webhook="mutate"}"#;
    assert_eq!(value(&metrics, &format!("taskrun_admission_reviews_total{labels}")), Some(1.0));
    let bucket = |name: &str, le: &str| {
        value(&metrics, &format!(r#"taskrun_admission_review_{name}_bucket{{webhook="validate",le="{le}"}}"#))
    };
    assert_eq!((bucket("duration_seconds", "0.00005"), bucket("duration_seconds", "0.0001")), (Some(0.0), Some(1.0)));
    assert_eq!((bucket("size_bytes", "1024"), bucket("size_bytes", "4096")), (Some(0.0), Some(1.0)));
}

#[test]
fn words_stand_in_the_order_of_what_they_are_for() {
    for (reason, word) in [(Reason::TaskId, "task_id"), (Reason::TooLarge, "too_large"), (Reason::Panic, "panic")] {
        assert_eq!(reason.as_str(), word);
    }
    let rules: Vec<_> = Reason::RULES.into_iter().map(Reason::as_str).collect();
    assert_eq!(rules, Reason::WORDS[..rules.len()]);
    let metrics = metrics();
    for (why, word) in [(Refused::Path, "path"), (Refused::CutOff, "cut_off"), (Refused::Time, "time")] {
        let series = format!(r#"taskrun_admission_refused_total{{reason="{word}"}}"#);
        assert_eq!(value(&metrics, &series), Some(0.0), "there from the start");
        metrics.admission.refused(why);
        assert_eq!(value(&metrics, &series), Some(1.0));
    }
    for (failure, word) in
        [(Failure::Conflict, "conflict"), (Failure::Timeout, "timeout"), (Failure::Connection, "connection")]
    {
        metrics.reconciler.reconciled(Err(failure), Duration::ZERO);
        let series = format!(r#"taskrun_reconcile_errors_total{{reason="{word}"}}"#);
        assert_eq!(value(&metrics, &series), Some(1.0));
    }
}

#[test]
fn what_is_in_flight_or_held_is_given_back() {
    let metrics = metrics();
    let review = metrics.admission.review_begins();
    assert_eq!(value(&metrics, "taskrun_admission_in_flight"), Some(1.0));
    drop(review);
    metrics.admission.holds(9);
    metrics.admission.holds(-9);
    metrics.admission.connection_closed();
    assert_eq!(value(&metrics, "taskrun_admission_in_flight"), Some(0.0));
    assert_eq!(value(&metrics, "taskrun_admission_body_bytes"), Some(0.0));
    assert_eq!(value(&metrics, "taskrun_admission_connections_closed_total"), Some(1.0));
}

#[test]
fn a_certificate_is_told_by_its_end_and_whether_it_was_read() {
    let metrics = metrics();
    metrics.certificate.served(Timestamp::from_second(7).expect("a time"));
    metrics.certificate.loaded(false);
    assert_eq!(value(&metrics, "taskrun_certificate_expiry_timestamp_seconds"), Some(7.0));
    assert_eq!(value(&metrics, r#"taskrun_certificate_loads_total{result="error"}"#), Some(1.0));
    assert_eq!(value(&metrics, "taskrun_certificate_last_load_successful"), Some(0.0));
}

#[test]
fn reconciles_runs_and_versions_are_counted() {
    let metrics = metrics();
    metrics.reconciler.reconciled(Ok(()), Duration::from_millis(7));
    metrics.runs.bumped(3);
    metrics.runs.bumped(0);
    metrics.runs.ended(Outcome::Superseded);
    metrics.runs.has_job(Duration::from_millis(40));
    metrics.runs.running(Duration::from_secs(3));
    for (series, expected) in [
        (r#"taskrun_reconciles_total{result="ok"}"#, 1.0),
        (r#"taskrun_reconciles_total{result="error"}"#, 0.0),
        (r#"taskrun_reconcile_duration_seconds_bucket{result="ok",le="0.005"}"#, 0.0),
        (r#"taskrun_reconcile_duration_seconds_bucket{result="ok",le="0.01"}"#, 1.0),
        ("taskrun_context_version_bumps_total", 3.0),
        (r#"taskrun_runs_total{outcome="Superseded"}"#, 1.0),
        (r#"taskrun_runs_total{outcome="Unknown"}"#, 0.0),
        (r#"taskrun_version_to_job_seconds_bucket{le="0.025"}"#, 0.0),
        (r#"taskrun_version_to_job_seconds_bucket{le="0.05"}"#, 1.0),
        (r#"taskrun_version_to_running_seconds_bucket{le="2.5"}"#, 0.0),
        (r#"taskrun_version_to_running_seconds_bucket{le="5"}"#, 1.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series}");
    }
}

#[test]
fn a_reconcile_waits_from_when_it_was_due_or_from_when_this_process_began_to_lead() {
    let metrics = metrics();
    let an_hour_ago = Instant::now().checked_sub(Duration::from_hours(1)).expect("a machine that runs for an hour");
    metrics.reconciler.began(an_hour_ago, false);
    metrics.reconciler.leads(true);
    metrics.reconciler.began(an_hour_ago, true);
    let waits = |le: &str| value(&metrics, &format!(r#"taskrun_reconcile_queue_wait_seconds_bucket{{le="{le}"}}"#));
    assert_eq!((waits("10"), waits("+Inf")), (Some(1.0), Some(2.0)));
    assert_eq!(value(&metrics, "taskrun_reconcile_retries_total"), Some(1.0));
}

#[test]
fn what_is_seen_is_told_by_the_leader_alone_and_summed_over_its_watches() {
    let metrics = metrics();
    for waiting in [1, 2] {
        metrics.reconciler.look_at(move || {
            let mut seen = Seen::waiting(waiting);
            seen.add(Some(Phase::Running), true);
            seen.add(Some(Phase::Failed), false);
            seen.add(None, false);
            seen
        });
    }
    let phase = |phase: &str| value(&metrics, &format!(r#"taskrun_taskruns{{phase="{phase}"}}"#));
    let all = || {
        (
            value(&metrics, "taskrun_reconcile_queue_depth"),
            value(&metrics, "taskrun_taskruns_stalled"),
            phase("Running"),
        )
    };
    assert_eq!(all(), (Some(0.0), Some(0.0), None), "a standby");
    metrics.reconciler.leads(true);
    assert_eq!(all(), (Some(3.0), Some(2.0), Some(2.0)));
    assert_eq!((phase("Pending"), phase("Failed"), phase("Unreadable")), (Some(0.0), Some(2.0), Some(2.0)));
    assert_eq!(value(&metrics, "taskrun_leader"), Some(1.0));
    metrics.reconciler.leads(false);
    assert_eq!(all(), (Some(0.0), Some(0.0), None), "nothing stale is left");
}

#[test]
fn calls_are_counted_by_verb_resource_and_code() {
    let metrics = metrics();
    let call = |method: Method, path: &'static str, status: u16| {
        let call = metrics.calls.begin(&method, &Uri::from_static(path));
        call.answered(StatusCode::from_u16(status).expect("a status"));
    };
    for (method, path, status, expected) in [
        (Method::GET, "/apis/orchestrator.io/v1/taskruns?&limit=500", 200, ("200", "taskruns", "list")),
        (Method::GET, "/apis/orchestrator.io/v1/namespaces/a/taskruns/task-1", 404, ("404", "taskruns", "get")),
        (
            Method::PATCH,
            "/apis/orchestrator.io/v1/namespaces/a/taskruns/task-1/status?",
            409,
            ("409", "taskruns/status", "patch"),
        ),
        (Method::PUT, "/apis/orchestrator.io/v1/namespaces/a/taskruns/task-1/scale", 200, ("200", "other", "update")),
        (Method::POST, "/apis/batch/v1/namespaces/a/jobs", 201, ("201", "jobs", "create")),
        (Method::DELETE, "/api/v1/namespaces/jobs/pods/x", 200, ("200", "pods", "delete")),
        (Method::GET, "/api/v1/namespaces/a", 299, ("other", "namespaces", "get")),
        (Method::GET, "/version", 200, ("200", "other", "list")),
        (Method::DELETE, "/api/v1/namespaces/a/pods", 200, ("200", "pods", "other")),
        (Method::POST, "/apis/example.test/v1/namespaces/a/somebody-elses", 403, ("403", "other", "create")),
    ] {
        call(method, path, status);
        let (code, resource, verb) = expected;
        let labels = format!(r#"{{code="{code}",resource="{resource}",verb="{verb}"}}"#);
        assert_eq!(value(&metrics, &format!("taskrun_apiserver_requests_total{labels}")), Some(1.0), "{path}");
    }
    drop(metrics.calls.begin(&Method::GET, &Uri::from_static("/api/v1/namespaces/a/pods/b")));
    let labels = r#"{code="none",resource="pods",verb="get"}"#;
    assert_eq!(value(&metrics, &format!("taskrun_apiserver_requests_total{labels}")), Some(1.0), "given up");
    assert_eq!(value(&metrics, r#"taskrun_apiserver_request_duration_seconds_count{verb="get"}"#), Some(3.0));
}

#[test]
fn the_cache_is_as_old_as_the_watch_that_was_opened_first() {
    let metrics = metrics();
    let age = |resource: &str| {
        value(&metrics, &format!(r#"taskrun_cache_age_seconds{{resource="{resource}"}}"#)).expect("an age")
    };
    let watch = |path: &'static str, status: u16| {
        let call = metrics.calls.begin(&Method::GET, &Uri::from_static(path));
        call.answered(StatusCode::from_u16(status).expect("a status"));
    };
    let open = |path: &'static str| {
        let began = Instant::now();
        watch(path, 200);
        began
    };
    open("/api/v1/namespaces/a/pods?&watch=true&timeoutSeconds=20");
    let after_a = Instant::now();
    let b = open("/api/v1/namespaces/b/pods?&watch=true");
    watch("/api/v1/namespaces/a/pods?&watch=true", 500);
    watch("/api/v1/namespaces/a/pods", 200);
    let since_a = after_a.elapsed().as_secs_f64();
    assert!(age("pods") >= since_a, "one watch was not opened anew");
    let pods = age("pods");
    assert!(age("jobs") > pods, "what was never watched is as old as the process");
    open("/api/v1/namespaces/a/pods?&watch=true");
    let aged = age("pods");
    assert!(aged <= b.elapsed().as_secs_f64(), "the other is the oldest now");
}

#[test]
fn the_process_tells_of_itself() {
    let metrics = metrics();
    let text = String::from_utf8(metrics.render()).expect("text");
    assert!(text.contains(r#"taskrun_build_info{revision="unknown",rustc="1."#), "{text}");
    for name in
        ["start_time_seconds", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds", "threads"]
    {
        assert!(value(&metrics, &format!("process_{name}")).is_some_and(|value| value > 0.0), "{name}: {text}");
    }
    let now = i64::try_from(UNIX_EPOCH.elapsed().expect("a time").as_secs()).expect("a time");
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let started = value(&metrics, "process_start_time_seconds").expect("a time") as i64;
    assert!((now - 3_600..=now + 1).contains(&started), "{started} is not shortly before {now}");
    let before = value(&metrics, "process_cpu_seconds_total").expect("a time");
    let began = Instant::now();
    while value(&metrics, "process_cpu_seconds_total").expect("a time") <= before {
        assert!(began.elapsed() < Duration::from_secs(30), "it works and takes no time");
    }
}

#[test]
fn the_document_has_a_line_for_all_that_is_served() {
    let metrics = metrics();
    metrics.reconciler.leads(true);
    metrics.calls.begin(&Method::GET, &Uri::from_static("/version")).answered(StatusCode::OK);
    let text = String::from_utf8(metrics.render()).expect("text");
    let served: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let document = metrics.document();
    for (name, kind) in &served {
        assert!(document.contains(&format!("| `{name}` | {kind} | ")), "{name} is not in it");
    }
    assert_eq!(document.lines().filter(|line| line.starts_with("| `")).count(), served.len());
}
