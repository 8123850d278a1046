//! Every rule of admission, as kubectl's users meet it.

use crate::support::{Cluster, Namespace, Output, markdown, task_run};
use serde_json::{Value, json};

const TASK: &str = "taskrun/task-1";

/// A namespace with `task-1`, suspended: admission is what is looked at here.
fn with_task() -> Namespace<'static> {
    let ns = Cluster::shared().namespace(&json!({}));
    ns.kubectl_on(&["apply"], &suspended(&[("task.md", "do it"), ("prompt.md", "now")])).ok();
    ns
}

/// `task-1`, which is not run.
fn suspended(files: &[(&str, &str)]) -> Value {
    let mut task = task_run(1, files);
    task["spec"]["suspend"] = json!(true);
    task
}

fn version(ns: &Namespace<'_>) -> Value {
    ns.get(TASK)["spec"]["contextVersion"].clone()
}

/// `kubectl diff` of a manifest, once the reconciler has seen the last change: a status write between
/// the two reads of a diff would be one.
#[track_caller]
fn diff(ns: &Namespace<'_>, args: &[&str], manifest: &Value) -> Output {
    ns.wait(TASK, "seen", |task| task["status"]["observedGeneration"] == task["metadata"]["generation"]);
    ns.kubectl_on(&[&["diff"], args].concat(), manifest)
}

#[track_caller]
fn assert_no_drift(ns: &Namespace<'_>, args: &[&str], manifest: &Value) {
    let diff = diff(ns, args, manifest);
    assert_eq!(diff.code, Some(0), "{}{}", diff.stdout, diff.stderr);
}

/// The version after a write, and that what is stored now shows no drift.
#[track_caller]
fn version_without_drift(ns: &Namespace<'_>) -> Value {
    let mut stored = ns.get(TASK);
    stored.as_object_mut().expect("an object").remove("status");
    for managed in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
        stored["metadata"].as_object_mut().expect("an object").remove(managed);
    }
    assert_no_drift(ns, &[], &stored);
    stored["spec"]["contextVersion"].clone()
}

fn changed_by(ns: &Namespace<'_>) -> Value {
    ns.get(TASK)["metadata"]["annotations"]["orchestrator.io/context-changed-by"].clone()
}

#[test]
fn a_new_task_gets_version_1_labels_and_the_finalizer() {
    let ns = with_task();
    let task = ns.get(TASK);
    assert_eq!(task["spec"]["contextVersion"], 1);
    assert_eq!(task["metadata"]["finalizers"], json!(["orchestrator.io/run-cleanup"]));
    assert_eq!(task["metadata"]["labels"], json!({"task-id": "1", "service-name": "svc"}));
    assert_eq!(changed_by(&ns), "admin");
}

#[test]
fn a_new_task_may_say_version_1() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["contextVersion"] = json!(1);
    let output = ns.create(&task);
    assert_eq!(output.stderr, "");
    output.ok();
    assert_eq!(version(&ns), 1);
}

#[test]
fn a_restored_task_keeps_its_version_and_is_suspended() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = task_run(1, &[("task.md", "do it")]);
    task["spec"]["contextVersion"] = json!(7);
    let output = ns.create(&task);
    assert!(
        output.stderr.contains("Warning: this looks like a restored or copied TaskRun (spec.contextVersion is 7)"),
        "{}",
        output.stderr
    );
    let task = ns.get(TASK);
    assert_eq!((&task["spec"]["contextVersion"], &task["spec"]["suspend"]), (&json!(7), &json!(true)));
}

#[test]
fn a_copy_of_a_task_that_ran_is_not_run_again() {
    let ns = Cluster::shared().namespace(&json!({}));
    ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    let mut copy = ns.wait_phase(TASK, 1, "Succeeded");
    ns.kubectl(&["delete", TASK]).ok();
    for managed in ["resourceVersion", "uid"] {
        copy["metadata"].as_object_mut().expect("an object").remove(managed);
    }
    let output = ns.create(&copy);
    assert!(output.stderr.contains("Warning: this looks like a restored or copied TaskRun"), "{}", output.stderr);
    assert_eq!(ns.get(TASK)["spec"]["suspend"], true);
}

#[test]
fn apply_replace_edit_and_patches_all_move_the_version_by_one() {
    let ns = with_task();
    let mut task = suspended(&[("task.md", "do it well"), ("prompt.md", "now")]);
    ns.kubectl_on(&["apply"], &task).ok();
    assert_eq!(version_without_drift(&ns), 2, "apply");
    ns.edit(TASK, "s/well/better/").ok();
    assert_eq!(version_without_drift(&ns), 3, "edit");
    ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("task.md", "merged")])}})).ok();
    assert_eq!(version_without_drift(&ns), 4, "merge patch");
    let append = json!([{"op": "add", "path": "/spec/markdownFiles/-", "value": {"filename": "b.md", "content": "b"}}]);
    ns.kubectl(&["patch", TASK, "--type=json", "-p", &append.to_string()]).ok();
    assert_eq!(version_without_drift(&ns), 5, "JSON patch");
    let stored = ns.get(TASK);
    task["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
    ns.kubectl_on(&["replace"], &task).ok();
    assert_eq!(version_without_drift(&ns), 6, "replace");
    task["metadata"] = json!({"name": "task-1"});
    task["spec"]["markdownFiles"] = markdown(&[("c.md", "c")]);
    ns.kubectl_on(&["apply", "--server-side", "--field-manager=gitops"], &task).ok();
    assert_eq!(version_without_drift(&ns), 7, "server-side apply");
    let stored = ns.get(TASK)["spec"]["markdownFiles"].as_array().map(Vec::len);
    assert_eq!(stored, Some(3), "server-side apply keeps the files of others");
}

#[test]
fn each_content_field_counts_and_nothing_else() {
    let ns = with_task();
    ns.merge(TASK, &json!({"spec": {"env": [{"name": "BRANCH", "value": "a"}]}})).ok();
    assert_eq!(version(&ns), 2, "env");
    ns.merge(TASK, &json!({"spec": {"agentName": "other"}})).ok();
    assert_eq!(version(&ns), 3, "agentName");
    ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("renamed.md", "do it"), ("prompt.md", "now")])}}))
        .ok();
    assert_eq!(version(&ns), 4, "a name");
    for (what, patch) in [
        ("a label", json!({"metadata": {"labels": {"team": "a"}}})),
        ("an annotation", json!({"metadata": {"annotations": {"note": "a"}}})),
        ("cancel", json!({"spec": {"cancel": true}})),
        ("limits", json!({"spec": {"historyLimit": 3, "contextUpdatePolicy": "AfterCompletion"}})),
        ("order", json!({"spec": {"markdownFiles": markdown(&[("prompt.md", "now"), ("renamed.md", "do it")])}})),
        (
            "a request id",
            json!({"spec": {"markdownFiles": [
            {"filename": "prompt.md", "content": "now", "requestId": "r"}, {"filename": "renamed.md", "content": "do it"}]}}),
        ),
        (
            "order and a request id",
            json!({"spec": {"markdownFiles": markdown(&[("renamed.md", "do it"), ("prompt.md", "now")])}}),
        ),
    ] {
        ns.merge(TASK, &patch).ok();
        assert_eq!(version(&ns), 4, "{what}");
    }
}

#[test]
fn the_version_is_managed_whatever_is_written() {
    let ns = with_task();
    for nothing in [json!([]), json!(null)] {
        ns.merge(TASK, &json!({"spec": {"env": nothing}})).ok();
        assert_eq!(version(&ns), 1, "no env is no env");
    }
    let files = |text: &str| markdown(&[("task.md", text)]);
    let write = |patch: Value| {
        let output = ns.merge(TASK, &json!({ "spec": patch }));
        let warned = output.stderr.contains("Warning: spec.contextVersion is managed");
        output.ok();
        (version(&ns), warned)
    };
    assert_eq!(write(json!({"markdownFiles": files("a"), "contextVersion": 99})), (json!(2), true));
    assert_eq!(write(json!({"markdownFiles": files("b"), "contextVersion": 3})), (json!(3), false));
    assert_eq!(write(json!({"contextVersion": 4})), (json!(4), false), "a re-run of the same context");
    assert_eq!(write(json!({"contextVersion": 9})), (json!(4), true));
    assert_eq!(write(json!({"contextVersion": 2})), (json!(4), true));
    assert_eq!(write(json!({"contextVersion": null})), (json!(4), false));
}

#[test]
fn who_changed_the_context_cannot_be_forged() {
    let ns = with_task();
    let forged = json!({"metadata": {"annotations": {"orchestrator.io/context-changed-by": "somebody"}}});
    ns.merge(TASK, &forged).ok();
    assert_eq!(changed_by(&ns), "admin");
    let removed = json!({"metadata": {"annotations": {"orchestrator.io/context-changed-by": null}}});
    ns.merge(TASK, &removed).ok();
    assert_eq!(changed_by(&ns), "admin");
    let patch = json!({"spec": {"env": [{"name": "A", "value": "b"}]}}).to_string();
    ns.kubectl(&["patch", TASK, "--type=merge", "-p", &patch, "--as=jane", "--as-group=system:masters"]).ok();
    assert_eq!(changed_by(&ns), "jane");
}

#[test]
fn a_dry_run_shows_the_next_version_and_stores_nothing() {
    let ns = with_task();
    let task = suspended(&[("task.md", "new text")]);
    let shown = ns.kubectl_on(&["apply", "--dry-run=server", "-o", "jsonpath={.spec.contextVersion}"], &task).ok();
    assert_eq!(shown, "2");
    assert_eq!(version(&ns), 1);
    assert_eq!(diff(&ns, &[], &task).code, Some(1));
    for _ in 0..2 {
        ns.kubectl_on(&["apply"], &task).ok();
        assert_no_drift(&ns, &[], &task);
    }
    assert_eq!(version(&ns), 2);
    ns.kubectl(&["annotate", TASK, "note=a"]).ok();
    assert_no_drift(&ns, &[], &task);
    ns.edit(TASK, "s/new\\ text/edited/").ok();
    assert_eq!(diff(&ns, &[], &task).code, Some(1));
    ns.kubectl_on(&["apply"], &task).ok();
    assert_no_drift(&ns, &[], &task);
    assert_eq!(version(&ns), 4);
}

#[test]
fn a_server_side_apply_leaves_no_drift() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = suspended(&[("task.md", "do it")]);
    for text in ["do it", "do it well", "do it well"] {
        task["spec"]["markdownFiles"] = markdown(&[("task.md", text)]);
        ns.kubectl_on(&["apply", "--server-side"], &task).ok();
        assert_no_drift(&ns, &["--server-side"], &task);
    }
    assert_eq!(version(&ns), 2);
}

#[test]
fn two_managers_share_a_task_and_an_old_manifest_is_warned_of() {
    let ns = Cluster::shared().namespace(&json!({}));
    ns.create(&suspended(&[("task.md", "do it"), ("prompt.md", "now")])).ok();
    let mut note = task_run(1, &[("context-v2.md", "more")]);
    let apply = ["apply", "--server-side", "--field-manager=notes"];
    ns.kubectl_on(&apply, &note).ok();
    ns.kubectl_on(&apply, &note).ok();
    assert_eq!(version(&ns), 2, "the same again changes nothing");
    note["spec"]["markdownFiles"] = markdown(&[("context-v2.md", "other text")]);
    let refused = ns.kubectl_on(&["apply", "--server-side", "--field-manager=others"], &note).refused();
    assert!(refused.contains("conflict") && refused.contains("notes"), "{refused}");
    let old = task_run(1, &[("task.md", "do it"), ("prompt.md", "now")]);
    let output = ns.kubectl_on(&["replace"], &old);
    assert!(
        output.stderr.contains("removes files that others added: context-v2.md (added by notes)"),
        "{}",
        output.stderr
    );
}

#[test]
fn empty_means_empty() {
    let ns = Cluster::shared().namespace(&json!({}));
    for blank in [
        "",
        "   ",
        "\t\n",
        "\u{a0}\u{2003}",
        "\u{200b}\u{200d}\u{feff}",
        "<!-- todo -->\n<!--\nmore\n-->",
        "---\ntitle: x\n---\n",
        "[a]: https://example.test",
        "&nbsp;",
    ] {
        let refused = ns.create(&task_run(1, &[("ok.md", "text"), ("task.md", blank)])).refused();
        let says = "spec.markdownFiles[1].content: \"task.md\" is empty";
        assert!(refused.contains(says), "{blank:?}: {refused}");
    }
    let files = [("a.md", "# Heading"), ("b.md", "```\ncode\n```"), ("c.md", "<!-- x --> text")];
    ns.create(&task_run(1, &files)).ok();
    let refused = ns.merge(TASK, &json!({"spec": {"markdownFiles": markdown(&[("a.md", " ")])}})).refused();
    assert!(refused.contains("\"a.md\" is empty"), "{refused}");
    let refused = ns.merge(TASK, &json!({"spec": {"markdownFiles": []}})).refused();
    assert!(refused.contains("spec.markdownFiles: must have at least one file"), "{refused}");
    let refused = ns.merge(TASK, &json!({"spec": {"markdownFiles": null}})).refused();
    assert!(refused.contains("spec.markdownFiles: must have at least one file"), "{refused}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = task_run(1, &[("CLAUDE.md", "text"), ("task.md", " ")]);
    task["metadata"]["name"] = json!("my-task");
    task["spec"]["env"] = json!([{"name": "TASK_ID", "value": "2"}]);
    let refused = ns.create(&task).refused();
    for says in [
        "metadata.name: must be \"task-1\"",
        "spec.markdownFiles[0].filename: \"CLAUDE.md\" is reserved",
        "spec.markdownFiles[1].content: \"task.md\" is empty",
        "spec.env[0].name: \"TASK_ID\" is set by the operator",
    ] {
        assert!(refused.contains(says), "{says}: {refused}");
    }
}

#[test]
fn the_task_of_a_taskrun_is_for_ever() {
    let ns = with_task();
    for (field, value) in [("taskId", json!(2)), ("serviceName", json!("other"))] {
        let refused = ns.merge(TASK, &json!({"spec": {field: value}})).refused();
        assert!(refused.contains(&format!("spec.{field}")) && refused.contains("is immutable"), "{refused}");
    }
}

#[test]
fn malformed_objects_are_refused_by_the_schema_with_the_field() {
    let ns = Cluster::shared().namespace(&json!({}));
    let with = |field: &str, value: Value| {
        let mut task = task_run(1, &[("task.md", "text")]);
        task["spec"][field] = value;
        task
    };
    let mut no_spec = task_run(1, &[]);
    no_spec.as_object_mut().expect("an object").remove("spec");
    let mut null_spec = task_run(1, &[]);
    null_spec["spec"] = Value::Null;
    for (task, says) in [
        (with("markdownFiles", json!(123)), "spec.markdownFiles: Invalid value"),
        (
            with("markdownFiles", json!([{"filename": 1, "content": "a"}])),
            "spec.markdownFiles[0].filename: Invalid value",
        ),
        (with("markdownFiles", json!([{"filename": "a.txt", "content": "a"}])), "spec.markdownFiles[0].filename"),
        (with("markdownFiles", markdown(&[("a.md", "a"), ("a.md", "b")])), "spec.markdownFiles[1]: Duplicate value"),
        (with("contextVersion", json!("7")), "spec.contextVersion: Invalid value"),
        (with("contextVersion", json!(0)), "spec.contextVersion: Invalid value"),
        (with("contextVersion", json!(4_294_967_296_u64)), "spec.contextVersion: Invalid value"),
        (with("taskId", json!(-1)), "spec.taskId: Invalid value"),
        (with("taskId", json!("1")), "spec.taskId: Invalid value"),
        (with("serviceName", json!("A_b")), "spec.serviceName: Invalid value"),
        (with("agentName", json!("")), "spec.agentName: Invalid value"),
        (with("env", json!({"A": "b"})), "spec.env: Invalid value"),
        (no_spec, "spec: Required value"),
        (null_spec, "spec: "),
    ] {
        let refused = ns.kubectl_on(&["create", "--validate=false"], &task).refused();
        assert!(refused.contains(says), "{says}: {refused}");
        assert!(!refused.contains("Internal"), "{refused}");
    }
}

#[test]
fn a_stored_task_cannot_be_made_malformed() {
    let ns = with_task();
    for (patch, says) in [
        (json!({"spec": null}), "spec"),
        (json!({"spec": "text"}), "spec"),
        (json!({"spec": {"markdownFiles": 123}}), "spec.markdownFiles"),
        (json!({"spec": {"contextVersion": "7"}}), "spec.contextVersion"),
    ] {
        let refused = ns.merge(TASK, &patch).refused();
        assert!(refused.contains(says) && !refused.contains("Internal"), "{patch}: {refused}");
    }
    assert_eq!(version(&ns), 1);
}

#[test]
fn what_could_never_be_run_is_not_stored() {
    let ns = Cluster::shared().namespace(&json!({}));
    let emoji = "🙂".repeat(300_000);
    let refused = ns.create(&task_run(1, &[("task.md", &emoji)])).refused();
    assert!(refused.contains("1200000 bytes, 278400 more than the 921600"), "{}", head(&refused));
    let refused = ns.create(&task_run(1, &[("task.md", &"<".repeat(250_000))])).refused();
    assert!(refused.contains("more than the 1310720 that are safe to store"), "{}", head(&refused));
    let letters = "a".repeat(930_000);
    let refused = ns.create(&task_run(1, &[("task.md", &letters)])).refused();
    assert!(refused.contains("921600"), "{}", head(&refused));
    let many: Vec<String> = (0..5_000).map(|i| format!("f{i}.md")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "text")).collect();
    let refused = ns.create(&task_run(1, &many)).refused();
    assert!(refused.contains("must have at most 1000 items"), "{}", head(&refused));
    ns.create(&task_run(1, &[("task.md", &"<".repeat(200 * 1024))])).ok();
    ns.wait_phase(TASK, 1, "Succeeded");
    let stored = ns.get("configmap/svc-1-v1");
    assert_eq!(stored["data"]["task.md"].as_str().map(str::len), Some(200 * 1024));
}

fn head(text: &str) -> String {
    text.chars().take(2_000).collect()
}
