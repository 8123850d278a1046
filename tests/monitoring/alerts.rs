//! Each alert fires when its fault is caused and resolves when it is mended: with two replicas, one of which leads,
//! on a real control plane, and a real Prometheus.
//!
//! Time in the rules is sixty times as fast: a minute of theirs is a second here, in `for` as in ranges. Thresholds
//! are as they ship. What no test can cause is a panic in the webhook: `TaskRunAdmissionMalformed` is caused by its
//! other reason.

use crate::prometheus::Prometheus;
use crate::rules;
use crate::support::{Cluster, Namespace, Operator, Output, free_port, task_run};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::SignedDuration;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use taskrun_operator::certificate::issue;
use taskrun_operator::clock::now;

/// The longest that an alert may take to fire, or to resolve.
const LONGEST: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(200);
/// Longer than any `for`, at this pace.
const CALM: Duration = Duration::from_secs(16);
/// Bodies: the longest that is read, and one that needs room beyond what each has for nothing.
const LARGE: usize = 7 << 20;
const SMALL: usize = 256 << 10;
/// How long the webhook waits for a body.
const HELD: Duration = Duration::from_secs(10);
const SYSTEM: &[&str] = &["-n", "taskrun-system"];
const BINDING: &str = "clusterrolebinding/taskrun-operator";

#[test]
fn every_alert_fires_by_its_fault_and_resolves_when_it_is_mended() {
    let cluster = Cluster::start();
    cluster.install();
    let addresses: [[SocketAddr; 2]; 3] =
        std::array::from_fn(|_| [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port()))));
    let launch = |at: [SocketAddr; 2]| Operator::launch_at(&cluster, at, &[]);
    let leader = launch(addresses[0]);
    leader.wait_ready();
    let mut replicas = vec![leader, launch(addresses[1])];
    let rules = sixty_times_as_fast(rules::rules());
    let scene = Scene {
        prometheus: Prometheus::start(&cluster, &addresses.map(|[_, admin]| admin), &rules),
        good: cluster.namespace(&json!({"kwok.test/run-for": "100ms"})),
        bad: cluster.namespace(&json!({"kwok.test/run-for": "100ms", "kwok.test/outcome": "failed"})),
        cluster: &cluster,
    };
    scene.is_calm();
    let mut fired: Vec<&str> = vec![];
    fired.extend(an_overloaded_api_server(&scene));
    fired.extend(tasks_that_wait_or_fail(&scene));
    fired.extend(no_rights(&scene));
    fired.extend(what_no_api_server_sends(&scene, &replicas));
    fired.extend(a_throttled_process(&scene, &replicas));
    fired.extend(nobody_leads(&scene));
    fired.extend(nobody_runs(&scene, &mut replicas));
    fired.extend(bad_certificates(&scene, &mut replicas));
    fired.extend(two_leases(&scene, addresses[2]));
    let fired: BTreeSet<String> = fired.into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(fired, rules::alerts(&rules), "alerts whose fault was caused");
}

/// The same rules, whose minutes are seconds.
fn sixty_times_as_fast(mut rules: Value) -> Value {
    let groups = rules["groups"].as_array_mut().into_iter().flatten();
    for rule in groups.flat_map(|group| group["rules"].as_array_mut().into_iter().flatten()) {
        if let Some(minutes) = rule["for"].as_str().map(|wait| wait.replace('m', "s")) {
            rule["for"] = json!(minutes);
        }
        let ranges = rule["expr"].as_str().expect("an expression").replace("m]", "s]");
        rule["expr"] = json!(ranges);
    }
    rules
}

struct Scene<'a> {
    cluster: &'a Cluster,
    prometheus: Prometheus,
    /// Its runs succeed.
    good: Namespace<'a>,
    /// Its runs fail.
    bad: Namespace<'a>,
}

impl Scene<'_> {
    /// Waits until these fire, doing this again and again.
    #[track_caller]
    fn fires<const N: usize>(&self, alerts: [&'static str; N], mut meanwhile: impl FnMut()) -> [&'static str; N] {
        let (started, mut missing) = (Instant::now(), BTreeSet::from(alerts));
        while !missing.is_empty() {
            assert!(started.elapsed() < LONGEST, "{missing:?} do not fire, but {:?}", self.prometheus.firing());
            meanwhile();
            for (alert, summary) in self.prometheus.firing() {
                if missing.remove(alert.as_str()) {
                    println!("{:5.1} s  {alert} fires: {summary}", started.elapsed().as_secs_f64());
                }
            }
            sleep(LOOK);
        }
        alerts
    }

    /// Waits until nothing fires.
    #[track_caller]
    fn resolves(&self, mut meanwhile: impl FnMut()) {
        let started = Instant::now();
        loop {
            let firing = self.prometheus.firing();
            if firing.is_empty() {
                return println!("{:5.1} s  resolved", started.elapsed().as_secs_f64());
            }
            assert!(started.elapsed() < LONGEST, "do not resolve: {firing:?}");
            meanwhile();
            sleep(LOOK);
        }
    }

    /// Nothing fires while nothing is wrong.
    fn is_calm(&self) {
        let started = Instant::now();
        while self.prometheus.query("taskrun_build_info").is_empty() {
            assert!(started.elapsed() < LONGEST, "Prometheus reads no replica");
            sleep(LOOK);
        }
        // before the first scrape there was none
        self.resolves(|| ());
        let started = Instant::now();
        let mut id = 0;
        while started.elapsed() < CALM {
            id += 1;
            self.good.create(&task_run(id, &[("task.md", "do it")])).ok();
            assert_eq!(self.prometheus.firing(), BTreeSet::new(), "while nothing is wrong");
        }
    }

    /// A write that both webhooks are asked about.
    fn write(&self, text: &str) -> Output {
        self.good.kubectl_on(&["create", "--dry-run=server"], &task_run(5_000, &[("task.md", text)]))
    }

    /// A connection to a webhook.
    fn connect(&self, to: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let secret = self.cluster.kubectl(&[SYSTEM, &["get", "secret", "taskrun-operator-tls", "-o", "json"]].concat());
        let secret: Value = serde_json::from_str(&secret.ok()).expect("JSON");
        let ByteString(bundle) = serde_json::from_value(secret["data"]["ca.crt"].clone()).expect("base64");
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
        let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let name = ServerName::try_from("taskrun-operator.taskrun-system.svc").expect("a name");
        let socket = TcpStream::connect(to).expect("a connection");
        StreamOwned::new(ClientConnection::new(config, name).expect("a client"), socket)
    }

    /// The same, with the head of a review of so many bytes sent.
    fn begin(&self, to: SocketAddr, length: usize) -> StreamOwned<ClientConnection, TcpStream> {
        let mut line = self.connect(to);
        let head = "POST /mutate HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n";
        write!(line, "{head}Content-Length: {length}\r\n\r\n").expect("sent");
        line
    }
}

/// Does something again and again while something else goes on, and ends with it, also if it panics.
fn beside<T>(again: impl Fn() + Sync, other: impl FnOnce() -> T) -> T {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                again();
            }
        });
        let result = other();
        drop(over);
        result
    })
}

fn tasks_that_wait_or_fail(scene: &Scene<'_>) -> [&'static str; 2] {
    let mut waits = task_run(500, &[("task.md", "do it")]);
    waits["spec"]["agentName"] = json!("later");
    scene.good.create(&waits).ok();
    for id in 1..=6 {
        scene.bad.create(&task_run(id, &[("task.md", "do it")])).ok();
    }
    // with those that succeeded before, fewer than half would fail
    let mut id = 100;
    let fired = scene.fires(["TaskRunsStalled", "TaskRunsFailing"], || {
        id += 1;
        scene.bad.create(&task_run(id, &[("task.md", "do it")])).ok();
    });
    scene.good.create(&crate::support::agent("later", &json!({}))).ok();
    scene.resolves(|| ());
    fired
}

fn no_rights(scene: &Scene<'_>) -> [&'static str; 2] {
    let binding = scene.cluster.kubectl(&["get", BINDING, "-o", "json"]).ok();
    let binding: Value = serde_json::from_str(&binding).expect("JSON");
    let bind = |subjects: &Value| {
        let patch = json!({"subjects": subjects}).to_string();
        scene.cluster.kubectl(&["patch", BINDING, "--type=merge", "-p", &patch]).ok();
    };
    bind(&Value::Null);
    let fired = scene.fires(["TaskRunForbidden", "TaskRunCacheStale"], || ());
    bind(&binding["subjects"]);
    scene.resolves(|| ());
    fired
}

/// The API server's own priority and fairness lets the operator's calls wait, and then refuses them.
fn an_overloaded_api_server(scene: &Scene<'_>) -> [&'static str; 4] {
    let (version, name) = ("flowcontrol.apiserver.k8s.io/v1", json!({"name": "overloaded"}));
    let level = |response: &Value| {
        let limited = json!({
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response,
        });
        let level = json!({
            "apiVersion": version, "kind": "PriorityLevelConfiguration", "metadata": name,
            "spec": {"type": "Limited", "limited": limited},
        });
        scene.cluster.kubectl_on(&["apply"], &level).ok();
    };
    level(&json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1000}}));
    let account = json!({"name": "taskrun-operator", "namespace": "taskrun-system"});
    let resources = json!({
        "apiGroups": ["", "batch", "orchestrator.io"], "namespaces": ["*"],
        "resources": ["configmaps", "jobs", "pods", "taskruns", "taskruns/status"],
        "verbs": ["get", "list", "create", "update", "patch", "delete"],
    });
    let schema = json!({
        "apiVersion": version, "kind": "FlowSchema", "metadata": name,
        "spec": {
            "priorityLevelConfiguration": name, "matchingPrecedence": 2,
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": account}], "resourceRules": [resources],
            }],
        },
    });
    scene.cluster.kubectl_on(&["apply"], &schema).ok();
    let came = Instant::now();
    let tasks: Vec<Value> = (600..700).map(|id| task_run(id, &[("task.md", "do it")])).collect();
    let tasks = json!({"apiVersion": "v1", "kind": "List", "items": tasks});
    // in a list kubectl itself asks for the version
    scene.good.kubectl_on(&["create", "--validate=false"], &tasks).ok();
    scene.fires(["TaskRunQueueGrowing"], || ());
    level(&json!({"type": "Reject"}));
    let mut id = 700;
    scene.fires(["TaskRunAPIServerFailing", "TaskRunReconcilesFailing"], || {
        id += 1;
        scene.good.create(&task_run(id, &[("task.md", "do it")])).ok();
    });
    // later than TaskRunVersionsLate allows
    sleep(Duration::from_secs(40).saturating_sub(came.elapsed()));
    scene.cluster.kubectl(&["delete", "flowschema,prioritylevelconfiguration", "overloaded"]).ok();
    scene.fires(["TaskRunVersionsLate"], || ());
    scene.resolves(|| ());
    ["TaskRunQueueGrowing", "TaskRunAPIServerFailing", "TaskRunReconcilesFailing", "TaskRunVersionsLate"]
}

fn what_no_api_server_sends(scene: &Scene<'_>, replicas: &[Operator]) -> [&'static str; 3] {
    let to = replicas[0].webhook();
    let mut line = scene.begin(to, 2);
    line.write_all(b"{}").expect("sent");
    let mut answer = [0; 12];
    line.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 400");
    // nine large ones, and what is left of 64 MiB by small ones, of which the last are refused
    let hold = || {
        let hold = |length: usize| {
            let mut line = scene.begin(to, length);
            line.write_all(&vec![b' '; length - 1]).map(|()| line)
        };
        let held: Vec<_> = [[LARGE; 9].as_slice(), &[SMALL; 12]].concat().into_iter().map(hold).collect();
        sleep(HELD);
        drop(held);
    };
    let alerts = ["TaskRunAdmissionMalformed", "TaskRunAdmissionBodies", "TaskRunAdmissionShedding"];
    // some of these are refused in the end
    let fired = beside(hold, || scene.fires(alerts, || drop(scene.write(&"text ".repeat(160_000)))));
    scene.resolves(|| ());
    fired
}

/// As a limit of CPU does it: the process runs for a part of each period only, which is shorter than a review needs.
fn a_throttled_process(scene: &Scene<'_>, replicas: &[Operator]) -> [&'static str; 1] {
    let throttle = || {
        for (signal, period) in [("STOP", 150), ("CONT", 3)] {
            for replica in replicas {
                replica.signal(signal);
            }
            sleep(Duration::from_millis(period));
        }
    };
    // all of it has to be read: definitions of links are no content
    let text = "[a]: b\n\n".repeat(100_000) + "do it";
    let write = || drop(scene.write(&text));
    let fired = beside(throttle, || beside(write, || beside(write, || scene.fires(["TaskRunAdmissionSlow"], write))));
    scene.resolves(|| ());
    fired
}

/// Somebody holds the Lease and does nothing.
fn nobody_leads(scene: &Scene<'_>) -> [&'static str; 1] {
    let lease = |args: &[&str]| scene.cluster.kubectl(&[SYSTEM, args].concat()).ok();
    let patch = json!({"spec": {"holderIdentity": "nobody", "leaseDurationSeconds": 3_600}}).to_string();
    lease(&["patch", "lease", "taskrun-operator", "--type=merge", "-p", &patch]);
    let fired = scene.fires(["TaskRunNoLeader"], || ());
    lease(&["delete", "lease", "taskrun-operator"]);
    scene.resolves(|| ());
    fired
}

fn nobody_runs(scene: &Scene<'_>, replicas: &mut Vec<Operator>) -> [&'static str; 2] {
    replicas.iter().for_each(Operator::kill);
    let fired = scene.fires(["TaskRunOperatorAbsent", "TaskRunWebhookUnreachable"], || drop(scene.write("do it")));
    *replicas = replicas.drain(..).map(|replica| replica.restart(&[])).collect();
    scene.resolves(|| ());
    scene.write("do it").ok();
    fired
}

/// First the one that leads makes a certificate that lasts an hour; then the other is given files that hold none.
fn bad_certificates(scene: &Scene<'_>, replicas: &mut Vec<Operator>) -> [&'static str; 2] {
    let folder = scene.cluster.file("mounted");
    std::fs::create_dir_all(&folder).expect("a folder");
    let fill = |certificate: &str, key: &str| {
        std::fs::write(folder.join("tls.key"), key).expect("a file");
        std::fs::write(folder.join("tls.crt"), certificate).expect("a file");
    };
    fill("garbage", "garbage");
    let made_anew = || scene.cluster.kubectl(&[SYSTEM, &["delete", "secret", "taskrun-operator-tls"]].concat()).ok();
    let leads = |replica: &Operator| replica.http("/metrics").is_some_and(|all| all.contains("\ntaskrun_leader 1\n"));
    let (started, mut leader) = (Instant::now(), None);
    while leader.is_none() {
        assert!(started.elapsed() < LONGEST, "nobody leads");
        sleep(LOOK);
        leader = replicas.iter().position(leads);
    }
    let first = replicas.swap_remove(leader.unwrap_or_default());
    let second = replicas.remove(0);
    let first = first.restart(&["--cert-lifetime=1h"]);
    first.wait_ready();
    made_anew();
    scene.fires(["TaskRunCertificateExpiring"], || ());
    let first = first.restart(&[]);
    first.wait_ready();
    made_anew();
    scene.resolves(|| ());
    let second = second.restart(&[&format!("--cert-dir={}", folder.display())]);
    scene.fires(["TaskRunCertificateUnreadable"], || ());
    let hosts = ["taskrun-operator.taskrun-system.svc".to_owned()];
    let mended = issue(&hosts, SignedDuration::from_hours(2_000), now()).expect("a certificate");
    fill(&mended.certificate, &mended.key);
    scene.resolves(|| ());
    replicas.extend([first, second]);
    ["TaskRunCertificateExpiring", "TaskRunCertificateUnreadable"]
}

/// A replica that was told another namespace, and finds another Lease there.
fn two_leases(scene: &Scene<'_>, at: [SocketAddr; 2]) -> [&'static str; 1] {
    scene.cluster.kubectl(&["create", "namespace", "elsewhere"]).ok();
    let rights =
        scene.cluster.kubectl(&[SYSTEM, &["get", "role,rolebinding", "taskrun-operator", "-o", "json"]].concat());
    let mut rights: Value = serde_json::from_str(&rights.ok()).expect("JSON");
    for right in rights["items"].as_array_mut().expect("both") {
        right["metadata"] = json!({"name": "taskrun-operator", "namespace": "elsewhere"});
    }
    scene.cluster.kubectl_on(&["create"], &rights).ok();
    let other = Operator::launch_at(scene.cluster, at, &["--operator-namespace=elsewhere"]);
    let fired = scene.fires(["TaskRunTwoLeaders"], || ());
    drop(other);
    scene.resolves(|| ());
    fired
}
