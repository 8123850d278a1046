//! The shipped roles against what is done with them: the API server's audit log tells each call, and whether it was allowed.
//! A right that nobody uses fails a test as one that is missing does.

use crate::adoption::{adopting, job};
use crate::chart::{CHART, hooks};
use crate::helm::Helm;
use crate::queue::{create_workload, install_workloads, is_active};
use crate::support::{Cluster, Namespace, Operator, Output, account_kubeconfig, agent, markdown, task_run, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

const SYSTEM: &str = "taskrun-system";
const LONG: &str = "until-told";
/// Nobody calls these: the API server asks for the right by itself, where a plugin of it that these tests turn on looks
/// whether the creator of an owner reference that holds up a deletion may do so.
const ASKED_FOR: &str = "update orchestrator.io/taskruns/finalizers";
/// Owner references need their rights.
const PLUGIN: &str = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";

/// Verb, group, resource and subresource, as one text each.
type Rights = BTreeSet<String>;

/// What the roles bound to this service account allow.
fn granted(cluster: &Cluster, account: &str) -> Rights {
    let list = |kinds: &str| -> Vec<Value> {
        let found = cluster.kubectl(&["get", kinds, "-A", "-o", "json"]).ok();
        serde_json::from_str::<Value>(&found).expect("JSON")["items"].as_array().expect("a list").clone()
    };
    let subject = json!({"kind": "ServiceAccount", "name": account, "namespace": SYSTEM});
    let bindings = list("rolebindings,clusterrolebindings");
    let bindings =
        bindings.iter().filter(|binding| binding["subjects"].as_array().is_some_and(|all| all.contains(&subject)));
    let bound: Vec<_> = bindings.map(|binding| (&binding["roleRef"]["kind"], &binding["roleRef"]["name"])).collect();
    let roles = list("roles,clusterroles");
    let roles = roles.iter().filter(|role| bound.contains(&(&role["kind"], &role["metadata"]["name"])));
    let ours = roles.filter(|role| role["metadata"].get("namespace").is_none_or(|namespace| namespace == SYSTEM));
    ours.flat_map(|role| role["rules"].as_array().expect("rules").iter().flat_map(rights)).collect()
}

fn rights(rule: &Value) -> Rights {
    let texts = |field: &str| serde_json::from_value::<Vec<String>>(rule[field].clone()).expect("texts");
    let (groups, resources) = (texts("apiGroups"), texts("resources"));
    let all = groups.iter().flat_map(|group| resources.iter().map(move |resource| format!("{group}/{resource}")));
    all.flat_map(|resource| texts("verbs").into_iter().map(move |verb| format!("{verb} {resource}"))).collect()
}

/// What a service account did, and what it was not allowed to do.
fn used(cluster: &Cluster, account: &str) -> (Rights, Rights) {
    let user = format!("system:serviceaccount:{SYSTEM}:{account}");
    let (mut used, mut refused) = (Rights::new(), Rights::new());
    for entry in cluster.audit().iter().filter(|entry| entry["user"]["username"] == user.as_str()) {
        let text = |field: &str| entry["objectRef"][field].as_str();
        let Some(resource) = text("resource").filter(|resource| !resource.starts_with("selfsubject")) else { continue };
        let group = text("apiGroup").unwrap_or_default();
        let subresource = text("subresource").map(|name| format!("/{name}")).unwrap_or_default();
        let right = format!("{} {group}/{resource}{subresource}", entry["verb"].as_str().expect("a verb"));
        match entry["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            true => refused.insert(right),
            false => used.insert(right),
        };
    }
    (used, refused)
}

/// Has somebody do all that it does, and compares. A watch is told by the log when it ends: its owner has to be gone.
#[track_caller]
fn compare(cluster: &Cluster, account: &str, all: impl FnOnce()) {
    let done = catch_unwind(AssertUnwindSafe(all));
    let refused = used(cluster, account).1;
    assert_eq!(refused, Rights::new(), "what {account} may not do, but did");
    done.unwrap_or_else(|panic| resume_unwind(panic));
    let mut granted = granted(cluster, account);
    granted.remove(ASKED_FOR);
    let started = Instant::now();
    while used(cluster, account).0 != granted && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(200));
    }
    let used = used(cluster, account).0;
    assert_eq!(&granted - &used, Rights::new(), "what {account} may do, but does not");
    assert_eq!(&used - &granted, Rights::new(), "what {account} did by rights from elsewhere");
}

/// Everything that an operator is there for.
fn live(ns: &Namespace<'_>) {
    go_through_versions(ns);
    make_a_workspace(ns);
    delete_what_lost_its_job(ns);
    take_a_job_over(ns);
    wait_in_a_queue(ns);
    lose_what_it_made_for_itself(ns.cluster);
}

/// Suspended twice, so that an Event is counted, superseded, cut from the history, and ended by its time.
fn go_through_versions(ns: &Namespace<'_>) {
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["historyLimit"] = json!(0);
    ns.create(&task).ok();
    ns.wait_phase("taskrun/task-1", 1, "Running");
    for suspend in [true, false, true, false] {
        ns.merge("taskrun/task-1", &json!({"spec": {"suspend": suspend}})).ok();
        ns.wait("job/svc-1-v1", "as it is to be", |job| job["spec"]["suspend"] == suspend);
        ns.wait("taskrun/task-1", "told", |task| suspended(task) == suspend);
    }
    for (version, text) in [(2, "do more"), (3, "do even more")] {
        ns.merge("taskrun/task-1", &json!({"spec": {"markdownFiles": markdown(&[("task.md", text)])}})).ok();
        ns.wait_phase("taskrun/task-1", version, "Running");
    }
    ns.wait("configmap/svc-1-v1", "gone", Value::is_null);
    ns.kubectl(&["annotate", "pods", "-l", "task-id=1", "kwok.test/outcome=succeeded"]).ok();
    ns.wait_phase("taskrun/task-1", 3, "Succeeded");
    ns.merge("taskrun/task-1", &json!({"spec": {"ttlSecondsAfterFinished": 1}})).ok();
    ns.wait("taskrun/task-1", "gone", Value::is_null);
}

fn make_a_workspace(ns: &Namespace<'_>) {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let mut worker = agent("worker", &json!({"kwok.test/run-for": LONG}));
    worker["spec"]["workspace"] = json!({"claimTemplate": claim});
    ns.create(&worker).ok();
    let mut task = task_run(2, &[("task.md", "do it")]);
    task["spec"]["agentName"] = json!("worker");
    ns.create(&task).ok();
    ns.wait("pvc/workspace-svc-2", "there", Value::is_object);
}

fn delete_what_lost_its_job(ns: &Namespace<'_>) {
    ns.create(&task_run(3, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-3", 1, "Running");
    ns.kubectl(&["delete", "job/svc-3-v1", "--cascade=orphan"]).ok();
    ns.wait_phase("taskrun/task-3", 1, "Failed");
    ns.kubectl(&["delete", "taskrun/task-3", "--timeout=60s"]).ok();
}

fn take_a_job_over(ns: &Namespace<'_>) {
    ns.create(&job("old", 4)).ok();
    ns.create(&adopting(ns, 4, "old")).ok();
    ns.wait_phase("taskrun/task-4", 1, "Running");
}

fn wait_in_a_queue(ns: &Namespace<'_>) {
    install_workloads(ns.cluster);
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "gpu"});
    ns.create(&task).ok();
    ns.wait("taskrun/task-1", "queued", |task| task["status"]["message"].to_string().contains("waits in queue"));
    create_workload(ns, &ns.get("job/svc-1-v1"));
    ns.merge("job/svc-1-v1", &json!({"spec": {"suspend": false}})).ok();
    ns.wait_phase("taskrun/task-1", 1, "Running");
    ns.merge("taskrun/task-1", &json!({"spec": {"suspend": true}})).ok();
    ns.wait("workload/job-svc-1-v1", "inactive", |workload| !is_active(workload));
}

/// A Secret that is gone is made again, and soon changed; webhook configurations are made again, too.
fn lose_what_it_made_for_itself(cluster: &Cluster) {
    let secret = || cluster.kubectl(&["-n", SYSTEM, "get", "secret", "taskrun-operator-tls", "-o", "jsonpath={.data}"]);
    cluster.kubectl(&["-n", SYSTEM, "delete", "secret", "taskrun-operator-tls"]).ok();
    wait_until("a Secret", || secret().ok);
    let first = secret().ok();
    wait_until("a new certificate", || secret().stdout != first);
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        cluster.kubectl(&["delete", kind, "taskrun-operator"]).ok();
        wait_until(kind, || cluster.kubectl(&["get", kind, "taskrun-operator"]).ok);
    }
}

fn suspended(task: &Value) -> bool {
    let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Suspended" && condition["status"] == "True")
}

#[test]
fn the_operator_has_the_rights_that_it_uses_and_no_other() {
    let cluster = Cluster::start_with(&[PLUGIN]);
    cluster.install();
    compare(&cluster, "taskrun-operator", || {
        let operator = Operator::start(&cluster, &[]);
        live(&cluster.namespace(&json!({"kwok.test/run-for": LONG})));
        operator.signal("TERM");
        operator.wait_end();
    });
}

#[test]
fn an_operator_of_one_namespace_needs_no_rights_in_others() {
    let cluster = Cluster::start_with(&[PLUGIN]);
    // the CRDs, for the Agent in the namespace
    cluster.install();
    let ns = cluster.namespace(&json!({"kwok.test/run-for": LONG}));
    cluster.kubectl(&["delete", "clusterrolebinding", "taskrun-operator"]).ok();
    let system = Namespace { cluster: &cluster, name: SYSTEM.to_owned() };
    let namespaces = format!("namespaces={{{}}}", ns.name);
    let rendered =
        Helm::V4.run(&system, &["template", "taskrun-operator", CHART, "--no-hooks", "--set", &namespaces]).ok();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    cluster.kubectl_text(&apply, &rendered).ok();
    let account = format!("--as=system:serviceaccount:{SYSTEM}:taskrun-operator");
    for (namespace, may) in [(ns.name.as_str(), true), ("default", false)] {
        assert_eq!(
            cluster.kubectl(&["auth", "can-i", "create", "jobs", "-n", namespace, &account]).ok,
            may,
            "{namespace}"
        );
    }
    compare(&cluster, "taskrun-operator", || {
        let operator = Operator::start(&cluster, &[&format!("--namespace={}", ns.name)]);
        live(&ns);
        operator.signal("TERM");
        operator.wait_end();
    });
}

#[test]
fn a_namespace_that_is_gone_holds_up_no_other() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&json!({}));
    cluster.kubectl(&["delete", "clusterrolebinding", "taskrun-operator"]).ok();
    let account = format!("--serviceaccount={SYSTEM}:taskrun-operator");
    ns.kubectl(&["create", "rolebinding", "taskrun-operator-tasks", "--clusterrole=taskrun-operator", &account]).ok();
    let _operator = Operator::start(&cluster, &[&format!("--namespace=gone,{}", ns.name)]);
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-1", 1, "Succeeded");
}

/// Runs what a hook of the chart runs, under its service account.
fn run_hook(cluster: &Cluster, pod: &Value) -> Output {
    let account = pod["serviceAccountName"].as_str().expect("a name");
    let args: Vec<String> = serde_json::from_value(pod["containers"][0]["args"].clone()).expect("arguments");
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskrun-operator"));
    let command_env = [("KUBECONFIG", account_kubeconfig(cluster, SYSTEM, account))];
    command.args(args).envs(command_env).env("POD_NAMESPACE", SYSTEM);
    Output::of(command, "")
}

#[test]
fn the_hooks_of_the_chart_have_the_rights_that_they_use_and_no_other() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", SYSTEM]).ok();
    let system = Namespace { cluster: &cluster, name: SYSTEM.to_owned() };
    Helm::V4.run(&system, &["install", "taskrun-operator", CHART]).ok();
    let ns = cluster.namespace(&json!({"kwok.test/run-for": LONG}));
    let hooks = hooks(&Helm::V4.run(&system, &["get", "hooks", "taskrun-operator"]).ok());
    let of = |kind: &str| hooks.iter().find(|hook| hook["kind"] == kind).expect("a hook").clone();
    for hook in hooks.iter().filter(|hook| !["Job", "Pod"].contains(&hook["kind"].as_str().expect("a kind"))) {
        cluster.kubectl_on(&["apply", "--server-side"], hook).ok();
    }

    let operator = Operator::start(&cluster, &[]);
    compare(&cluster, "taskrun-operator-check", || {
        let told = run_hook(&cluster, &of("Pod")["spec"]).ok();
        assert_eq!(told, "a TaskRun gets its version\none without content is refused\n");
    });
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-1", 1, "Running");
    // what it is for: an admission that is switched off is found
    let off = json!({"webhooks": [{"name": "validate.taskruns.orchestrator.io", "rules": [{
        "apiGroups": ["orchestrator.io"], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["taskruns"]}]}]});
    let validating = ["patch", "validatingwebhookconfiguration", "taskrun-operator", "--type=strategic", "-p"];
    cluster.kubectl(&[validating.as_slice(), &[&off.to_string()]].concat()).ok();
    wait_until("a refusal", || run_hook(&cluster, &of("Pod")["spec"]).stderr.contains("without content was taken"));

    operator.signal("TERM");
    operator.wait_end();
    assert!(run_hook(&cluster, &of("Pod")["spec"]).refused().contains("failed calling webhook"));
    compare(&cluster, "taskrun-operator-uninstall", || {
        let told = run_hook(&cluster, &of("Job")["spec"]["template"]["spec"]).ok();
        assert!(
            told.contains("taken off 1 TaskRuns") && told.contains("secret/taskrun-operator-tls deleted"),
            "{told}"
        );
        // once more, where there is no Lease
        run_hook(&cluster, &of("Job")["spec"]["template"]["spec"]).ok();
    });
    assert_eq!(ns.get("taskrun/task-1")["metadata"].get("finalizers"), None);
}
