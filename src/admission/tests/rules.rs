//! What is refused, with which field and remedy.

use super::*;
use crate::crd::{MAX_CONTENT_BYTES, MAX_OBJECT_BYTES};

fn file(name: &str, content: &str) -> Value {
    json!({"filename": name, "content": content})
}

fn files(files: Value) -> Value {
    with(stored(1), "/spec/markdownFiles", files)
}

/// Fields that the creation of this object is refused for.
fn refused(new: &Value) -> Vec<String> {
    validate(new, None).fields().into_iter().map(str::to_owned).collect()
}

#[test]
fn all_violations_are_told_at_once_with_their_fields() {
    let mut new = files(json!([file("a b.md", "x"), file("task.md", " \n<!-- todo -->"), file("task.md", "x")]));
    new["metadata"]["name"] = json!("my-task");
    new["spec"]["agentName"] = json!("Coder");
    new["spec"]["contextVersion"] = json!(0);
    new["spec"]["env"] = json!([{"name": "TASK_ID", "value": "8"}]);
    let answer = validate(&new, None);
    assert_eq!((answer.decision, answer.allowed), (Decision::Denied, false));
    assert_eq!(
        answer.fields(),
        [
            "spec.agentName",
            "metadata.name",
            "spec.contextVersion",
            "spec.markdownFiles[0].filename",
            "spec.markdownFiles[1].content",
            "spec.markdownFiles[2].filename",
            "spec.env[0].name",
        ]
    );
    assert_eq!((&answer.status["code"], &answer.status["reason"]), (&json!(422), &json!("Invalid")));
    for field in answer.fields() {
        assert!(answer.message().contains(&format!("{field}: ")), "{field} in {}", answer.message());
    }
}

#[test]
fn a_good_object_is_allowed() {
    assert_eq!(validate(&stored(1), None).decision, Decision::Allowed);
    assert_eq!(validate(&stored(3), Some(&stored(3))).decision, Decision::Allowed);
}

#[test]
fn rejects_whitespace_only_markdown() {
    for blank in ["", " \n\t", "<!-- a -->", "---\ntitle: x\n---\n", "\u{200b}"] {
        assert_eq!(refused(&files(json!([file("task.md", blank)]))), ["spec.markdownFiles[0].content"], "{blank:?}");
    }
}

#[test]
fn rejects_a_task_without_files() {
    let nothing = "the agent would have nothing to do";
    for new in [files(json!([])), with(stored(1), "/spec/markdownFiles", Value::Null)] {
        assert!(validate(&new, None).message().contains(nothing));
        assert!(!validate(&with(new, "/spec/contextVersion", json!(2)), Some(&stored(1))).allowed);
    }
}

#[test]
fn filenames_that_agents_read_elsewhere_are_reserved() {
    for reserved in ["CLAUDE.md", "claude.md"] {
        assert_eq!(refused(&files(json!([file(reserved, "x")]))), ["spec.markdownFiles[0].filename"], "{reserved}");
    }
    assert_eq!(refused(&files(json!([file("claude-notes.md", "x")]))), Vec::<String>::new());
}

#[test]
fn a_file_stands_once_also_where_its_content_did_not_change() {
    let twice = json!([file("task.md", "# Do it"), file("more.md", "And that."), file("task.md", "# Do it")]);
    assert_eq!(refused(&files(twice.clone())), ["spec.markdownFiles[2].filename"]);
    let new = with(files(twice), "/spec/contextVersion", json!(2));
    assert_eq!(validate(&new, Some(&stored(1))).fields(), ["spec.markdownFiles[2].filename"]);
}

#[test]
fn the_name_is_the_tasks_own() {
    let named = |name: &str| with(stored(1), "/metadata/name", json!(name));
    let answer = |names, name: &str| Answer::of(Webhook::Validate, &request(&named(name), None), names);
    assert!(answer(TaskNames::ById, "task-7").allowed);
    assert!(answer(TaskNames::ById, "task-07").message().contains("metadata.name: must be \"task-7\""));
    assert!(answer(TaskNames::ByService, "auth-task-7").allowed);
    assert!(answer(TaskNames::ByService, "task-7").message().contains("must be \"auth-task-7\""));
    // a name is chosen once: later it is not judged, whatever the setting
    assert!(validate(&named("auth-task-7"), Some(&named("auth-task-7"))).allowed);
}

#[test]
fn task_and_service_are_immutable() {
    for (path, value, field) in
        [("/spec/taskId", json!(8), "spec.taskId"), ("/spec/serviceName", json!("other"), "spec.serviceName")]
    {
        let answer = validate(&with(stored(1), path, value), Some(&stored(1)));
        assert_eq!(answer.fields(), [field]);
        assert!(answer.message().contains("is immutable"), "{}", answer.message());
    }
}

#[test]
fn numbers_and_names_have_their_ranges() {
    for (path, value, field) in [
        ("/spec/taskId", json!(0), "spec.taskId"),
        ("/spec/taskId", json!(4_294_967_296_i64), "spec.taskId"),
        ("/spec/taskId", Value::Null, "spec.taskId"),
        ("/spec/serviceName", json!("a".repeat(41)), "spec.serviceName"),
        ("/spec/serviceName", json!("a.b"), "spec.serviceName"),
        ("/spec/agentName", json!("a".repeat(254)), "spec.agentName"),
        ("/spec/contextVersion", json!(-1), "spec.contextVersion"),
        ("/spec/contextVersion", json!(4_294_967_296_i64), "spec.contextVersion"),
        ("/spec/env/0/name", json!("1A"), "spec.env[0].name"),
        ("/spec/env/1/name", json!("BRANCH"), "spec.env[1].name"),
        ("/spec/markdownFiles/0/filename", json!(format!("{}.md", "a".repeat(126))), "spec.markdownFiles[0].filename"),
    ] {
        let found = refused(&with(stored(1), path, value.clone()));
        assert!(found.iter().any(|found| found == field), "{path} {value}: {found:?}");
    }
}

#[test]
fn versions_hold_also_where_the_mutating_webhook_was_bypassed() {
    let changed = with(stored(3), "/spec/agentName", json!("writer"));
    for (new, version, allowed) in [
        (&changed, 3, false),
        (&changed, 4, true),
        (&changed, 5, false),
        (&changed, 2, false),
        (&stored(3), 3, true),
        (&stored(3), 4, true),
        (&stored(3), 5, false),
        (&stored(3), 2, false),
    ] {
        let answer = validate(&with(new.clone(), "/spec/contextVersion", json!(version)), Some(&stored(3)));
        assert_eq!(answer.allowed, allowed, "{version}: {}", answer.message());
        assert!(allowed || answer.fields() == ["spec.contextVersion"], "{:?}", answer.fields());
    }
}

#[test]
fn what_was_bad_before_and_did_not_change_is_not_judged() {
    let mut old = files(json!([file(".hidden.md", ""), file("task.md", "x")]));
    old["spec"]["agentName"] = json!("Coder");
    old["spec"]["serviceName"] = json!("a".repeat(50));
    old["spec"]["env"] = json!([{"name": "TASK_ID", "value": "8"}]);
    assert!(refused(&old).len() >= 5);
    let edited = with(with(old.clone(), "/spec/markdownFiles/1/content", json!("y")), "/spec/contextVersion", json!(2));
    for new in [with(old.clone(), "/metadata/labels/team", json!("x")), edited.clone()] {
        assert_eq!(validate(&new, Some(&old)).fields(), Vec::<&str>::new());
    }
    let touched = with(edited, "/spec/markdownFiles/0/content", json!(" "));
    let both = ["spec.markdownFiles[0].filename", "spec.markdownFiles[0].content"];
    assert_eq!(validate(&touched, Some(&old)).fields(), both);
}

#[test]
fn contents_that_fit_no_config_map_are_refused_by_how_much() {
    let half = MAX_CONTENT_BYTES / 2;
    let sized =
        |more: usize| files(json!([file("a.md", &"a".repeat(half + more)), file("b.md", &"é".repeat(half / 2))]));
    assert!(validate(&sized(0), None).allowed);
    let answer = validate(&sized(6), None);
    assert_eq!(answer.fields(), ["spec.markdownFiles"]);
    assert!(
        answer.message().contains(&format!("{} bytes, 6 more than", MAX_CONTENT_BYTES + 6)),
        "{}",
        answer.message()
    );
    // nothing of it changed: one may still write metadata
    assert!(validate(&sized(6), Some(&sized(6))).allowed);
}

#[test]
fn an_object_too_large_as_json_is_refused_by_how_much() {
    let new = files(json!([file("a.md", &"\"".repeat(800_000))]));
    let bytes = new.to_string().len();
    let answer = validate(&new, None);
    assert!(
        answer.message().contains(&format!("{bytes} bytes as JSON, {} more", bytes - MAX_OBJECT_BYTES)),
        "{}",
        answer.message()
    );
}

#[test]
fn an_object_that_its_environment_makes_too_large_is_refused() {
    let env: Vec<Value> = (0..60).map(|i| json!({"name": format!("A{i}"), "value": "x".repeat(30_000)})).collect();
    let new = with(with(stored(1), "/spec/env", json!(env)), "/spec/contextVersion", json!(2));
    assert!(validate(&new, Some(&stored(1))).message().contains("bytes as JSON"));
}

#[test]
fn markdown_is_never_repeated() {
    const SECRET: &str = "hunter2";
    let secret = |name: &str| file(name, &format!("<!-- {SECRET} -->"));
    let mut bad = files(json!([secret("a b.md"), secret("task.md"), secret("task.md")]));
    bad["metadata"]["name"] = json!("x");
    bad["spec"]["env"] = json!([{"name": "1", "value": SECRET}]);
    let huge = files(json!([file("a.md", &SECRET.repeat(MAX_CONTENT_BYTES / 7 + 1))]));
    let typed = with(stored(1), "/spec/markdownFiles/0/content", json!([SECRET]));
    let numbered = with(stored(1), "/spec/taskId", json!(SECRET));
    for new in [bad, huge, typed, numbered] {
        for (webhook, old) in
            [(Webhook::Mutate, None), (Webhook::Validate, None), (Webhook::Validate, Some(&stored(1)))]
        {
            let answer = Answer::of(webhook, &request(&new, old), TaskNames::ById);
            let said = format!("{} {:?}", answer.status, answer.warnings);
            assert!(!said.contains(SECRET), "{said}");
        }
    }
    let torn = String::from_utf8(request(&stored(1), None))
        .unwrap()
        .replace("\"UPDATE\"", SECRET)
        .replace("\"CREATE\"", SECRET);
    assert!(review(Webhook::Validate, torn.as_bytes(), TaskNames::ById, None).body.is_none());
}
