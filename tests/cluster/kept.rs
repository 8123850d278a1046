//! Nothing that a request added is lost by a writer who has not seen it, whatever he writes with.

use crate::support::{Cluster, Namespace, markdown, task_run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const TASK: &str = "taskrun/task-1";

/// `task-1` as people write it, which is not run.
fn manifest(task: &str) -> Value {
    let mut manifest = task_run(1, &[("task.md", task), ("prompt.md", "now")]);
    manifest["spec"]["suspend"] = json!(true);
    manifest
}

/// A file that a request added.
fn added(filename: &str, request: &str) -> Value {
    json!({"filename": filename, "content": "more", "requestId": request})
}

/// What a manager applies to add a file.
fn addition(file: &Value) -> Value {
    let mut task = task_run(1, &[]);
    task["spec"]["markdownFiles"] = json!([file]);
    task
}

/// The files of `manifest` and `context-v2.md`.
fn with_added(task: &str) -> Value {
    json!([{"filename": "task.md", "content": task}, {"filename": "prompt.md", "content": "now"}, added("context-v2.md", "r1")])
}

/// Adds a file as a program may do that gives each request a manager of its own.
async fn add(ns: &Namespace<'_>, file: Value, request: &str) {
    let patch = Patch::Apply(addition(&file));
    ns.task_runs().await.patch("task-1", &PatchParams::apply(request), &patch).await.expect("added");
}

/// A namespace with `task-1`.
fn with_task() -> Namespace<'static> {
    let ns = Cluster::shared().namespace(&json!({}));
    ns.create(&manifest("do it")).ok();
    ns
}

/// The files and the version.
fn stored(ns: &Namespace<'_>) -> (Value, Value) {
    let spec = &ns.get(TASK)["spec"];
    (spec["markdownFiles"].clone(), spec["contextVersion"].clone())
}

#[test]
fn an_edit_keeps_a_file_that_was_added_while_the_editor_was_open() {
    let ns = with_task();
    let apply = format!("-n {} apply --server-side --field-manager=r1", ns.name);
    let addition = addition(&added("context-v2.md", "r1"));
    let output = ns.cluster.kubectl_edit_while(&["-n", &ns.name, TASK], "'s/: do it/: do it well/'", &apply, &addition);
    let warning = "Warning: files that others added were kept; to remove one, name it in the annotation orchestrator.io/remove-files in the same edit: context-v2.md\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    output.ok();
    assert_eq!(stored(&ns), (with_added("do it well"), json!(3)));

    let delete = "/content: more/,/requestId/d";
    let output = ns.edit(TASK, &format!("'{delete}'"));
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    assert_eq!(stored(&ns), (with_added("do it well"), json!(3)));
    let name_it = "s,^  annotations:$,  annotations:\\n    orchestrator.io/remove-files: context-v2.md,";
    ns.edit(TASK, &format!("'{delete};{name_it}'")).ok();
    assert_eq!(stored(&ns), (markdown(&[("task.md", "do it well"), ("prompt.md", "now")]), json!(4)));
}

#[tokio::test]
async fn an_old_manifest_keeps_what_requests_added_unless_it_names_it() {
    let ns = Cluster::shared().namespace(&json!({}));
    ns.kubectl_on(&["apply"], &manifest("do it")).ok();
    add(&ns, added("context-v2.md", "r1"), "r1").await;
    for (command, text, version) in [("apply", "do it well", 3), ("apply", "do it well", 3), ("replace", "do it", 4)] {
        let output = ns.kubectl_on(&[command], &manifest(text));
        assert!(output.stderr.contains("Warning: files that others added were kept"), "{}", output.stderr);
        output.ok();
        assert_eq!(stored(&ns), (with_added(text), json!(version)), "{command}");
    }
    let mut next = manifest("do it");
    next["spec"]["contextVersion"] = json!(5);
    ns.kubectl_on(&["replace"], &next).ok();
    assert_eq!(stored(&ns), (with_added("do it"), json!(5)), "a version may be there by accident");
    next["metadata"]["annotations"] = json!({"orchestrator.io/remove-files": "context-v2.md"});
    next["spec"].as_object_mut().expect("a spec").remove("contextVersion");
    ns.kubectl_on(&["replace"], &next).ok();
    assert_eq!(stored(&ns), (next["spec"]["markdownFiles"].clone(), json!(6)));
}

#[tokio::test]
async fn server_side_apply_takes_away_what_its_manager_applied() {
    let ns = with_task();
    add(&ns, added("context-v2.md", "r1"), "r1").await;
    for name in ["context-v3.md", "context-v4.md"] {
        add(&ns, added(name, "r2"), "r2").await;
    }
    let mut left = with_added("do it");
    left.as_array_mut().expect("a list").push(added("context-v4.md", "r2"));
    assert_eq!(stored(&ns), (left, json!(4)));
}

#[test]
fn a_thousand_files_of_requests_are_kept_and_can_be_changed() {
    let ns = Cluster::shared().namespace(&json!({}));
    let mut task = manifest("");
    let mut all: Vec<Value> = (0..1_000).map(|i| added(&format!("f{i}.md"), &format!("r{i}"))).collect();
    task["spec"]["markdownFiles"] = json!(all);
    ns.create(&task).ok();
    all[7]["content"] = json!("other");
    ns.merge(TASK, &json!({"spec": {"markdownFiles": all}})).ok();
    assert_eq!(stored(&ns).1, 2);
    let output = ns.merge(TASK, &json!({"spec": {"markdownFiles": []}}));
    assert!(output.stderr.contains("in the same edit: f0.md, f1.md"), "{}", output.stderr);
    assert_eq!(stored(&ns), (json!(all), json!(2)));
}
