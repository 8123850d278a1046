//! Certificates that are lost, over, exchanged or asked for: admission goes on, or is back within seconds.

use crate::line::Line;
use crate::support::{Cluster, Namespace, Operator, Output, PATIENCE, task_run};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use taskrun_operator::certificate::{Issued, issue};

const KINDS: [&str; 2] = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"];
const NAME: &str = "taskrun-operator";
const SECRET: &str = "taskrun-operator-tls";

/// A write that both webhooks are asked about.
fn write(ns: &Namespace<'_>) -> Output {
    ns.kubectl_on(&["create", "--dry-run=server"], &task_run(1, &[("task.md", "do it")]))
}

/// Waits until writes are judged again, and says how long it took.
fn healed(ns: &Namespace<'_>, after: &str) {
    let started = Instant::now();
    while let Output { ok: false, stderr, .. } = write(ns) {
        assert!(started.elapsed() < PATIENCE, "not healed after {after}: {stderr}");
    }
    let blank = ns.kubectl_on(&["create", "--dry-run=server"], &task_run(1, &[("task.md", " ")])).refused();
    assert!(blank.contains("is empty"), "{blank}");
    println!("healed {:.1} s after {after}", started.elapsed().as_secs_f64());
}

/// Waits for something, looking often.
#[track_caller]
fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn secret(cluster: &Cluster) -> Option<Value> {
    let found = cluster.kubectl(&["-n", "taskrun-system", "get", "secret", SECRET, "-o", "json", "--ignore-not-found"]);
    serde_json::from_str(&found.ok()).ok()
}

fn metric(operator: &Operator, name: &str) -> i64 {
    let metrics = operator.http("/metrics").expect("an answer");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.expect("a metric")
}

fn patch_configurations(cluster: &Cluster, ca: &str) {
    for kind in KINDS {
        let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ca}]).to_string();
        cluster.kubectl(&["patch", kind, NAME, "--type=json", "-p", &patch]).ok();
    }
}

#[test]
fn what_is_lost_comes_back() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &["--cert-lifetime=1h"]);
    let ns = cluster.namespace(&json!({}));
    let crt = |secret: Value| secret["data"]["tls.crt"].as_str().map(ToOwned::to_owned);
    let first = secret(&cluster).and_then(crt).expect("a certificate");

    // its deletion interrupts nothing, and asks for a new one
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut writes = vec![];
            while !ended.load(Ordering::SeqCst) {
                writes.push(write(&ns));
            }
            writes
        });
        let started = Instant::now();
        cluster.kubectl(&["-n", "taskrun-system", "delete", "secret", SECRET]).ok();
        let again = wait_for("a new Secret", || secret(&cluster));
        println!("the Secret is back after {:.1} s", started.elapsed().as_secs_f64());
        assert_eq!(crt(again).as_ref(), Some(&first), "what is served");
        wait_for("a new certificate", || secret(&cluster).and_then(crt).filter(|now| *now != first));
        println!("a new certificate after {:.1} s", started.elapsed().as_secs_f64());
        sleep(Duration::from_secs(1));
        ended.store(true, Ordering::SeqCst);
        let writes = writes.join().expect("no panic");
        let failed: Vec<_> = writes.iter().filter(|write| !write.ok).collect();
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), writes.len());
        println!("{} writes meanwhile, none failed", writes.len());
    });

    let garbage = json!({"data": {"tls.crt": "Z2FyYmFnZQ==", "next.crt": "Z2FyYmFnZQ=="}}).to_string();
    cluster.kubectl(&["-n", "taskrun-system", "patch", "secret", SECRET, "--type=merge", "-p", &garbage]).ok();
    wait_for("a Secret without garbage", || secret(&cluster).and_then(crt).filter(|crt| crt != "Z2FyYmFnZQ=="));
    write(&ns).ok();

    patch_configurations(&cluster, "");
    healed(&ns, "blank caBundles");
    for kind in KINDS {
        cluster.kubectl(&["annotate", kind, NAME, "example.com/note=kept"]).ok();
        cluster.kubectl(&["delete", kind, NAME]).ok();
    }
    healed(&ns, "deleted configurations");
    for kind in KINDS {
        let found: Value = serde_json::from_str(&cluster.kubectl(&["get", kind, NAME, "-o", "json"]).ok()).unwrap();
        assert_eq!(found["metadata"]["annotations"]["example.com/note"], "kept", "as it was");
    }
    // by one that has never seen them
    operator.signal("TERM");
    operator.wait_end();
    cluster.kubectl(&["delete", KINDS[0], NAME]).ok();
    cluster.kubectl(&["delete", KINDS[1], NAME]).ok();
    let started = Instant::now();
    let operator = operator.restart(&[]);
    operator.wait_ready();
    println!("ready {:.1} s after its start without configurations", started.elapsed().as_secs_f64());
    healed(&ns, "a start without configurations");
    let log = operator.log();
    assert!(!log.contains("PRIVATE") && !log.contains("panicked"), "{log}");
}

#[test]
fn what_others_write_is_healed_but_not_fought_over() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    let (kind, get) = (KINDS[1], || -> Value {
        serde_json::from_str(&cluster.kubectl(&["get", KINDS[1], NAME, "-o", "json"]).ok()).expect("JSON")
    });
    let patch = |patch: Value| cluster.kubectl(&["patch", kind, NAME, "--type=json", "-p", &patch.to_string()]).ok();

    // a webhook of somebody else in our configuration, before ours
    let mut other = get()["webhooks"][0].clone();
    (other["name"], other["failurePolicy"]) = (json!("other.example.com"), json!("Ignore"));
    other["clientConfig"] = json!({"url": "https://127.0.0.1:1/other"});
    patch(json!([{"op": "add", "path": "/webhooks/0", "value": other}]));
    patch(json!([{"op": "replace", "path": "/webhooks/1/clientConfig/url", "value": "https://127.0.0.1:1/wrong"}]));
    patch(json!([{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]));
    healed(&ns, "our webhook, the second of two, was changed");
    assert_eq!(get()["webhooks"][0]["clientConfig"]["url"], "https://127.0.0.1:1/other", "not ours");

    // switched off by hand: it stays so until the configuration is gone, too
    patch(json!([{"op": "remove", "path": "/webhooks/1"}]));
    wait_for("a reason", || operator.http("/readyz").filter(|answer| answer.contains("has no webhook of ours")));
    cluster.kubectl(&["delete", kind, NAME]).ok();
    operator.wait_ready();
    healed(&ns, "a configuration without our webhook was deleted");

    // a Secret that would take the present CA out of the configurations
    let empty = json!({"data": {"ca.crt": ""}}).to_string();
    let crt = |secret: Value| secret["data"]["tls.crt"].as_str().map(ToOwned::to_owned);
    let before = secret(&cluster).and_then(crt);
    cluster.kubectl(&["-n", "taskrun-system", "patch", "secret", SECRET, "--type=merge", "-p", &empty]).ok();
    wait_for("a new certificate", || {
        write(&ns).ok();
        secret(&cluster).and_then(crt).filter(|now| Some(now) != before.as_ref())
    });

    // a rival, who writes as often as we do
    let writes = || {
        let writes = cluster.operator_writes();
        writes.iter().filter(|write| write.resource == "validatingwebhookconfigurations").count()
    };
    let (started, before) = (Instant::now(), writes());
    while started.elapsed() < Duration::from_secs(15) {
        patch(json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}]));
    }
    let ours = writes() - before;
    println!("{ours} writes beside a rival in 15 s");
    assert!((10..=40).contains(&ours), "{ours} writes in 15 s, 20 and one a second are the most");
    healed(&ns, "the rival has gone");
}

#[test]
fn a_clock_or_a_sleep_past_the_end_is_noticed() {
    let cluster = Cluster::start();
    cluster.install();
    let shim = cluster.file("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(built.expect("cc, which links Rust programs, too").success());
    let offset = cluster.file("offset");
    fs::write(&offset, "0").expect("a file");
    let env = [("LD_PRELOAD", shim.as_path()), ("CLOCK_OFFSET", offset.as_path())];
    let operator = Operator::launch_in(&cluster, &env, &["--cert-lifetime=20m"]);
    operator.wait_ready();
    let ns = cluster.namespace(&json!({}));
    write(&ns).ok();

    let end = |operator: &Operator| metric(operator, "taskrun_certificate_expiry_timestamp_seconds");
    let before = end(&operator);
    fs::write(&offset, "1800").expect("a file");
    let started = Instant::now();
    wait_for("a certificate that is good by the new time", || (end(&operator) >= before + 1_800).then_some(()));
    println!("renewed {:.1} s after the clock was set past the end", started.elapsed().as_secs_f64());
    operator.wait_ready();
    healed(&ns, "a clock that was set");
    drop(operator);

    // asleep until the API server, too, takes the certificate for expired
    let operator = Operator::start(&cluster, &["--cert-lifetime=10s"]);
    cluster.kubectl(&["-n", "taskrun-system", "delete", "secret", SECRET]).ok();
    let now = now().as_second();
    wait_for("a short one", || (end(&operator) < now + 60).then_some(()));
    operator.signal("STOP");
    sleep(Duration::from_secs(12));
    operator.signal("CONT");
    healed(&ns, "a sleep past the end of the certificate");
}

#[expect(clippy::disallowed_methods, reason = "compared with the operator on the same machine")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A folder as the kubelet makes it of a Secret: files are links into `..data`, a link that is exchanged.
struct Mount {
    folder: PathBuf,
    versions: u32,
}

impl Mount {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder");
        Self { folder, versions: 0 }
    }

    fn swap(&mut self, certificate: &str, key: &str) {
        let before = fs::read_link(self.folder.join("..data")).ok();
        self.versions += 1;
        let version = format!("..version_{}", self.versions);
        fs::create_dir(self.folder.join(&version)).expect("a folder");
        fs::write(self.folder.join(&version).join("tls.crt"), certificate).expect("a file");
        fs::write(self.folder.join(&version).join("tls.key"), key).expect("a file");
        symlink(&version, self.folder.join("..data_tmp")).expect("a link");
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).expect("exchanged");
        for file in ["tls.crt", "tls.key"] {
            let _ = symlink(Path::new("..data").join(file), self.folder.join(file));
        }
        if let Some(before) = before {
            fs::remove_dir_all(self.folder.join(before)).expect("removed");
        }
    }
}

#[test]
fn mounted_files_are_read_anew_and_the_last_good_pair_is_kept() {
    let cluster = Cluster::start();
    cluster.install();
    let hosts = ["127.0.0.1".to_owned()];
    // told apart by their ends
    let issue = |hours: i64| issue(&hosts, SignedDuration::from_hours(hours), now()).expect("a certificate");
    let mut mount = Mount::new(cluster.file("mounted"));
    let folder = mount.folder.to_string_lossy().into_owned();
    let operator = Operator::launch(&cluster, &["--cert-dir", &folder]);
    let ns = cluster.namespace(&json!({}));
    let serves = |issued_for: i64| {
        let hours =
            (metric(&operator, "taskrun_certificate_expiry_timestamp_seconds") - now().as_second() + 1_800) / 3_600;
        (hours == issued_for).then_some(())
    };
    let is_loaded = || metric(&operator, "taskrun_certificate_last_load_successful");
    let trust = |bundle: &str| patch_configurations(&cluster, &base64(bundle));
    wait_for("a reason", || operator.http("/readyz").filter(|answer| answer.ends_with("there is no certificate yet")));

    let first = issue(100);
    mount.swap(&first.certificate, &first.key);
    wait_for("the first", || serves(100));
    let untrusted = operator.http("/readyz").expect("an answer");
    assert!(untrusted.contains("503") && untrusted.contains("the bundle of CAs is empty"), "{untrusted}");
    assert!(operator.http("/livez").is_some_and(|answer| answer.contains("200 OK")), "alive all the same");
    trust(&first.ca);
    operator.wait_ready();
    healed(&ns, "the CA was injected");

    // by its next look at the latest, ten seconds; by its watch at once
    let second = issue(200);
    trust(&format!("{}{}", second.ca, first.ca));
    for (issued, hours) in [(&second, 200), (&first, 100)] {
        let started = Instant::now();
        mount.swap(&issued.certificate, &issued.key);
        wait_for("the other one", || serves(hours));
        println!("served {} ms after the swap", started.elapsed().as_millis());
        write(&ns).ok();
    }
    assert_eq!(is_loaded(), 1);
    mount.swap(&second.certificate, &first.key);
    wait_for("an error", || (is_loaded() == 0).then_some(()));
    mount.swap(&first.certificate, &first.key);
    wait_for("the former pair", || (is_loaded() == 1).then_some(()));
    mount.swap(&second.certificate, &first.key);
    wait_for("an error", || (is_loaded() == 0).then_some(()));
    serves(100).expect("the old pair is still served");
    operator.wait_ready();
    write(&ns).ok();

    // a CA that the API server does not know yet: the certificate waits for it
    let third = chain(300);
    mount.swap(&third.certificate, &third.key);
    wait_for("a good load", || (is_loaded() == 1).then_some(()));
    sleep(Duration::from_secs(1));
    serves(100).expect("the old pair is still served");
    write(&ns).ok();
    trust(&format!("{}{}", first.ca, third.ca));
    wait_for("the third", || serves(300));
    write(&ns).ok();
    trust(&third.ca);
    healed(&ns, "the first CA has gone");
    assert_eq!(secret(&cluster), None, "no Secret of ours");
}

fn base64(text: &str) -> String {
    json!(ByteString(text.as_bytes().to_vec())).as_str().expect("base64").to_owned()
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A certificate with another one between it and its CA.
fn chain(hours: u64) -> Issued {
    let key = || KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(ca("root"), key()).expect("a CA");
    let middle = CertifiedIssuer::signed_by(ca("middle"), key(), &root).expect("a CA");
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = epoch + Duration::from_secs(now().as_second().unsigned_abs() + hours * 3_600);
    let (leaf, key) = {
        let key = key();
        (params.signed_by(&key, &middle).expect("a certificate"), key)
    };
    Issued { ca: root.pem(), certificate: leaf.pem() + &middle.pem(), key: key.serialize_pem() }
}

/// What makes the API server show this certificate to webhooks: `--admission-control-config-file`.
fn calling_as((certificate, key): &(String, String), write: impl FnOnce(&str) -> String) -> String {
    let user = json!({"client-certificate-data": base64(certificate), "client-key-data": base64(key)});
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]});
    let (version, kubeconfig) = ("apiserver.config.k8s.io/v1", write(&kubeconfig.to_string()));
    let configuration =
        json!({"apiVersion": version, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": kubeconfig});
    let plugin = |name: &str| json!({"name": name, "configuration": configuration});
    let plugins = [plugin("MutatingAdmissionWebhook"), plugin("ValidatingAdmissionWebhook")];
    json!({"apiVersion": version, "kind": "AdmissionConfiguration", "plugins": plugins}).to_string()
}

#[test]
fn the_api_server_can_be_asked_for_its_own_certificate() {
    let folder = std::env::temp_dir().join(format!("taskrun-client-ca-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, content: &str| {
        fs::write(folder.join(name), content).expect("a file");
        folder.join(name).to_string_lossy().into_owned()
    };
    let key = || KeyPair::generate().expect("a key");
    let client = |name: &str, issuer: &Issuer<'_, KeyPair>| {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = key();
        (params.signed_by(&key, issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    let (ours, other) = (
        CertifiedIssuer::self_signed(ca("ours"), key()).expect("a CA"),
        CertifiedIssuer::self_signed(ca("other"), key()).expect("a CA"),
    );
    let right = client("kube-apiserver", &ours);
    let admission = file("admission.json", &calling_as(&right, |kubeconfig| file("webhooks.kubeconfig", kubeconfig)));
    let cluster = Cluster::start_with(&[&format!("--admission-control-config-file={admission}")]);
    cluster.install();
    let (trusted, stranger) = (file("ca.pem", &ours.pem()), client("somebody", &ours));
    let operator = Operator::start(&cluster, &["--client-ca", &trusted]);
    let ns = cluster.namespace(&json!({}));
    write(&ns).ok();

    // straight at the port
    let ask = |certificate: Option<&(String, String)>| {
        let mut roots = RootCertStore::empty();
        let bundle = secret(&cluster).expect("a Secret")["data"]["ca.crt"].clone();
        let ByteString(bundle) = serde_json::from_value(bundle).expect("base64");
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match certificate {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).flatten().collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        Line::open(operator.webhook(), &Arc::new(config)).and_then(|mut line| line.ask()).is_ok()
    };
    assert!(!ask(None), "without a certificate");
    assert!(!ask(Some(&stranger)), "with another name");
    assert!(!ask(Some(&client("kube-apiserver", &other))), "of another CA");
    assert!(ask(Some(&right)), "the right one");

    // the file is read anew; one that holds nothing changes nothing
    file("ca.pem", "");
    sleep(Duration::from_secs(11));
    assert!(ask(Some(&right)), "the former CA is kept");
    file("ca.pem", &other.pem());
    wait_for("a refusal", || (!ask(Some(&right))).then_some(()));
    file("ca.pem", &format!("{}{}", other.pem(), ours.pem()));
    wait_for("an answer", || ask(Some(&right)).then_some(()));
    write(&ns).ok();
    drop(operator);
    fs::remove_dir_all(&folder).expect("removed");
}
