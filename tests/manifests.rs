//! The shipped YAML agrees with the code that it is for, kustomize's with the chart's, and both with what a checker asks for.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use taskrun_operator::client::WEBHOOK_CONFIGURATION;
use taskrun_operator::crd::{CHANGED_BY, GROUP, TRACEPARENT, custom_resource_definitions};
use taskrun_operator::metrics::Metrics;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).expect(path)
}

#[test]
fn crds_are_current() {
    for crd in custom_resource_definitions() {
        let path = format!("crds/{}.yaml", crd.spec.names.plural);
        let shipped: Value = yaml(&path);
        let generated = serde_json::to_value(&crd).expect("JSON");
        assert_eq!(without_float(shipped), without_float(generated), "{path} is stale: run `make generate`");
    }
}

#[test]
fn the_table_of_metrics_is_current() {
    let generated = Metrics::new().expect("metrics").document();
    assert_eq!(read("docs/metrics.md"), generated, "docs/metrics.md is stale: run `make generate`");
}

/// `1` and `1.0` are one number to JSON, but two to this comparison.
fn without_float(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(list) => list.into_iter().map(without_float).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, without_float(value))).collect(),
        other => other,
    }
}

#[test]
fn webhook_configurations_fit_the_webhook() {
    for (path, verb) in [("webhook-config/mutating.yaml", "mutate"), ("webhook-config/validating.yaml", "validate")] {
        let configuration = yaml(path);
        assert_eq!(configuration["metadata"]["name"], WEBHOOK_CONFIGURATION, "{path}");
        let webhook = &configuration["webhooks"][0];
        assert_eq!(webhook["name"], format!("{verb}.taskruns.{GROUP}"), "{path}");
        assert_eq!(webhook["clientConfig"]["service"]["path"], format!("/{verb}"), "{path}");
        assert_eq!(webhook["rules"][0]["resources"], serde_json::json!(["taskruns"]), "{path}: no subresources");
        for (field, value) in [("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("sideEffects", "None")] {
            assert_eq!(webhook[field], value, "{path}: {field}");
        }
        let condition = webhook["matchConditions"][0]["expression"].as_str().expect("an expression");
        for field in ["taskId", "serviceName", "agentName", "contextVersion", "markdownFiles", "env"] {
            assert!(
                condition.contains(&format!("object.spec[?'{field}'] != oldObject.spec[?'{field}']")),
                "{path}: {field}"
            );
        }
        assert!(condition.contains(CHANGED_BY), "{path}");
        for exempt in ["suspend", "cancel", "historyLimit"] {
            assert!(!condition.contains(exempt), "{path}: {exempt} must work while the webhook is down");
        }
    }
    let mutating = &yaml("webhook-config/mutating.yaml")["webhooks"][0];
    assert_eq!(mutating["reinvocationPolicy"], "IfNeeded");
    let condition = mutating["matchConditions"][0]["expression"].as_str().expect("an expression");
    assert!(condition.contains(TRACEPARENT), "who changes that annotation alone gets it back");
}

/// An object's kind, namespace and name.
type Name = [String; 3];

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/chart");

/// Overlays of the shipped kustomization, and the values with which the chart is to render the same.
const SAME: [(&str, &str); 4] = [
    ("resources: [deploy]", ""),
    ("resources: [certs]", "certManager.enabled=true"),
    ("{resources: [deploy], components: [deploy/options/monitoring]}", "monitoring.enabled=true"),
    (
        "{resources: [deploy], components: [deploy/options/namespaced, deploy/options/priority], \
         images: [{name: taskrun-operator, newName: registry.test/ours, newTag: v1}]}",
        "namespaces={orchestrator},image.repository=registry.test/ours,image.tag=v1,\
         podTemplate.spec.priorityClassName=system-cluster-critical",
    ),
];

fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().expect("it is on PATH, or was built");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The folder of these tools.
fn build(what: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build.sh");
    PathBuf::from(run(Command::new(script).arg(what)).trim())
}

/// What an overlay renders, whose paths are those of the clone.
fn kustomize(overlay: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("overlay-{}", fastrand::u64(..)));
    fs::create_dir_all(&folder).expect("a folder");
    let folder = folder.canonicalize().expect("a path");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("a path");
    // kustomize takes relative paths only
    let root = format!(
        "{}{}",
        "../".repeat(folder.components().count() - 1),
        root.display().to_string().trim_start_matches('/')
    );
    let overlay = overlay.replace("deploy", &format!("{root}/deploy")).replace("certs", &format!("{root}/certs"));
    fs::write(folder.join("kustomization.yaml"), overlay).expect("written");
    let rendered = run(Command::new("kubectl").arg("kustomize").arg(&folder));
    fs::remove_dir_all(folder).expect("removed");
    rendered
}

/// What the chart renders in a namespace.
fn helm(helm: &str, namespace: &str, values: &str) -> String {
    let mut command = Command::new(build("helm").join(helm));
    command.args(["template", "any", CHART, "-n", namespace]);
    run(command.args(["--kube-version", "1.33.0", "--set", values]))
}

/// The objects in it. What only Helm needs is taken away: the annotation by which one outlives its release.
fn objects(rendered: &str) -> BTreeMap<Name, Value> {
    let documents = rendered.split("\n---\n").map(|text| text.trim_start_matches("---\n"));
    let read = |text| serde_saphyr::from_str::<Value>(text).expect("YAML");
    let named = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        let is_bare = annotations.is_some_and(|all| all.remove("helm.sh/resource-policy").is_some() && all.is_empty());
        if is_bare {
            metadata.remove("annotations");
        }
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = ["/kind", "/metadata/namespace", "/metadata/name"].map(text);
        (name, without_float(object))
    };
    documents.map(read).filter(|object| object["kind"].is_string()).map(named).collect()
}

#[test]
fn the_chart_renders_what_kustomize_does() {
    for (overlay, values) in SAME {
        let mut shipped = objects(&kustomize(overlay));
        // Helm makes the namespace of a release itself, or finds it
        assert!(shipped.remove(&["Namespace", "", "taskrun-system"].map(ToOwned::to_owned)).is_some());
        assert!(shipped.len() >= 17, "{:?}", shipped.keys());
        for version in ["helm3", "helm4"] {
            let mut rendered = objects(&helm(version, "taskrun-system", values));
            rendered.retain(|_, object| object["metadata"]["annotations"].get("helm.sh/hook").is_none());
            assert_eq!(rendered.keys().collect::<Vec<_>>(), shipped.keys().collect::<Vec<_>>(), "{version} {overlay}");
            for (name, object) in &rendered {
                assert_eq!(object, &shipped[name], "{version} {overlay}: {name:?}");
            }
        }
    }
}

#[test]
fn the_chart_can_be_installed_into_any_namespace() {
    for values in ["", "certManager.enabled=true", "monitoring.enabled=true,namespaces={a}"] {
        let there = helm("helm4", "taskrun-system", values);
        let elsewhere = helm("helm4", "ops", values);
        assert!(!elsewhere.contains("taskrun-system"), "{values}");
        assert_eq!(objects(&there.replace("taskrun-system", "ops")), objects(&elsewhere), "{values}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let helm4 = build("helm").join("helm4");
    for values in [
        "replica=3",
        "replicas=two",
        "image.tag=a b",
        "image.digest=sha256:1",
        "namespaces={A}",
        "container.resorces.limits.cpu=1",
        "podTemplate.spec.containers=",
        "podTemplate.annotations.a=b",
        "monitoring.enabled=maybe",
    ] {
        let mut command = Command::new(&helm4);
        let output = command.args(["template", "any", CHART, "--set", values]).output().expect("it was built");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains("values don't meet the specifications"), "{values}: {told}");
    }
}

#[test]
fn all_that_ships_is_of_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = yaml("deploy/chart/Chart.yaml");
    assert_eq!([&chart["version"], &chart["appVersion"]], [version, version], "deploy/chart/Chart.yaml");
    for path in ["deploy/deployment.yaml", "deploy/migration/cronjob.yaml"] {
        assert!(read(path).contains(&format!("image: taskrun-operator:{version} ")), "{path}");
    }
}

/// What kube-score asks for, and we do not do.
const NOT_FOR_US: [&str; 5] = [
    // an image of ours is never published twice under one tag, and nodes may have it where no registry is
    "container-image-pull-policy",
    // nothing is written to disk but the log, and that is no reason to evict a webhook
    "container-ephemeral-storage-request-and-limit",
    // two nodes are wished for by topologySpreadConstraints, which it does not read; a cluster may have only one
    "deployment-has-host-podantiaffinity",
    // the CronJob of the migration talks to the API server alone, by whatever policy its namespace has
    "pod-networkpolicy",
    // the pods of agents are made by the operator
    "networkpolicy-targets-pod",
];

/// What kube-score has to say of this YAML, but for these tests.
fn score(name: &str, rendered: &str, ignored: &[&str]) -> Vec<String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.yaml", fastrand::u64(..)));
    fs::write(&path, rendered).expect("written");
    let mut command = Command::new(build("kube-score").join("kube-score"));
    // a webhook that is throttled answers too late
    command.args(["score", "--ignore-container-cpu-limit", "-o", "ci"]);
    command.args(
        ["container-seccomp-profile", "container-ports-check"].map(|test| format!("--enable-optional-test={test}")),
    );
    let output = command.args(ignored.iter().map(|test| format!("--ignore-test={test}"))).arg(&path).output();
    fs::remove_file(path).expect("removed");
    let told = String::from_utf8(output.expect("it was built").stdout).expect("text");
    assert!(told.contains("[OK]"), "{told}");
    let is_fine = |line: &&str| !line.starts_with("[OK]") && !line.starts_with("[SKIPPED]");
    told.lines().filter(is_fine).map(ToOwned::to_owned).collect()
}

#[test]
fn a_checker_finds_nothing_to_say() {
    let mut shipped = ["deploy", "deploy/agents", "deploy/migration"]
        .map(|path| (path.replace('/', "-"), kustomize(&format!("resources: [{path}]"))))
        .to_vec();
    shipped.push(("chart".to_owned(), helm("helm4", "taskrun-system", "")));
    for (name, rendered) in &shipped {
        assert_eq!(score(name, rendered, &NOT_FOR_US), Vec::<String>::new(), "{name}");
    }
    // it would say something
    let careless = shipped[0].1.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false");
    let told = score("careless", &careless, &NOT_FOR_US);
    assert!(told.len() == 1 && told[0].contains("writable root filesystem"), "{told:?}");
    for test in NOT_FOR_US {
        let others: Vec<_> = NOT_FOR_US.into_iter().filter(|other| *other != test).collect();
        let is_needed = shipped.iter().any(|(name, rendered)| !score(name, rendered, &others).is_empty());
        assert!(is_needed, "{test} need not be ignored");
    }
}
