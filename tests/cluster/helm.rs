//! Releases of Helm 3 and 4, made by these themselves: what a migration finds.
//!
//! Nothing here is written by hand that Helm would write. Where a test needs a release that is older than the test,
//! or one without compression, which Helm reads but no longer writes, one that Helm made is changed
//! ([`Stored::rewrite`]).

pub mod releases;

use crate::support::{Cluster, Namespace, Output, build};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use releases::{Fixture, KEY, Kind, create_claim, sixty, start_task, values};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/helm");

/// Where Helm keeps releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Secrets,
    ConfigMaps,
}

/// A Helm, and where it keeps releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helm {
    pub major: u8,
    pub driver: Driver,
}

impl Helm {
    pub const V3: Self = Self { major: 3, driver: Driver::Secrets };
    pub const V4: Self = Self { major: 4, driver: Driver::Secrets };

    /// The same, which keeps releases there.
    pub fn storing_in(self, driver: Driver) -> Self {
        Self { driver, ..self }
    }

    /// `helm` as admin of this namespace, which touches no file outside the cluster's folder.
    pub fn command(self, ns: &Namespace<'_>) -> Command {
        let mut helm = ns.cluster.command(build("helm").join(format!("helm{}", self.major)));
        for kind in ["CACHE", "CONFIG", "DATA"] {
            let folder = ns.cluster.file(&format!("helm{}/{}", self.major, kind.to_lowercase()));
            helm.env(format!("HELM_{kind}_HOME"), folder);
        }
        helm.env("HELM_DRIVER", if self.driver == Driver::Secrets { "secret" } else { "configmap" });
        helm.args(["-n", &ns.name]);
        helm
    }

    /// Runs `helm VERB`.
    pub fn run(self, ns: &Namespace<'_>, args: &[&str]) -> Output {
        let mut helm = self.command(ns);
        helm.args(args);
        Output::of(helm, "")
    }

    /// `helm install` of the chart `claude-code`.
    pub fn install(self, ns: &Namespace<'_>, release: &str, values: &Value) -> Output {
        self.install_with(ns, "claude-code", release, values, &[])
    }

    /// `helm install` of this chart, with more arguments.
    pub fn install_with(self, ns: &Namespace<'_>, chart: &str, release: &str, values: &Value, more: &[&str]) -> Output {
        let mut helm = self.command(ns);
        helm.args(["install", release, &format!("{CHARTS}/{chart}"), "-f", "-"]).args(more);
        Output::of(helm, &values.to_string())
    }

    /// `helm upgrade` of a release of the chart `claude-code`.
    pub fn upgrade(self, ns: &Namespace<'_>, release: &str, values: &Value) -> Output {
        let mut helm = self.command(ns);
        helm.args(["upgrade", release, &format!("{CHARTS}/claude-code"), "-f", "-"]);
        Output::of(helm, &values.to_string())
    }

    pub fn uninstall(self, ns: &Namespace<'_>, release: &str, more: &[&str]) -> Output {
        self.run(ns, &[&["uninstall", release], more].concat())
    }

    /// Runs `helm VERB`, which waits for something, and kills it when this object is so, as when the pod that ran
    /// it goes: the release stays as it is on the way.
    #[track_caller]
    pub fn run_and_die(
        self,
        ns: &Namespace<'_>,
        args: &[&str],
        values: &Value,
        object: &str,
        is_so: fn(&Value) -> bool,
    ) {
        let mut helm = self.command(ns);
        helm.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut helm = helm.spawn().expect("it was built");
        let mut input = helm.stdin.take().expect("a pipe");
        // uninstall does not read it
        let _ = input.write_all(values.to_string().as_bytes());
        drop(input);
        ns.wait(object, "as it is before the end", is_so);
        assert_eq!(helm.try_wait().expect("it is ours"), None);
        helm.kill().expect("it still waits");
        helm.wait().expect("it ends");
    }

    /// The object in which a revision of a release is stored, for kubectl.
    pub fn object(self, release: &str, revision: u32) -> String {
        let kind = if self.driver == Driver::Secrets { "secret" } else { "configmap" };
        format!("{kind}/sh.helm.release.v1.{release}.v{revision}")
    }

    /// A revision of a release as it is stored.
    #[track_caller]
    pub fn stored(self, ns: &Namespace<'_>, release: &str, revision: u32) -> Stored {
        Stored::of(ns.get(&self.object(release, revision)))
    }
}

/// A release as it is stored.
pub struct Stored {
    /// The Secret or ConfigMap.
    pub object: Value,
    /// Whether it was compressed.
    pub is_compressed: bool,
    /// What it holds.
    pub release: Value,
}

impl Stored {
    /// Panics unless it is a release that Helm could read.
    #[track_caller]
    pub fn of(object: Value) -> Self {
        let mut data = object["data"]["release"].as_str().expect("a release").as_bytes().to_vec();
        if object["kind"] == "Secret" {
            data = BASE64_STANDARD.decode(data).expect("the API's base64");
        }
        let data = BASE64_STANDARD.decode(data).expect("Helm's base64");
        let is_compressed = data.starts_with(&[0x1f, 0x8b, 0x08]);
        let mut text = Vec::new();
        if is_compressed {
            GzDecoder::new(data.as_slice()).read_to_end(&mut text).expect("gzip");
        } else {
            text = data;
        }
        Self { object, is_compressed, release: serde_json::from_slice(&text).expect("JSON") }
    }

    /// Stores it again as it is now.
    #[track_caller]
    pub fn rewrite(mut self, ns: &Namespace<'_>) {
        let mut text = self.release.to_string().into_bytes();
        if self.is_compressed {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
            gzip.write_all(&text).expect("memory");
            text = gzip.finish().expect("memory");
        }
        let data = BASE64_STANDARD.encode(text);
        let is_secret = self.object["kind"] == "Secret";
        self.object["data"]["release"] = json!(if is_secret { BASE64_STANDARD.encode(data) } else { data });
        ns.kubectl_on(&["replace"], &self.object).ok();
    }

    /// Its status, as its label and its content say it.
    #[track_caller]
    pub fn status(&self) -> &str {
        let status = &self.release["info"]["status"];
        assert_eq!(status, &self.object["metadata"]["labels"]["status"]);
        status.as_str().expect("a status")
    }
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect()
}

/// All that is stored of releases, by the name of the object.
fn all_stored(ns: &Namespace<'_>) -> BTreeMap<String, Stored> {
    let objects = ns.list("secrets,configmaps").into_iter();
    let of_helm = objects.filter(|object| object["metadata"]["labels"]["owner"] == "helm");
    of_helm
        .map(|object| (object["metadata"]["name"].as_str().expect("a name").to_owned(), Stored::of(object)))
        .collect()
}

/// What Helm writes for every release, whatever has become of it.
fn assert_written_by_helm(ns: &Namespace<'_>, fixture: &Fixture, stored: &Stored) {
    let (metadata, release) = (&stored.object["metadata"], &stored.release);
    // an update drops createdAt, and the next revision starts with the labels of the last
    let times: &[&str] = match fixture.status() {
        "pending-install" => &["createdAt"],
        "pending-upgrade" => &["createdAt", "modifiedAt"],
        _ => &["modifiedAt"],
    };
    let expected = [times, &["name", "owner", "status", "version"]].concat();
    assert_eq!(keys(&metadata["labels"]), BTreeSet::from_iter(expected), "{fixture:?}");
    assert_eq!(metadata["labels"]["name"], fixture.release.as_str());
    assert_eq!(metadata["labels"]["version"], release["version"].to_string());
    let (kind, type_) = match fixture.helm.driver {
        Driver::Secrets => ("Secret", json!("helm.sh/release.v1")),
        Driver::ConfigMaps => ("ConfigMap", Value::Null),
    };
    assert_eq!((&stored.object["kind"], &stored.object["type"]), (&json!(kind), &type_));
    assert_eq!(stored.is_compressed, fixture.kind != Kind::NotCompressed);

    assert_eq!((&release["name"], &release["namespace"]), (&json!(fixture.release), &json!(ns.name)));
    let chart = &release["chart"]["metadata"];
    let expected = if fixture.kind == Kind::OtherChart { ("orchestrator", "0.1.0") } else { ("claude-code", "0.2.0") };
    assert_eq!((&chart["name"], &chart["version"]), (&json!(expected.0), &json!(expected.1)));
    assert_keys(fixture, release);
}

/// Helm 4 adds to what Helm 3 writes, and leaves out the time of a deletion that was not.
fn assert_keys(fixture: &Fixture, release: &Value) {
    let is_v4 = fixture.helm.major == 4;
    let mut expected = BTreeSet::from(["chart", "info", "manifest", "name", "namespace", "version"]);
    expected.extend(is_v4.then_some("apply_method"));
    // not where no value is set
    expected.extend((fixture.kind != Kind::OtherChart).then_some("config"));
    assert_eq!(keys(release), expected, "{fixture:?}");
    let mut expected = BTreeSet::from(["description", "first_deployed", "last_deployed", "status"]);
    let is_deleted = matches!(fixture.kind, Kind::Uninstalled | Kind::Uninstalling);
    expected.extend((is_deleted || !is_v4).then_some("deleted"));
    assert_eq!(keys(&release["info"]), expected, "{fixture:?}");
    assert_eq!(release["info"]["deleted"].as_str().is_some_and(|time| !time.is_empty()), is_deleted);
    let mut expected = BTreeSet::from(["files", "lock", "metadata", "schema", "templates", "values"]);
    expected.extend(is_v4.then_some(["modtime", "schemamodtime"]).into_iter().flatten());
    assert_eq!(keys(&release["chart"]), expected, "{fixture:?}");
}

/// What is told of it by its kind, in its values and in revisions before the last.
fn assert_kind<'a>(fixture: &Fixture, stored: &impl Fn(u32) -> &'a Stored) {
    let last = stored(fixture.revision());
    let (config, info) = (&last.release["config"], &last.release["info"]);
    let description = info["description"].as_str().expect("a text");
    match fixture.kind {
        Kind::OtherChart => return,
        Kind::OnlyJobIsSet | Kind::OnlyJobIsSetAndNotPlaced => {
            assert_eq!((&config["taskId"], &config["job"]["taskId"]), (&Value::Null, &fixture.task_id));
            return;
        }
        Kind::GaveUpOnVolume | Kind::GaveUpOnJob => assert!(description.contains("context deadline exceeded")),
        Kind::PendingLong | Kind::PendingGone => assert_eq!(info["last_deployed"], "2025-07-01T10:00:00.123456789Z"),
        Kind::Upgraded => {
            let before = [1, 2].map(|revision| stored(revision).status().to_owned());
            assert_eq!(
                (before, &config["agentName"]),
                (["superseded"; 2].map(str::to_owned), &json!("claude-agent-3"))
            );
        }
        Kind::PendingUpgrade => assert_eq!(stored(1).status(), "deployed"),
        Kind::UpgradeFailed => {
            assert!(description.contains("field is immutable"), "{description}");
            assert_eq!(stored(1).status(), "deployed");
        }
        Kind::TaskIdsDiffer => assert_ne!(config["taskId"], config["job"]["taskId"]),
        Kind::Large => {
            let size = last.object["data"]["release"].as_str().map_or(0, str::len);
            let size = if fixture.helm.driver == Driver::Secrets { size / 4 * 3 } else { size };
            assert!((880_000..1 << 20).contains(&size), "{size}");
        }
        Kind::JobDisabled => assert_eq!(config["job"]["enabled"], false),
        _ => {}
    }
    assert_eq!((&config["taskId"], &config["serviceName"]), (&fixture.task_id, &json!(fixture.service)));
    assert!(config["secrets"]["anthropicApiKey"].as_str().is_some_and(|key| key.starts_with(KEY)));
}

/// The Job's labels and what it mounts, as far as there is one.
fn assert_job(fixture: &Fixture, jobs: &[Value]) {
    let name = fixture.job_name();
    let Some(job) = jobs.iter().find(|job| job["metadata"]["name"] == name.as_str()) else { return };
    let metadata = &job["metadata"];
    assert_eq!(metadata["labels"]["microservice"], fixture.service.as_str());
    assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], fixture.release.as_str());
    assert_eq!(metadata["annotations"]["meta.helm.sh/release-name"], fixture.release.as_str());
    let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
    let find = |name: &str| volumes.iter().find(|volume| volume["name"] == name).expect("the volume");
    let (files, claim) = match fixture.kind {
        Kind::OnlyJobIsSet => ("-task--run-1-files".to_owned(), "shared-workspace-pvc"),
        _ => (fixture.files_name(), "shared-workspace"),
    };
    assert_eq!(find("task-files")["configMap"]["name"], files.as_str());
    assert_eq!(find("workspace")["persistentVolumeClaim"]["claimName"], claim);
}

#[test]
fn sixty_releases_are_what_they_are_said_to_be() {
    let ns = Cluster::shared().namespace(&json!({}));
    let fixtures = sixty(&ns);
    assert_eq!(fixtures.len(), 60);
    for major in [3, 4] {
        let of_major = || fixtures.iter().filter(|fixture| fixture.helm.major == major);
        let in_config_maps = of_major().filter(|fixture| fixture.helm.driver == Driver::ConfigMaps).count();
        assert!(of_major().count() == 30 && in_config_maps >= 2);
    }
    let (all, jobs) = (all_stored(&ns), ns.list("jobs"));
    assert_eq!(all.len(), fixtures.iter().map(|fixture| fixture.revision() as usize).sum::<usize>());
    for fixture in &fixtures {
        let stored = |number: u32| &all[&format!("sh.helm.release.v1.{}.v{number}", fixture.release)];
        let last = stored(fixture.revision());
        assert_eq!(last.status(), fixture.status(), "{fixture:?}");
        assert_written_by_helm(&ns, fixture, last);
        assert_kind(fixture, &stored);
        assert_job(fixture, &jobs);
    }
    // each Helm reads what the other wrote; Helm 3 lists what is pending or uninstalled only with --all
    for (helm, more) in [(Helm::V3, Some("--all")), (Helm::V4, None)] {
        let mut args = vec!["list", "--max=0", "-o=json"];
        args.extend(more);
        let listed: Value = serde_json::from_str(&helm.run(&ns, &args).ok()).expect("JSON");
        let expected = fixtures.iter().filter(|fixture| fixture.helm.driver == Driver::Secrets).count();
        assert_eq!(listed.as_array().map(Vec::len), Some(expected), "{helm:?}");
    }
}

/// Starts a task, and waits until its pod runs.
pub fn start_agent(ns: &Namespace<'_>, helm: Helm, id: &str) -> String {
    let release = start_task(ns, helm, id, "svc", &json!({"kwok.test/run-for": "until-told"}));
    ns.wait("pods", "running", |_| pods_of(ns, id).iter().any(|pod| pod["status"]["phase"] == "Running"));
    release
}

pub fn pods_of(ns: &Namespace<'_>, id: &str) -> Vec<Value> {
    ns.list("pods").into_iter().filter(|pod| pod["metadata"]["labels"]["task-id"] == id).collect()
}

#[test]
fn uninstall_ends_the_agent_and_leaves_its_files() {
    let ns = Cluster::shared().namespace(&json!({}));
    create_claim(&ns, "shared-workspace");
    for (helm, id) in [(Helm::V3, "3"), (Helm::V4, "4")] {
        let release = start_agent(&ns, helm, id);
        helm.uninstall(&ns, &release, &[]).ok();
        assert_eq!(ns.find(&format!("job/{release}-claude-code")), None);
        let is_ending = |pods: &Vec<Value>| pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string());
        ns.wait("pods", "ending", |_| is_ending(&pods_of(&ns, id)));
        ns.get(&format!("configmap/{release}-files"));
    }
}

#[test]
fn of_a_job_without_its_annotations_only_helm_4_keeps_its_hands_off() {
    let ns = Cluster::shared().namespace(&json!({}));
    create_claim(&ns, "shared-workspace");
    for (helm, id) in [(Helm::V3, "3"), (Helm::V4, "4")] {
        let release = start_agent(&ns, helm, id);
        let job = format!("job/{release}-claude-code");
        let annotations = json!({"meta.helm.sh/release-name": null, "meta.helm.sh/release-namespace": null});
        ns.merge(&job, &json!({"metadata": {"annotations": annotations}})).ok();
        helm.uninstall(&ns, &release, &[]).ok();
        assert_eq!(ns.find(&job).is_some(), helm == Helm::V4, "{helm:?}");
    }
}

#[test]
fn upgrade_starts_an_agent_whose_job_is_gone_once_more() {
    let ns = Cluster::shared().namespace(&json!({}));
    create_claim(&ns, "shared-workspace");
    for (helm, id) in [(Helm::V3, "3"), (Helm::V4, "4")] {
        let release = start_agent(&ns, helm, id);
        let job = format!("job/{release}-claude-code");
        ns.kubectl(&["delete", &job]).ok();
        helm.upgrade(&ns, &release, &values(&json!(id), "svc", &json!({}))).ok();
        assert!(ns.find(&job).is_some(), "{helm:?}");
    }
}
