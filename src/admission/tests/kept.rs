//! Files that requests of others added stay where a write leaves them out.

use super::*;

const KEPT: &str = "files that others added were kept; to remove one, name it in the annotation orchestrator.io/remove-files in the same edit:";

fn added(name: &str) -> Value {
    json!({"filename": name, "content": "More.", "requestId": format!("r-{name}"), "future": {"a": [1, 1.5, null]}})
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
        ("the next version", with(stored(3), "/spec/contextVersion", json!(4)), 4),
        ("an edit", with(stored(3), "/spec/markdownFiles/0/content", json!("# Do it well")), 4),
    ] {
        let answer = mutate(&new, Some(&old));
        let object = patched(&new, &answer);
        assert_eq!(outcome(&new, &answer), (all.map(str::to_owned).to_vec(), json!(version)), "{what}");
        assert_eq!(object["spec"]["markdownFiles"][2], added("context-v2.md"), "{what}: as it was stored");
        assert_eq!(answer.warnings[0], format!("{KEPT} context-v2.md, context-v3.md"));
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
fn whoever_names_them_in_the_same_write_removes_them() {
    let remove = |object: Value, names: &str| {
        let mut object = object;
        object["metadata"]["annotations"][crate::crd::REMOVE_FILES] = json!(names);
        object
    };
    let old = with_added("pm-r-1", "Apply");
    let new = remove(stored(3), "v4, context-v2.md");
    let answer = mutate(&new, Some(&old));
    let left = ["task.md", "more.md", "context-v3.md"].map(str::to_owned).to_vec();
    assert_eq!(outcome(&new, &answer), (left, json!(4)));
    let gone = "this change removes files that others added: context-v2.md (added by pm-r-1)";
    assert_eq!(answer.warnings, [&format!("{KEPT} context-v3.md"), gone]);
    assert_eq!(mutate(&patched(&new, &answer), Some(&old)).patch, None);

    // what an earlier write has named does not count for a later one
    let old = remove(old, "v4, context-v2.md");
    assert_eq!(outcome(&new, &mutate(&new, Some(&old))).0.len(), 4);
}

#[test]
fn another_file_of_its_name_does_not_take_its_place() {
    let old = with_added("pm-r-1", "Apply");
    let mut new = old.clone();
    let mine = json!({"filename": "context-v2.md", "content": "Mine."});
    new["spec"]["markdownFiles"][1] = mine.clone();
    let answer = mutate(&new, Some(&old));
    let object = patched(&new, &answer);
    let names = ["task.md", "context-v2.md", "more.md", "context-v3.md", "context-v2-2.md"];
    assert_eq!(outcome(&new, &answer), (names.map(str::to_owned).to_vec(), json!(4)));
    assert_eq!(object["spec"]["markdownFiles"][1], mine);
    assert_eq!(object["spec"]["markdownFiles"][4], with(added("context-v2.md"), "/filename", json!("context-v2-2.md")));
    assert_eq!(answer.warnings, [format!("{KEPT} context-v2-2.md")]);
    assert_eq!(mutate(&object, Some(&old)).patch, None);
}

#[test]
fn a_request_that_was_left_out_is_put_back_and_one_that_was_seen_may_be_edited_and_renamed() {
    let old = with_added("pm-r-1", "Apply");
    let mut new = old.clone();
    new["spec"]["markdownFiles"][1]["requestId"].take();
    new["spec"]["markdownFiles"][1].as_object_mut().unwrap().remove("requestId");
    let answer = mutate(&new, Some(&old));
    assert_eq!(patched(&new, &answer)["spec"], old["spec"]);
    assert_eq!(answer.warnings, Vec::<String>::new());
    for (field, value) in [("content", "Less."), ("filename", "review.md")] {
        let new = with(old.clone(), &format!("/spec/markdownFiles/1/{field}"), json!(value));
        let answer = mutate(&new, Some(&old));
        assert_eq!(patched(&new, &answer)["spec"]["markdownFiles"], new["spec"]["markdownFiles"], "{field}");
    }
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
