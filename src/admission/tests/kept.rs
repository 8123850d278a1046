//! Files that requests of others added stay where a write leaves them out.

use super::*;

const KEPT: &str = "files that others added meanwhile were kept; to remove one, delete it and write contextVersion";

fn added(name: &str) -> Value {
    json!({"filename": name, "content": "More.", "requestId": "r-1", "future": {"a": [1, 1.5, null]}})
}

/// Version 3 with two files that a request added, by this entry of managedFields.
fn with_added(manager: &str, operation: &str) -> Value {
    let fields =
        json!({"f:spec": {"f:markdownFiles": {"k:{\"filename\":\"context-v2.md\"}": {".": {}, "f:content": {}}}}});
    let managed = json!([{"manager": manager, "operation": operation, "fieldsV1": fields}]);
    let mut object = with(stored(3), "/metadata/managedFields", managed);
    let files = object["spec"]["markdownFiles"].as_array_mut().unwrap();
    files.insert(1, added("context-v2.md"));
    files.push(added("context-v3.md"));
    object
}

/// The names of the files, and the version.
fn outcome(new: &Value, answer: &Answer) -> (Vec<String>, Value) {
    let object = patched(new, answer);
    let files = object["spec"]["markdownFiles"].as_array().unwrap();
    let names = files.iter().map(|file| file["filename"].as_str().unwrap().to_owned());
    (names.collect(), object["spec"]["contextVersion"].clone())
}

#[test]
fn a_write_that_leaves_out_what_others_added_does_not_remove_it() {
    let old = with_added("pm-r-1", "Apply");
    let all = ["task.md", "more.md", "context-v2.md", "context-v3.md"];
    for (what, new, version) in [
        ("nothing else", stored(3), 3),
        ("no version", with(stored(3), "/spec/contextVersion", Value::Null), 3),
        ("another version", with(stored(3), "/spec/contextVersion", json!(9)), 3),
        ("an edit", with(stored(3), "/spec/markdownFiles/0/content", json!("# Do it well")), 4),
    ] {
        let answer = mutate(&new, Some(&old));
        let object = patched(&new, &answer);
        assert_eq!(outcome(&new, &answer), (all.map(str::to_owned).to_vec(), json!(version)), "{what}");
        assert_eq!(object["spec"]["markdownFiles"][2], added("context-v2.md"), "{what}: as it was stored");
        assert_eq!(
            answer.warnings[0],
            format!("{KEPT} {} in the same edit: context-v2.md, context-v3.md", version + 1)
        );
        assert_eq!(mutate(&object, Some(&old)).patch, None, "{what}: once");
    }
}

#[test]
fn an_absent_or_empty_list_gets_them_back() {
    let old = with_added("pm-r-1", "Apply");
    let mut null = stored(3);
    null["spec"]["markdownFiles"] = Value::Null;
    let absent = with(stored(3), "/spec/markdownFiles", Value::Null);
    for new in [null, absent, with(stored(3), "/spec/markdownFiles", json!([]))] {
        let answer = mutate(&new, Some(&old));
        let left = vec!["context-v2.md".to_owned(), "context-v3.md".to_owned()];
        assert_eq!(outcome(&new, &answer), (left, json!(4)), "{new}");
    }
}

#[test]
fn whoever_writes_the_next_version_removes_them() {
    let new = with(stored(3), "/spec/contextVersion", json!(4));
    let answer = mutate(&new, Some(&with_added("pm-r-1", "Apply")));
    assert_eq!(outcome(&new, &answer), (vec!["task.md".to_owned(), "more.md".to_owned()], json!(4)));
    assert_eq!(answer.warnings, ["this change removes files that others added: context-v2.md (added by pm-r-1)"]);
}

#[test]
fn whoever_applied_a_file_may_take_it_away() {
    let names = |manager: &str, operation: &str| {
        let mut new = stored(3);
        new["spec"]["markdownFiles"].as_array_mut().unwrap().push(added("context-v3.md"));
        outcome(&new, &mutate(&new, Some(&with_added(manager, operation)))).0
    };
    let without = ["task.md", "more.md", "context-v3.md"];
    assert_eq!(names(MANAGER, "Apply"), without);
    for (manager, operation) in [("pm-r-1", "Apply"), (MANAGER, "Update"), ("pm-r-1", "Update")] {
        assert_eq!(names(manager, operation).len(), 4, "{manager} {operation}");
    }
}

#[test]
fn files_without_a_request_are_removed() {
    let mut old = with_added("pm-r-1", "Apply");
    for (at, id) in [(1, Value::Null), (3, json!(7))] {
        old["spec"]["markdownFiles"][at]["requestId"] = id;
    }
    let answer = mutate(&stored(3), Some(&old));
    assert_eq!(outcome(&stored(3), &answer).0, ["task.md", "more.md"]);
    assert_eq!(answer.warnings, ["this change removes files that others added: context-v2.md (added by pm-r-1)"]);
}
