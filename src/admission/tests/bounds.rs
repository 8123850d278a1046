//! What the fuzzer of `tests/fuzz` found: bodies that nobody but an attacker sends, since the webhook cannot know who
//! asks; and what a schema refuses only after mutating admission.

use super::*;

/// Enough that whatever multiplies two of them takes minutes or gigabytes.
const MANY: usize = 40_000;

fn many(one: impl Fn(usize) -> Value) -> Value {
    (0..MANY).map(one).collect()
}

fn files(files: Value) -> Value {
    with(stored(3), "/spec/markdownFiles", files)
}

#[test]
fn many_mistakes_make_a_short_answer() {
    let bad_file = |i: usize| json!({"filename": format!("\u{7f}{i}"), "content": ""});
    let bad_variable = |i: usize| json!({"name": format!("{i}")});
    for object in [files(many(bad_file)), with(stored(3), "/spec/env", many(bad_variable))] {
        let refusal = validate(&object, None);
        let fields = refusal.fields();
        assert_eq!((fields.len(), fields[100]), (101, "spec"));
        assert!(refusal.message().len() < 100_000);
    }
}

#[test]
fn many_variables_are_compared_in_time() {
    let variables = |name: &str, last: &str| {
        let name = |i| if i == MANY - 1 { last } else { name };
        with(stored(3), "/spec/env", many(|i| json!({"name": name(i)})))
    };
    assert!(!validate(&variables("A", "A"), Some(&variables("B", "A"))).allowed);
}

#[test]
fn many_files_and_managers_are_compared_in_time() {
    let added = |i: usize| json!({"filename": format!("{i}.md"), "content": "x", "requestId": "r"});
    let owned = |i: usize| {
        let owns = json!({format!("k:{{\"filename\":\"{i}.md\"}}"): {}});
        json!({"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:markdownFiles": owns}}})
    };
    let old = with(files(many(added)), "/metadata/managedFields", many(owned));
    assert_eq!(
        patched(&stored(3), &mutate(&stored(3), Some(&old)))["spec"]["markdownFiles"].as_array().unwrap().len(),
        2
    );

    let all_named = json!({crate::crd::REMOVE_FILES: ",".repeat(MANY)});
    let new = with(stored(3), "/metadata/annotations", all_named);
    let kept = patched(&new, &mutate(&new, Some(&files(many(added)))));
    assert_eq!(kept["spec"]["markdownFiles"].as_array().unwrap().len(), MANY + 2);
}

#[test]
fn files_of_one_name_get_one_new_name() {
    let old = files(many(|i| json!({"filename": "task.md", "content": "x", "requestId": format!("r-{i}")})));
    let kept = patched(&stored(3), &mutate(&stored(3), Some(&old)));
    assert_eq!(kept["spec"]["markdownFiles"].as_array().unwrap().len(), 3);
}

#[test]
fn a_manager_of_a_long_name_is_not_repeated_for_each_file() {
    let named = |i: usize| json!({"filename": format!("{i}.md"), "content": "x"});
    let owns: Value = (0..MANY).map(|i| (format!("k:{{\"filename\":\"{i}.md\"}}"), json!({}))).collect();
    let manager = "m".repeat(1_000_000);
    let managed =
        json!([{"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:markdownFiles": owns}}}]);
    let old = with(files(many(named)), "/metadata/managedFields", managed);
    assert_eq!(mutate(&stored(3), Some(&old)).warnings.len(), 1);
}

#[test]
fn a_list_is_no_object() {
    let review: Value = serde_json::from_slice(&request(&stored(3), None)).unwrap();
    let request = &review["request"];
    let lists = [json!([request]), json!({"request": [request["uid"], "CREATE", request["resource"]]})];
    for body in lists {
        let reviewed = super::review(Webhook::Mutate, &serde_json::to_vec(&body).unwrap(), TaskNames::ById, None);
        assert_eq!((reviewed.decision, reviewed.body), (Decision::Malformed, None), "{body}");
    }
    let object = manifest();
    assert_eq!(mutate(&json!([object["metadata"], object["spec"]]), None).patch, None);
    // the patch that gives a file its request's id again would not fit
    let old = files(json!([{"filename": "task.md", "content": "x", "requestId": "r"}]));
    assert_eq!(mutate(&files(json!([["task.md", "x"]])), Some(&old)).patch, None);
}

#[test]
fn a_copy_that_ran_is_suspended_with_or_without_its_version() {
    let ran = with(manifest(), "/status", json!({"runs": [{"contextVersion": 1}]}));
    let object = patched(&ran, &mutate(&ran, None));
    assert_eq!((&object["spec"]["contextVersion"], &object["spec"]["suspend"]), (&json!(1), &json!(true)));
    assert_eq!(mutate(&object, None).patch, None);
}
