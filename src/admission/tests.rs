//! Admission as the API server meets it: reviews in, patches and refusals out.

mod bounds;
mod kept;
mod properties;
mod rules;
mod schema;
mod traces;
mod versions;

use super::{Decision, Webhook, review};
use crate::crd::{CHANGED_BY, FINALIZER, TaskNames};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// Who writes in these tests, and by which manager.
const USER: &str = "ana@example.com";
const MANAGER: &str = "kubectl-edit";

/// A TaskRun as it stands in etcd.
fn stored(version: i64) -> Value {
    json!({
        "apiVersion": "orchestrator.io/v1",
        "kind": "TaskRun",
        "metadata": {
            "name": "task-7",
            "namespace": "default",
            "labels": {"task-id": "7", "service-name": "auth"},
            "annotations": {CHANGED_BY: "ben"},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "taskId": 7,
            "serviceName": "auth",
            "agentName": "coder",
            "contextVersion": version,
            "markdownFiles": [{"filename": "task.md", "content": "# Do it"}, {"filename": "more.md", "content": "And that."}],
            "env": [{"name": "BRANCH", "value": "main"}, {"name": "MODEL", "value": "large"}],
        },
    })
}

/// A TaskRun as a user sends it.
fn manifest() -> Value {
    let mut object = stored(1);
    object["metadata"] = json!({"name": "task-7", "namespace": "default"});
    object["spec"].as_object_mut().unwrap().remove("contextVersion");
    object
}

/// The object with one place set, or removed where the value is null.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(key)),
        (Value::Object(map), value) => drop(map.insert(key.to_owned(), value)),
        (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{pointer}: {other} has no fields"),
    }
    object
}

/// The bytes of a review; an update where there is an old object.
fn request(new: &Value, old: Option<&Value>) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
            "resource": {"group": "orchestrator.io", "version": "v1", "resource": "taskruns"},
            "userInfo": {"username": USER, "groups": ["system:authenticated"]},
            "options": {"kind": "UpdateOptions", "fieldManager": MANAGER},
            "object": new,
            "oldObject": old,
        },
    });
    serde_json::to_vec(&review).unwrap()
}

/// What the API server reads in an answer.
#[derive(Debug)]
struct Answer {
    decision: Decision,
    allowed: bool,
    patch: Option<json_patch::Patch>,
    warnings: Vec<String>,
    status: Value,
}

impl Answer {
    fn of(webhook: Webhook, body: &[u8], names: TaskNames) -> Self {
        Self::told_in(webhook, body, names, None)
    }

    fn told_in(webhook: Webhook, body: &[u8], names: TaskNames, traceparent: Option<&str>) -> Self {
        let reviewed = review(webhook, body, names, traceparent);
        let answer: Value = serde_json::from_slice(&reviewed.body.unwrap()).unwrap();
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = &answer["response"];
        assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        let patch: Option<ByteString> = serde_json::from_value(response["patch"].clone()).unwrap();
        assert_eq!(response["patchType"] == "JSONPatch", patch.is_some());
        Self {
            decision: reviewed.decision,
            allowed: response["allowed"].as_bool().unwrap(),
            patch: patch.map(|bytes| serde_json::from_slice(&bytes.0).unwrap()),
            warnings: serde_json::from_value(response["warnings"].clone()).unwrap_or_default(),
            status: response["status"].clone(),
        }
    }

    /// The fields that a refusal names.
    fn fields(&self) -> Vec<&str> {
        let causes = self.status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect()
    }

    fn message(&self) -> &str {
        self.status["message"].as_str().unwrap_or_default()
    }
}

fn mutate(new: &Value, old: Option<&Value>) -> Answer {
    let answer = Answer::of(Webhook::Mutate, &request(new, old), TaskNames::ById);
    assert!(answer.allowed, "mutating admission refuses nothing: {answer:?}");
    answer
}

fn validate(new: &Value, old: Option<&Value>) -> Answer {
    Answer::of(Webhook::Validate, &request(new, old), TaskNames::ById)
}

/// The object with the answer's patch applied, as the API server does it.
fn patched(new: &Value, answer: &Answer) -> Value {
    let mut object = new.clone();
    if let Some(patch) = &answer.patch {
        json_patch::patch(&mut object, patch).unwrap();
    }
    object
}
