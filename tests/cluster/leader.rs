//! Two operators on one control plane: one acts, and the other follows when it ends, dies or sleeps.

use crate::support::{ApiWrite, Cluster, Namespace, Operator, PATIENCE, task_run};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "compared with the audit log of the same machine")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// A second operator, which stands by. It has an address of its own, which only the leader makes known: it is ready when
/// it leads.
fn standby(cluster: &Cluster) -> Operator {
    let operator = Operator::launch(cluster, &["--shutdown-delay=5"]);
    wait_standby(&operator);
    operator
}

fn wait_standby(operator: &Operator) {
    let started = Instant::now();
    while operator.http("/readyz").is_none_or(|answer| !answer.contains("is called at another address")) {
        assert!(started.elapsed() < PATIENCE, "no standby: {}", operator.log());
        sleep(Duration::from_millis(20));
    }
    let metrics = operator.http("/metrics").expect("an answer");
    assert!(metrics.contains("\ntaskrun_leader 0\n"), "{metrics}");
    assert!(!metrics.contains("\ntaskrun_taskruns{"), "only the leader counts them: {metrics}");
}

fn writes_of(cluster: &Cluster, credential: &str) -> Vec<ApiWrite> {
    let mut writes = cluster.operator_writes();
    // `kubectl auth whoami` is one of the test's own
    writes.retain(|write| write.credential == credential && write.resource != "selfsubjectreviews");
    writes
}

/// Waits for an operator's first write after a time.
fn first_write(cluster: &Cluster, credential: &str, after: Timestamp) -> ApiWrite {
    let started = Instant::now();
    loop {
        if let Some(write) = writes_of(cluster, credential).into_iter().find(|write| write.at > after) {
            return write;
        }
        assert!(started.elapsed() < PATIENCE, "no write");
        sleep(Duration::from_millis(50));
    }
}

/// Creates tasks, one after the other, for a while.
fn stream(ns: &Namespace<'_>, ids: std::ops::Range<u32>) {
    for id in ids {
        ns.create(&task_run(id, &[("task.md", "do it")])).ok();
        sleep(Duration::from_millis(50));
    }
}

fn wait_all_succeeded(ns: &Namespace<'_>, ids: std::ops::Range<u32>) {
    for id in ids {
        ns.wait_phase(&format!("taskrun/task-{id}"), 1, "Succeeded");
    }
}

#[test]
fn one_of_two_acts_and_the_other_follows_at_once_when_it_is_told_to_end() {
    let cluster = Cluster::start();
    cluster.install();
    let leader = Operator::start(&cluster, &["--shutdown-delay=5"]);
    let next = standby(&cluster);
    let credentials = [&leader, &next].map(|operator| operator.credential(&cluster));
    assert_ne!(credentials[0], credentials[1]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "2s"}));
    stream(&ns, 1..11);
    wait_all_succeeded(&ns, 1..11);
    assert_eq!(writes_of(&cluster, &credentials[1]).len(), 0, "a standby writes nothing");
    assert!(leader.http("/metrics").is_some_and(|metrics| metrics.contains("\ntaskrun_leader 1\n")));

    // its webhook serves on while the other takes over
    let told = std::thread::scope(|scope| {
        let tasks = scope.spawn(|| stream(&ns, 11..41));
        sleep(Duration::from_secs(1));
        let told = now();
        leader.signal("TERM");
        tasks.join().expect("no panic");
        told
    });
    let first = first_write(&cluster, &credentials[1], told);
    println!("first write {:.2} s after SIGTERM", seconds(told, first.at));
    next.wait_ready();
    leader.wait_end();
    println!("the leader ended {:.2} s after SIGTERM", seconds(told, now()));
    wait_all_succeeded(&ns, 11..41);
    let last = writes_of(&cluster, &credentials[0]).pop().expect("a write").at;
    assert!(last < first.at, "the one has ended when the other begins: {last} {first:?}");
    assert!(seconds(told, first.at) < 5.0);
    let lease: Value = serde_json::from_str(
        &cluster.kubectl(&["-n", "taskrun-system", "get", "lease", "taskrun-operator", "-o", "json"]).ok(),
    )
    .expect("JSON");
    assert_eq!(lease["spec"]["leaseTransitions"], 2, "{lease}");
}

#[test]
fn one_that_may_not_even_look_ends_when_it_is_told_to() {
    let cluster = Cluster::start();
    cluster.install();
    let role: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "clusterrole", "taskrun-operator", "-o", "json"]).ok())
            .expect("JSON");
    let rules = role["rules"].as_array().expect("rules").iter().filter(|rule| rule["resources"][0] != "pods");
    let without_pods = json!({"rules": rules.collect::<Vec<_>>()}).to_string();
    cluster.kubectl(&["patch", "clusterrole", "taskrun-operator", "--type=merge", "-p", &without_pods]).ok();
    let operator = Operator::start(&cluster, &[]);
    operator.signal("TERM");
    operator.wait_end();
    let lease = cluster.kubectl(&["-n", "taskrun-system", "get", "lease", "taskrun-operator", "-o", "json"]).ok();
    let lease: Value = serde_json::from_str(&lease).expect("JSON");
    assert_eq!(lease["spec"]["holderIdentity"], Value::Null, "it is given back");
}

#[test]
fn a_leader_that_sleeps_or_dies_is_followed_and_changes_nothing_after_it_wakes() {
    let cluster = Cluster::start();
    cluster.install();
    let first = Operator::start(&cluster, &[]);
    let second = standby(&cluster);
    let credentials = [&first, &second].map(|operator| operator.credential(&cluster));
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "2s"}));

    stream(&ns, 1..11);
    let asleep = now();
    first.signal("STOP");
    second.wait_ready();
    println!("followed {:.1} s after SIGSTOP", seconds(asleep, now()));
    stream(&ns, 11..21);
    wait_all_succeeded(&ns, 1..21);
    let awake = now();
    first.signal("CONT");
    stream(&ns, 21..31);
    wait_standby(&first);
    wait_all_succeeded(&ns, 1..31);
    let late: Vec<ApiWrite> =
        writes_of(&cluster, &credentials[0]).into_iter().filter(|write| write.at >= awake).collect();
    println!("{} late writes", late.len());
    // what it was just sending when it fell asleep still goes out, under its old precondition
    let is_of_before = |write: &ApiWrite| write.code == 409 && seconds(awake, write.at) < 2.0;
    assert!(late.iter().all(is_of_before), "{late:?}");

    // some pods end while nobody leads
    stream(&ns, 31..41);
    let dead = now();
    second.kill();
    first.wait_ready();
    let followed = seconds(dead, now());
    println!("followed {followed:.1} s after SIGKILL");
    wait_all_succeeded(&ns, 31..41);
    assert!(followed < 15.0 + 1.0 + 5.0, "the lease time, a look, and time to write");
    assert!(
        writes_of(&cluster, &credentials[1])
            .iter()
            .all(|write| write.at < first_write(&cluster, &credentials[0], dead).at)
    );
}
