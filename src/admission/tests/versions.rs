//! The table of versions, who is said to have caused one, and what is warned of.

use super::*;

fn content(text: &str) -> Value {
    with(stored(3), "/spec/markdownFiles/0/content", json!(text))
}

fn version(object: Value, version: Value) -> Value {
    with(object, "/spec/contextVersion", version)
}

/// What an update of version 3 becomes: its version, and whether the user was warned.
fn updated(new: &Value) -> (Value, bool) {
    let answer = mutate(new, Some(&stored(3)));
    (patched(new, &answer)["spec"]["contextVersion"].clone(), !answer.warnings.is_empty())
}

#[test]
fn content_that_changed_takes_exactly_the_next_version() {
    for (written, warned) in
        [(Value::Null, false), (json!(3), false), (json!(4), false), (json!(7), true), (json!(1), true)]
    {
        assert_eq!(updated(&version(content("# Do more"), written.clone())), (json!(4), warned), "{written}");
    }
}

#[test]
fn unchanged_content_keeps_its_version_unless_the_next_is_written() {
    let cases =
        [(Value::Null, 3, false), (json!(3), 3, false), (json!(4), 4, false), (json!(5), 3, true), (json!(2), 3, true)];
    for (written, expected, warned) in cases {
        assert_eq!(updated(&version(stored(3), written.clone())), (json!(expected), warned), "{written}");
    }
}

#[test]
fn only_content_moves_the_version() {
    let file = |name: &str, content: &str| json!({"filename": name, "content": content});
    let (task, more) = (file("task.md", "# Do it"), file("more.md", "And that."));
    let files = |files: Value| with(stored(3), "/spec/markdownFiles", files);
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let moved = [
        ("a file added", files(json!([task, more, file("new.md", "x")]))),
        ("a file removed", files(json!([task]))),
        ("a file renamed", files(json!([task, file("other.md", "And that.")]))),
        ("two contents exchanged", files(json!([file("task.md", "And that."), file("more.md", "# Do it")]))),
        ("another agent", with(stored(3), "/spec/agentName", json!("writer"))),
        ("a variable changed", with(stored(3), "/spec/env/0/value", json!("next"))),
        ("no variables", with(stored(3), "/spec/env", Value::Null)),
        ("a variable of the same value", with(stored(3), "/spec/env/0/name", json!("TAG"))),
    ];
    let kept = [
        ("files in another order", files(json!([more, task]))),
        (
            "variables in another order",
            with(stored(3), "/spec/env", json!([env("MODEL", "large"), env("BRANCH", "main")])),
        ),
        ("requestId", with(stored(3), "/spec/markdownFiles/0/requestId", json!("r-1"))),
        ("suspend", with(stored(3), "/spec/suspend", json!(true))),
        ("cancel", with(stored(3), "/spec/cancel", json!(true))),
        ("a limit", with(stored(3), "/spec/historyLimit", json!(3))),
        ("a label", with(stored(3), "/metadata/labels/team", json!("x"))),
        ("a field of a newer schema", with(stored(3), "/spec/future", json!({"a": [1]}))),
    ];
    for (what, new) in moved {
        assert_eq!(updated(&new), (json!(4), false), "{what}");
    }
    for (what, new) in kept {
        assert_eq!(updated(&new), (json!(3), false), "{what}");
        assert_eq!(mutate(&new, Some(&stored(3))).patch, None, "{what}");
    }
}

#[test]
fn a_new_task_starts_at_version_1() {
    for new in [manifest(), version(manifest(), json!(1))] {
        let answer = mutate(&new, None);
        let object = patched(&new, &answer);
        assert_eq!(object["spec"]["contextVersion"], 1);
        assert_eq!(object["spec"]["suspend"], Value::Null);
        assert_eq!(answer.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_restored_task_keeps_its_version_and_is_suspended() {
    let restored = version(manifest(), json!(9));
    let answer = mutate(&restored, None);
    let object = patched(&restored, &answer);
    assert_eq!((&object["spec"]["contextVersion"], &object["spec"]["suspend"]), (&json!(9), &json!(true)));
    assert!(answer.warnings[0].contains("suspend: true"), "{:?}", answer.warnings);

    let not_suspended = with(restored.clone(), "/spec/suspend", json!(false));
    assert_eq!(patched(&not_suspended, &mutate(&not_suspended, None))["spec"]["suspend"], true);
    let suspended = with(restored, "/spec/suspend", json!(true));
    assert_eq!(mutate(&suspended, None).warnings, Vec::<String>::new());
}

#[test]
fn what_is_malformed_is_left_to_the_schema() {
    let malformed = [
        ("/spec", Value::Null),
        ("/spec", json!("x")),
        ("/spec", json!([7, "auth"])),
        ("/metadata", Value::Null),
        ("/metadata", json!([])),
        ("/spec/markdownFiles", json!(123)),
        ("/spec/markdownFiles/0", json!({"filename": "a.md"})),
        ("/spec/contextVersion", json!("7")),
        ("/spec/env", json!({"A": "b"})),
        ("/metadata/annotations", json!({CHANGED_BY: 1})),
    ];
    for (path, value) in malformed {
        let new = with(stored(3), path, value);
        for old in [None, Some(&stored(3))] {
            let answers = [mutate(&new, old), validate(&new, old)];
            for answer in answers {
                assert_eq!((answer.decision, answer.allowed), (Decision::Allowed, true), "{path}");
                assert_eq!((answer.patch, answer.warnings), (None, vec![]), "{path}");
            }
        }
    }
}

#[test]
fn a_stored_object_that_cannot_be_read_gets_no_version_but_is_judged() {
    let unreadable = with(stored(3), "/spec/markdownFiles", json!(123));
    assert_eq!(mutate(&stored(3), Some(&unreadable)).patch, None);
    assert!(validate(&stored(3), Some(&unreadable)).allowed);
    assert_eq!(validate(&content("  "), Some(&unreadable)).fields(), ["spec.markdownFiles[0].content"]);
}

#[test]
fn the_user_who_moves_the_version_is_named_and_nobody_else_can_be() {
    let by = |new: &Value, old: Option<&Value>| {
        patched(new, &mutate(new, old))["metadata"]["annotations"][CHANGED_BY].clone()
    };
    let forged = |object: Value| with(object, "/metadata/annotations", json!({CHANGED_BY: "eve", "other": "kept"}));
    let without = |object: Value| with(object, "/metadata/annotations", Value::Null);

    assert_eq!(by(&manifest(), None), USER);
    assert_eq!(by(&forged(manifest()), None), USER);
    assert_eq!(by(&content("# Do more"), Some(&stored(3))), USER);
    assert_eq!(by(&forged(content("# Do more")), Some(&stored(3))), USER);
    assert_eq!(by(&version(stored(3), json!(4)), Some(&stored(3))), USER);

    assert_eq!(by(&stored(3), Some(&stored(3))), "ben");
    assert_eq!(by(&forged(stored(3)), Some(&stored(3))), "ben");
    assert_eq!(by(&without(stored(3)), Some(&stored(3))), "ben");
    assert_eq!(by(&forged(stored(3)), Some(&without(stored(3)))), Value::Null);

    let kept = patched(&forged(stored(3)), &mutate(&forged(stored(3)), Some(&stored(3))));
    assert_eq!(kept["metadata"]["annotations"]["other"], "kept");
}

#[test]
fn a_new_task_gets_its_finalizer_and_its_labels_beside_those_it_has() {
    let new = with(manifest(), "/metadata/labels", json!({"team": "x", "task-id": "99"}));
    let new = with(new, "/metadata/finalizers", json!(["example.com/keep"]));
    let metadata = patched(&new, &mutate(&new, None))["metadata"].clone();
    assert_eq!(metadata["labels"], json!({"team": "x", "task-id": "7", "service-name": "auth"}));
    assert_eq!(metadata["finalizers"], json!(["example.com/keep", FINALIZER]));
    // its removal is how the operator lets go: an update must not put it back
    let let_go = with(stored(3), "/metadata/finalizers", Value::Null);
    assert_eq!(mutate(&let_go, Some(&stored(3))).patch, None);
}

/// The stored object with `more.md` owned by this manager.
fn owned_by(manager: &str) -> Value {
    let fields = json!({"f:spec": {"f:markdownFiles": {"k:{\"filename\":\"more.md\"}": {".": {}, "f:content": {}}}}});
    let managed = json!([{"manager": "x", "fieldsV1": {"f:metadata": {}}}, {"manager": manager, "operation": "Apply", "fieldsV1": fields}]);
    with(stored(3), "/metadata/managedFields", managed)
}

#[test]
fn removing_a_file_that_another_manager_added_is_warned_of() {
    let removed = with(stored(3), "/spec/markdownFiles", json!([{"filename": "task.md", "content": "# Do it"}]));
    let warnings = |old: &Value| mutate(&removed, Some(old)).warnings;
    assert_eq!(
        warnings(&owned_by("pm-api")),
        ["this change removes files that others added: more.md (added by pm-api)"]
    );
    assert_eq!(warnings(&owned_by(MANAGER)), Vec::<String>::new());
    assert_eq!(warnings(&stored(3)), Vec::<String>::new());
    assert_eq!(mutate(&content("# Do more"), Some(&owned_by("pm-api"))).warnings, Vec::<String>::new());
}

#[test]
fn a_warning_is_one_short_line() {
    let removed = with(stored(3), "/spec/markdownFiles", json!([{"filename": "task.md", "content": "# Do it"}]));
    for manager in ["pm\r\n\u{0}\u{7f}\u{85}api".to_owned(), "é".repeat(1_000)] {
        let [warning] = &mutate(&removed, Some(&owned_by(&manager))).warnings[..] else { panic!("one warning") };
        assert!(warning.chars().count() <= 256 && !warning.contains(char::is_control), "{warning:?}");
    }
}
