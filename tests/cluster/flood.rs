//! Whoever reaches the webhook's port cannot stop the writes that it judges.

use crate::support::{Cluster, Namespace, Operator, PATIENCE, task_run};
use k8s_openapi::ByteString;
use kube::api::{Patch, PatchParams, PostParams};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const MIB: usize = 1024 * 1024;
/// Hostile connections in all.
const HOSTILE: usize = 10_000;
/// Hostile connections at once.
const AT_ONCE: usize = 200;
/// The longest that the flood may take, where the machine has much else to do.
const FLOOD: Duration = Duration::from_mins(10);
const QUIET: Duration = Duration::from_secs(5);
/// How long a hostile connection is held that says nothing, or hears nothing.
const HOLD: Duration = Duration::from_millis(400);
/// What the process may ever hold in memory: 64 MiB of bodies, what is free of that budget, and itself.
const MEMORY_KIB: u64 = 256 * 1024;
/// Some hundred more than the webhook's workers keep.
const SILENT: usize = 2_500;
/// The longest that the API server waits for a review.
const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_hostile_requests_fails_no_write() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    let port = Port::of(&cluster);
    let pid = pid_of(port.number);
    let quiet = load(&ns, &port, sleep(QUIET)).await;
    let files = open_files(&pid);
    let (sent, flooded) = flood(&ns, &port).await;
    let memory = memory_kib(&pid);
    println!("{sent} hostile connections; at most {} MiB held", memory / 1024);
    quiet.print("quiet");
    flooded.print("flood");
    println!("p99 of reviews under the flood is {:.1} times that in quiet", flooded.p99() / quiet.p99());
    assert!(sent >= HOSTILE, "only {sent} hostile connections in {FLOOD:?}");
    for (load, when) in [(&quiet, "in quiet"), (&flooded, "under the flood")] {
        assert!(load.failed.is_empty(), "legitimate requests failed {when}: {:?}", load.failed);
        assert!(load.reviews.len() > 100 && load.writes.len() > 20, "too few legitimate requests {when}");
    }
    assert_eq!(pid_of(port.number), pid, "the operator was started again");
    assert!(memory < MEMORY_KIB, "the operator held {memory} KiB at its peak, more than {MEMORY_KIB}");
    let metrics = operator.http("/metrics").expect("metrics");
    for reason in ["path", "method", "content_type", "too_large", "slow", "cut_off"] {
        assert!(
            metric(&metrics, &format!("refused_total{{reason=\"{reason}\"}}")) > 0,
            "none was refused for {reason}"
        );
    }
    let started = Instant::now();
    while open_files(&pid) > files + 10 {
        let now = open_files(&pid);
        assert!(started.elapsed() < PATIENCE, "connections are kept: {now} open files, {files} before the flood");
        sleep(Duration::from_millis(100)).await;
    }
    // what is being judged goes on though its sender has gone
    until(&operator, "given back", |metrics| metric(metrics, "body_bytes") == 0 && metric(metrics, "in_flight") == 0)
        .await;
    let log = operator.log().len();
    assert!(log < 4 * MIB, "the flood made {log} bytes of log");
}

/// Sends all that is hostile there while legitimate requests go on; returns how many were sent, and what became of these.
async fn flood(ns: &Namespace<'_>, port: &Port) -> (usize, Load) {
    let hostile = port.hostile();
    let (number, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counter, is_over) = (number.clone(), ended.clone());
    // a thread of its own: the legitimate do not wait for it
    let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
        hostile.flood(&counter);
        ended.store(true, Ordering::SeqCst);
    });
    thread.expect("a thread");
    let over = async {
        while !is_over.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let load = load(ns, port, over).await;
    (number.load(Ordering::SeqCst), load)
}

/// A review that is shed fails no write: the API server asks again within the webhook's timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_that_was_shed_is_asked_again_by_the_api_server() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    let port = Port::of(&cluster);
    let shed = |metrics: &str| metric(metrics, "refused_total{reason=\"memory\"}");
    // bodies that lack their last byte take all of the budget but 168 KiB
    let mut held = vec![];
    for lengths in [[7 * MIB; 9].as_slice(), &[MIB, MIB / 4, MIB / 4, MIB / 4]] {
        held.extend(futures::future::join_all(lengths.iter().map(|length| hold(&port, *length))).await);
        let most: usize = held.iter().map(|(length, _)| length - 1).sum();
        until(&operator, "held", |metrics| metric(metrics, "body_bytes") >= most as u64).await;
    }
    let before = operator.http("/metrics").expect("metrics");
    ns.create(&suspended(1, "small")).ok();
    let (writing, large) = (ns.task_runs().await, suspended(2, &"a".repeat(400_000)));
    let large = serde_json::from_value(large).expect("an object");
    let writing = tokio::spawn(async move { writing.create(&PostParams::default(), &large).await });
    until(&operator, "shed", |metrics| shed(metrics) > shed(&before)).await;
    drop(held);
    let written = writing.await.expect("no panic");
    written.expect("the API server asks again for a review that was shed");
}

/// Sends all but the last byte of a body.
async fn hold(port: &Port, length: usize) -> (usize, TlsStream<TcpStream>) {
    let mut stream = port.connect().await.expect("a connection");
    let head = "POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let head = format!("{head}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream.write_all(&vec![b' '; length - 1]).await.expect("a body");
    (length, stream)
}

/// Connections that say nothing keep nobody out: the most silent makes room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_make_room() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the limit of open files");
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    let port = Port::of(&cluster);
    let (pid, hostile) = (pid_of(port.number), port.hostile());
    let request = post("/mutate?timeout=5s", &review_of(&suspended(1, "do it")));
    let mut busy = port.connect().await.expect("a connection");
    let (before, mut silent) = (memory_kib(&pid), vec![]);
    for number in 0..SILENT {
        silent.push(hostile.connect().await.expect("a connection, however many there are"));
        if number.is_multiple_of(100) {
            ask(&mut busy, &request).await.expect("a connection that is used stays");
        }
    }
    println!("{SILENT} connections that say nothing: {} MiB", (memory_kib(&pid) - before) / 1024);
    let metrics = operator.http("/metrics").expect("metrics");
    let closed = metric(&metrics, "connections_closed_total");
    assert!((300..1_000).contains(&closed), "{closed} connections of {SILENT} were closed, some hundred should be");
    let closed = timeout(TIMEOUT, silent[0].read(&mut [0])).await;
    assert!(!matches!(closed, Err(_) | Ok(Ok(1..))), "the most silent was not closed");
    let last = silent.last_mut().expect("one");
    ask(last, &request).await.expect("the last that came was not closed");
    ns.create(&suspended(1, "do it")).ok();
}

/// The operator's metrics, once they are so.
async fn until(operator: &Operator, what: &str, is_so: impl Fn(&str) -> bool) -> String {
    let started = Instant::now();
    loop {
        let metrics = operator.http("/metrics").expect("metrics");
        if is_so(&metrics) {
            return metrics;
        }
        assert!(started.elapsed() < Duration::from_secs(9), "not {what}: {metrics}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn metric(metrics: &str, name: &str) -> u64 {
    let name = format!("taskrun_admission_{name} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// `task-{id}`, which is not run.
fn suspended(id: u32, text: &str) -> Value {
    let mut task = task_run(id, &[("task.md", text)]);
    task["spec"]["suspend"] = json!(true);
    task
}

/// What happened to legitimate requests, with how long each took.
#[derive(Default)]
struct Load {
    /// On a connection that was there.
    reviews: Vec<Duration>,
    /// With a connection of its own.
    connects: Vec<Duration>,
    /// Through the API server.
    writes: Vec<Duration>,
    failed: Vec<String>,
}

impl Load {
    fn p99(&self) -> f64 {
        percentile(&self.reviews, 99).as_secs_f64()
    }

    fn print(&self, when: &str) {
        for (what, took) in [("reviews", &self.reviews), ("connects", &self.connects), ("writes", &self.writes)] {
            let (p50, p99) = (percentile(took, 50), percentile(took, 99));
            println!("{when}: {} {what}, p50 {p50:?}, p99 {p99:?}", took.len());
        }
    }
}

fn percentile(took: &[Duration], percent: usize) -> Duration {
    let mut took = took.to_vec();
    took.sort_unstable();
    took.get(took.len() * percent / 100).copied().unwrap_or_default()
}

/// Legitimate reviews and writes until something is over.
async fn load(ns: &Namespace<'_>, port: &Port, until: impl Future<Output = ()>) -> Load {
    let over = AtomicBool::new(false);
    let ending = async {
        until.await;
        over.store(true, Ordering::SeqCst);
    };
    let ((), mut load, (writes, refused)) = tokio::join!(ending, review(port, &over), write(ns, &over));
    load.writes = writes;
    load.failed.extend(refused);
    load
}

/// Asks for a review every few milliseconds; each twentieth on a new connection, as API servers that start do.
async fn review(port: &Port, over: &AtomicBool) -> Load {
    let (mut load, mut stream) = (Load::default(), port.connect().await.expect("a connection"));
    let request = post("/mutate?timeout=5s", &review_of(&suspended(1, &"do it\n".repeat(100))));
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let started = Instant::now();
        let is_new = number % 20 == 19;
        let asking = async {
            if is_new {
                stream = port.connect().await.ok_or("no connection")?;
            }
            ask(&mut stream, &request).await
        };
        match timeout(TIMEOUT, asking).await {
            Ok(Ok(())) if is_new => load.connects.push(started.elapsed()),
            Ok(Ok(())) => load.reviews.push(started.elapsed()),
            failed => load.failed.push(format!("review: {failed:?}")),
        }
        sleep(Duration::from_millis(3)).await;
    }
    load
}

/// Creates tasks and changes them, one write at a time.
async fn write(ns: &Namespace<'_>, over: &AtomicBool) -> (Vec<Duration>, Vec<String>) {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let (api, mut took, mut failed) = (ns.task_runs().await, vec![], vec![]);
    while !over.load(Ordering::SeqCst) {
        let id = u32::try_from(NUMBER.fetch_add(1, Ordering::SeqCst)).expect("a small one");
        let created = serde_json::from_value(suspended(id, "do it")).expect("an object");
        let (started, params) = (Instant::now(), PostParams::default());
        let created = api.create(&params, &created).await;
        took.push(started.elapsed());
        let (name, more) = (format!("task-{id}"), json!({"spec": suspended(id, "do more")["spec"]}));
        let (started, params) = (Instant::now(), PatchParams::default());
        let changed = api.patch(&name, &params, &Patch::Merge(more)).await;
        took.push(started.elapsed());
        failed.extend([created, changed].into_iter().filter_map(Result::err).map(|error| format!("write: {error}")));
        sleep(Duration::from_millis(3)).await;
    }
    (took, failed)
}

/// One request, one answer that allows it.
async fn ask(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> Result<(), &'static str> {
    stream.write_all(request).await.map_err(|_| "not sent")?;
    let mut answer = vec![];
    loop {
        let read = stream.read_buf(&mut answer).await.map_err(|_| "cut off")?;
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                let is_allowed = head.starts_with("HTTP/1.1 200") && body.contains("\"allowed\":true");
                return is_allowed.then_some(()).ok_or("not allowed");
            }
        }
        if read == 0 {
            return Err("closed");
        }
    }
}

fn review_of(task: &Value) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5", "operation": "CREATE", "object": task, "userInfo": {"username": "jane"},
        "resource": {"group": "orchestrator.io", "version": "v1", "resource": "taskruns"},
    }})
    .to_string()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The webhook's port, and the way in.
#[derive(Clone)]
struct Port {
    number: u16,
    tls: TlsConnector,
}

impl Port {
    /// As the API server finds it.
    fn of(cluster: &Cluster) -> Self {
        let found = cluster.kubectl(&["get", "mutatingwebhookconfiguration/taskrun-operator", "-o", "json"]).ok();
        let found: Value = serde_json::from_str(&found).expect("JSON");
        let known = &found["webhooks"][0]["clientConfig"];
        let port = known["url"].as_str().and_then(|url| url.rsplit(':').next()?.split('/').next()?.parse().ok());
        let bundle: ByteString = serde_json::from_value(known["caBundle"].clone()).expect("base64");
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle.0).flatten());
        let verifier = WebPkiServerVerifier::builder(roots.into()).build().expect("roots");
        Self { number: port.expect("a port"), tls: connector(verifier) }
    }

    /// The same for those who do not care whom they speak to: that is cheaper.
    fn hostile(&self) -> Self {
        Self { number: self.number, tls: connector(Arc::new(Anybody)) }
    }

    async fn connect(&self) -> Option<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.number)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        self.tls.connect(ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST)), stream).await.ok()
    }

    /// Sends all that is hostile, over and over; returns when it is done or has lasted long enough.
    fn flood(&self, number: &Arc<AtomicUsize>) {
        // elsewhere they would have processors of their own
        rustix::process::setpriority_process(None, 10).expect("a thread may always be less urgent");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (started, shots) = (Instant::now(), Arc::new(shots()));
        let attackers = (0..AT_ONCE).map(|attacker| {
            let (port, number, shots) = (self.clone(), number.clone(), shots.clone());
            async move {
                for next in (attacker..).step_by(AT_ONCE) {
                    let is_over = started.elapsed() >= FLOOD || number.load(Ordering::SeqCst) >= HOSTILE;
                    let shot = &shots[next % shots.len()];
                    // large ones are rare, or they would be all that is sent
                    let is_rare = shot.bytes.len() >= MIB && !(next / shots.len()).is_multiple_of(16);
                    match (is_over, is_rare) {
                        (true, _) => break,
                        (_, true) => {}
                        _ => {
                            let _ = timeout(TIMEOUT, shot.fire(&port)).await;
                            number.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            }
        });
        runtime.block_on(async { futures::future::join_all(attackers.map(tokio::spawn)).await });
    }
}

fn connector(verifier: Arc<dyn ServerCertVerifier>) -> TlsConnector {
    let mut tls = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // each handshake is a whole one
    tls.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(tls))
}

/// Something hostile.
struct Shot {
    is_tls: bool,
    bytes: Vec<u8>,
    then: Then,
}

/// What follows the bytes.
#[derive(Clone, Copy)]
enum Then {
    /// The answer is read to its end.
    Read,
    /// Nothing, for a while.
    Hold,
    /// A byte now and then.
    Dribble,
    /// A reset.
    Reset,
}

fn shots() -> Vec<Shot> {
    use Then::{Dribble, Hold, Read, Reset};
    let plain = |bytes: &[u8], then| Shot { is_tls: false, bytes: bytes.to_vec(), then };
    let tls = |bytes: &[u8], then| Shot { is_tls: true, bytes: bytes.to_vec(), then };
    let head = |more: &str| {
        format!("POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{more}").into_bytes()
    };
    let malformed = post("/validate", r#"{"request": {"uid": "1", "operation": 7}}"#);
    let garbage: Vec<u8> = (0..4_000_u32).map(|n| (n * 7 % 251).to_le_bytes()[0]).collect();
    vec![
        plain(&garbage, Read),
        plain(b"GET /mutate HTTP/1.1\r\nHost: a\r\n\r\n", Read),
        plain(b"", Hold),
        plain(b"", Reset),
        plain(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], Hold),
        plain(&[22, 3, 1, 255, 255, 1, 0, 1, 252, 3, 3], Read),
        tls(b"", Hold),
        tls(&garbage, Read),
        tls(b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-", Hold),
        tls(b"POST /mutate HTTP/1.1\r\nHost: a\r\n", Dribble),
        tls(&head("Content-Length: 1000\r\n\r\n{\"request\": "), Dribble),
        tls(&head("Content-Length: 1000\r\n\r\n{\"request\": "), Reset),
        tls(
            &post("/mutate?timeout=50ms", "")
                .strip_suffix(b"0\r\n\r\n")
                .map(|head| [head, b"9\r\n\r\n{"].concat())
                .expect("a head"),
            Read,
        ),
        tls(&head("Content-Length: 8388608\r\n\r\n{\"request\": "), Read),
        tls(&head("Content-Length: 18446744073709551616\r\n\r\n"), Read),
        tls(&head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), Read),
        tls(&head("Transfer-Encoding: chunked\r\n\r\n7\r\n{\"reque\r\n"), Dribble),
        tls(&head("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{"), Read),
        tls(&head("Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"), Hold),
        tls(&head("Connection: close\r\nContent-Length: 2\r\n\r\n{}"), Read),
        tls(b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", Read),
        tls(b"DELETE /mutate HTTP/1.1\r\nHost: a\r\n\r\n", Read),
        tls(b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", Read),
        tls(&[b"GET /mutate HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 200_000]].concat(), Read),
        tls(&[b"GET /mutate HTTP/1.1\r\n".to_vec(), b"A: a\r\n".repeat(300), b"\r\n".to_vec()].concat(), Read),
        tls(&b"GET / HTTP/1.1\r\n\r\n".repeat(2_000), Read),
        tls(&malformed.repeat(200), Read),
        tls(&malformed.repeat(200), Hold),
        tls(&post("/mutate", "\u{0}\u{fffd}"), Read),
        tls(&post("/mutate", &"[".repeat(MIB)), Read),
        tls(
            &post("/validate", &format!("{{\"request\": {{\"uid\": \"1\", \"object\": {}", "[{\"a\":".repeat(MIB))),
            Read,
        ),
        tls(
            &[
                head("Transfer-Encoding: chunked\r\n\r\n"),
                [b"10000\r\n".as_slice(), &[b' '; 65_536], b"\r\n"].concat().repeat(128),
            ]
            .concat(),
            Read,
        ),
    ]
}

impl Shot {
    /// Whatever the other side does about it.
    async fn fire(&self, port: &Port) -> Option<()> {
        if self.is_tls {
            let mut stream = port.connect().await?;
            stream.write_all(&self.bytes).await.ok()?;
            match self.then {
                Then::Read => drop(timeout(HOLD, stream.read_to_end(&mut vec![])).await),
                Then::Hold => sleep(HOLD).await,
                Then::Reset => stream.get_ref().0.set_zero_linger().ok()?,
                Then::Dribble => {
                    for _ in 0..8 {
                        sleep(HOLD / 8).await;
                        stream.write_all(b"a").await.ok()?;
                    }
                }
            }
        } else {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.number)).await.ok()?;
            stream.write_all(&self.bytes).await.ok()?;
            match self.then {
                Then::Read => drop(timeout(HOLD, stream.read_to_end(&mut vec![])).await),
                Then::Hold | Then::Dribble => sleep(HOLD).await,
                Then::Reset => stream.set_zero_linger().ok()?,
            }
        }
        Some(())
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The process that listens there.
fn pid_of(port: u16) -> String {
    let address = format!("--webhook-addr=127.0.0.1:{port}");
    let is_it = |pid: &String| {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split('\0');
        arguments.next().is_some_and(|program| program.ends_with("taskrun-operator")) && arguments.any(|a| a == address)
    };
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let mut pids = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    pids.find(is_it).expect("the operator lives")
}

fn open_files(pid: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the operator lives").count()
}

/// The most that the process ever held in memory.
fn memory_kib(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the operator lives");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}
