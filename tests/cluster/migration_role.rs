//! `deploy/migration` as it ships: what its `CronJob` runs, under its `ServiceAccount`, in a namespace of somebody's own.

use crate::helm::Helm;
use crate::helm::releases::{KEY, create_claim, start_task};
use crate::support::{Cluster, Namespace, Output, PATIENCE};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/migration");

/// A verb and the resource that it is for.
type Right = (String, String);

/// Applies what ships, with this namespace for the one in it; there pods must be restricted ones, or there is a warning.
fn install(ns: &Namespace<'_>) {
    ns.kubectl(&["label", "namespace", &ns.name, "pod-security.kubernetes.io/warn=restricted"]).ok();
    let folder = ns.cluster.file(&format!("{}-migration", ns.name));
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in std::fs::read_dir(SHIPPED).expect("it ships").map(|file| file.expect("a file")) {
        let text = std::fs::read_to_string(file.path()).expect("text");
        let text = text.replace("namespace: orchestrator", &format!("namespace: {}", ns.name));
        std::fs::write(folder.join(file.file_name()), text).expect("a file");
    }
    let folder = folder.to_string_lossy();
    let rendered = ns.cluster.kubectl(&["kustomize", &folder]).ok();
    assert!(!rendered.contains("orchestrator\n"), "{rendered}");
    let applied = ns.cluster.kubectl(&["apply", "-k", &folder]);
    assert_eq!((applied.ok, applied.stderr.as_str()), (true, ""));
}

/// Runs the operator's binary as a pod of the `CronJob` would.
fn run(ns: &Namespace<'_>, args: &[&str]) -> Output {
    let token = ns.kubectl(&["create", "token", "taskrun-migration"]).ok();
    let kubeconfig = ns.cluster.kubeconfig(&format!("{}-migration", ns.name), |kubeconfig| {
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
        kubeconfig["contexts"][0]["context"]["namespace"] = json!(ns.name);
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskrun-operator"));
    command.args(args).env("KUBECONFIG", kubeconfig).env_remove("TASKRUN_TASK_NAMES");
    Output::of(command, "")
}

/// What the `CronJob` runs.
fn shipped_args(ns: &Namespace<'_>) -> Vec<String> {
    let cron_job = ns.get("cronjob/taskrun-migration");
    assert_eq!(cron_job["spec"]["concurrencyPolicy"], "Forbid");
    let pod = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["restartPolicy"]), (&json!("taskrun-migration"), &json!("Never")));
    serde_json::from_value(pod["containers"][0]["args"].clone()).expect("arguments")
}

fn rights(rules: &Value) -> BTreeSet<Right> {
    let texts = |list: &Value| serde_json::from_value::<Vec<String>>(list.clone()).expect("texts");
    let of_rule = |rule: &Value| {
        let (verbs, resources) = (texts(&rule["verbs"]), texts(&rule["resources"]));
        verbs.into_iter().flat_map(move |verb| resources.clone().into_iter().map(move |of| (verb.clone(), of)))
    };
    rules.as_array().expect("rules").iter().flat_map(of_rule).collect()
}

/// These rules without one right.
fn without(rules: &Value, (verb, resource): &Right) -> Value {
    let apart = rules.as_array().expect("rules").iter().flat_map(|rule| {
        let resources = rule["resources"].as_array().expect("resources").iter();
        resources.map(|of| {
            let mut rule = rule.clone();
            rule["resources"] = json!([of]);
            if let Some(verbs) = rule["verbs"].as_array_mut().filter(|_| of == resource.as_str()) {
                verbs.retain(|of| of != verb.as_str());
            }
            rule
        })
    });
    apart.filter(|rule| rule["verbs"] != json!([])).collect()
}

/// Gives the Role these rules, and waits until the API server goes by them.
#[track_caller]
fn set_rules(ns: &Namespace<'_>, rules: &Value, (verb, resource): &Right, may: bool) {
    ns.merge("role/taskrun-migration", &json!({"rules": rules})).ok();
    let started = Instant::now();
    let account = format!("--as=system:serviceaccount:{}:taskrun-migration", ns.name);
    while ns.kubectl(&["auth", "can-i", verb, resource, &account]).ok != may {
        assert!(started.elapsed() < PATIENCE, "{verb} {resource} is not {may}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn actions(output: Output) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(&output.ok()).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let entries = report["releases"].as_array().expect("releases").iter();
    entries.map(|entry| (text(&entry["release"]), text(&entry["action"]))).collect()
}

/// Three releases: two agents at work, and one that is done.
fn start_tasks(ns: &Namespace<'_>) {
    create_claim(ns, "shared-workspace");
    for (helm, id, run_for) in [(Helm::V3, "1", "until-told"), (Helm::V4, "2", "until-told"), (Helm::V4, "3", "100ms")]
    {
        start_task(ns, helm, id, "svc", &json!({"kwok.test/run-for": run_for}));
    }
    ns.wait("job/svc-task-3-claude-code", "complete", |job| job["status"]["succeeded"] == 1);
}

#[test]
fn what_ships_for_a_cron_job_has_the_rights_it_needs_and_no_other() {
    let ns = Cluster::shared().namespace(&json!({}));
    install(&ns);
    start_tasks(&ns);
    let args = shipped_args(&ns);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(args, ["migrate-helm", "--apply", "--exit-zero"]);

    let rules = ns.get("role/taskrun-migration")["rules"].clone();
    for right in &rights(&rules) {
        set_rules(&ns, &without(&rules, right), right, false);
        let output = run(&ns, &args);
        let told = format!("cannot {} resource \\\"{}\\\"", right.0, right.1);
        let said = output.stdout + &output.stderr.replace('"', "\\\"");
        assert!(output.code == Some(1) && said.contains(&told), "without {right:?}: {said}");
        set_rules(&ns, &rules, right, true);
    }
    assert!(ns.list("taskruns").is_empty());

    let user = format!("system:serviceaccount:{}:taskrun-migration", ns.name);
    let before = ns.cluster.calls_of(&user).len();
    let done = |action: &str| ["1", "2", "3"].map(|id| (format!("svc-task-{id}"), action.to_owned()));
    assert_eq!(actions(run(&ns, &args)), done("created"));
    assert_eq!(actions(run(&ns, &args)), done("migrated"));
    assert_eq!(actions(run(&ns, &["migrate-helm", "--verify"])), done("verified"));
    let calls = ns.cluster.calls_of(&user).split_off(before);
    assert!(calls.iter().all(|call| call.code < 400 || call.code == 404), "{calls:?}");
    let used: BTreeSet<Right> = calls.into_iter().map(|call| (call.verb, call.resource)).collect();
    assert_eq!(used, rights(&rules), "what it may do beside what it does");

    for (id, phase) in [(1, "Running"), (2, "Running"), (3, "Succeeded")] {
        ns.wait_phase(&format!("taskrun/task-{id}"), 1, phase);
    }
    assert!(!ns.kubectl(&["get", "taskruns", "-o", "yaml"]).ok().contains(KEY));
}

#[test]
fn what_ships_for_a_cron_job_cannot_delete_a_release() {
    let ns = Cluster::shared().namespace(&json!({}));
    install(&ns);
    start_tasks(&ns);
    run(&ns, &["migrate-helm", "--apply"]).ok();
    ns.wait_phase("taskrun/task-3", 1, "Succeeded");
    let before = ns.list("secrets,configmaps,jobs").len();
    let output = run(&ns, &["migrate-helm", "--delete-releases", "-o", "table"]);
    assert!(output.code == Some(1) && output.stdout.contains("is forbidden"), "{}", output.stdout);
    assert_eq!(ns.list("secrets,configmaps,jobs").len(), before);
}
