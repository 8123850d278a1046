//! The chart, by Helm itself, on a cluster where nobody makes pods of a Deployment: the operator runs as a process beside it.

use crate::helm::Helm;
use crate::support::{Cluster, Namespace, Operator, task_run};
use crate::uninstall::uninstall;
use serde_json::{Value, json};
use std::process::Command;

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/chart");
const SYSTEM: &str = "taskrun-system";
const CRD: &str = "crd/taskruns.orchestrator.io";
const WEBHOOKS: &str = "mutatingwebhookconfigurations,validatingwebhookconfigurations";

/// The hooks of a release, as `helm get hooks` prints them.
pub fn hooks(printed: &str) -> Vec<Value> {
    let documents = printed.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let read = |document| serde_saphyr::from_str::<Value>(document).expect("YAML");
    documents.map(read).filter(|hook| hook["kind"].is_string()).collect()
}

/// A copy of the chart whose CRDs and replicas are a little different, as those of a newer version are.
fn newer(cluster: &Cluster) -> String {
    let copy = cluster.file("chart").to_string_lossy().into_owned();
    let copied = Command::new("cp").args(["-rL", CHART, &copy]).status();
    assert!(copied.expect("cp").success());
    let path = format!("{copy}/files/crds/taskruns.yaml");
    let crd = std::fs::read_to_string(&path).expect("a CRD");
    let changed = crd.replacen("name: Phase\n", "name: Stage\n", 1);
    assert_ne!(changed, crd);
    std::fs::write(path, changed).expect("written");
    copy
}

fn lives_through_its_releases(helm: Helm) {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", SYSTEM]).ok();
    let system = Namespace { cluster: &cluster, name: SYSTEM.to_owned() };
    let run = |args: &[&str]| helm.run(&system, args);
    let notes = run(&["install", "operator", CHART]).ok();
    assert!(notes.contains("No image is published under this name"), "{notes}");
    run(&["test", "operator"]).ok();

    // any will do
    let ca = ["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}"];
    let ca = cluster.kubectl(&ca).ok();
    // what the operator wrote into the webhook configurations is left alone, and CRDs are as the chart of then has them
    for (kind, webhook) in [("mutatingwebhookconfiguration", "mutate"), ("validatingwebhookconfiguration", "validate")]
    {
        let bundle = json!({"webhooks": [{"name": format!("{webhook}.taskruns.orchestrator.io"), "clientConfig": {"caBundle": ca}}]});
        let patch =
            ["patch", kind, "taskrun-operator", "--type=strategic", "--field-manager=taskrun-operator-webhook", "-p"];
        cluster.kubectl(&[patch.as_slice(), &[&bundle.to_string()]].concat()).ok();
    }
    let is_so = |replicas: u64, column: &str| {
        let columns = cluster.kubectl(&["get", CRD, "-o", "jsonpath={..additionalPrinterColumns[*].name}"]).ok();
        assert!(columns.split(' ').any(|name| name == column), "{column}: {columns}");
        assert_eq!(system.get("deploy/taskrun-operator")["spec"]["replicas"], replicas);
        let bundles = ["get", WEBHOOKS, "-o", "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}"];
        assert_eq!(cluster.kubectl(&bundles).ok(), format!("{ca} {ca}"));
    };
    is_so(2, "Phase");
    run(&["upgrade", "operator", &newer(&cluster), "--set", "replicas=3"]).ok();
    is_so(3, "Stage");
    run(&["rollback", "operator", "1"]).ok();
    is_so(2, "Phase");

    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({"kwok.test/run-for": "until-told"}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-1", 1, "Running");
    operator.signal("TERM");
    operator.wait_end();
    // TaskRuns, their runs and the CRDs stay, and a release that comes later takes the CRDs over
    run(&["uninstall", "operator"]).ok();
    assert_eq!(ns.get("job/svc-1-v1")["status"]["active"], 1, "a run goes on");
    let kinds = "deploy,netpol,pdb,svc,sa,roles,rolebindings,jobs,pods,clusterroles,clusterrolebindings";
    let left = cluster.kubectl(&["-n", SYSTEM, "get", kinds, "-o", "name"]).ok();
    assert!(!left.contains("taskrun"), "{left}");
    // kept for the hook, whose pod does nothing here: before it, an operator that is ending would make them again
    assert_eq!(cluster.kubectl(&["get", WEBHOOKS, "-o", "name"]).ok().lines().count(), 2);
    uninstall(&cluster, &[]).ok();
    assert_eq!(cluster.kubectl(&["get", WEBHOOKS, "-o", "name"]).ok(), "");
    let refused = run(&["install", "another", CHART]).refused();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    run(&["install", "another", CHART, "--take-ownership"]).ok();
    ns.wait_phase("taskrun/task-1", 1, "Running");
}

#[test]
fn helm_3_installs_upgrades_rolls_back_and_uninstalls() {
    lives_through_its_releases(Helm::V3);
}

#[test]
fn helm_4_installs_upgrades_rolls_back_and_uninstalls() {
    lives_through_its_releases(Helm::V4);
}

#[test]
fn helm_takes_over_what_kubectl_installed() {
    let cluster = Cluster::start();
    cluster.install();
    let system = Namespace { cluster: &cluster, name: SYSTEM.to_owned() };
    let run = |more: &[&str]| Helm::V4.run(&system, &[&["install", "operator", CHART], more].concat());
    assert!(run(&[]).refused().contains("invalid ownership metadata"));
    run(&["--take-ownership", "--force-conflicts"]).ok();
}

#[test]
fn users_get_what_their_role_in_the_namespace_says() {
    let ns = Cluster::shared().namespace(&json!({}));
    for (role, may) in
        [("view", ["yes", "no", "no"]), ("edit", ["yes", "yes", "yes"]), ("admin", ["yes", "yes", "yes"])]
    {
        ns.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &format!("--user={role}")]).ok();
        let can = |verb: &str, kind: &str| {
            ns.kubectl(&["auth", "can-i", verb, kind, &format!("--as={role}")]).stdout.trim().to_owned()
        };
        for kind in ["taskruns.orchestrator.io", "agents.orchestrator.io"] {
            ns.wait("rolebindings", "known", |_| can("watch", kind) == "yes");
            assert_eq!(["list", "update", "deletecollection"].map(|verb| can(verb, kind)), may, "{role} {kind}");
        }
        let status = ["auth", "can-i", "update", "taskruns.orchestrator.io", "--subresource=status", "--as"];
        assert!(!ns.kubectl(&[status.as_slice(), &[role]].concat()).ok, "{role}");
    }
}

#[test]
fn pods_of_the_shipped_kind_are_let_into_their_namespace_with_any_priority() {
    let cluster = Cluster::start();
    cluster.install();
    let system = Namespace { cluster: &cluster, name: SYSTEM.to_owned() };
    let template = system.get("deploy/taskrun-operator")["spec"]["template"].clone();
    for class in [Value::Null, json!("system-cluster-critical")] {
        let mut pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-"}, "spec": template["spec"]});
        pod["spec"]["priorityClassName"] = class.clone();
        system.create(&pod).ok();
        let mut careless = pod.clone();
        careless["spec"]["containers"][0]["securityContext"] = json!({});
        assert!(system.create(&careless).refused().contains("violates PodSecurity \"restricted"), "{class}");
    }
    let agents = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agents");
    cluster.kubectl(&["create", "namespace", "orchestrator"]).ok();
    cluster.kubectl(&["apply", "--server-side", "-k", agents]).ok();
}
