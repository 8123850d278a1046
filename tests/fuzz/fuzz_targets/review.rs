//! Bytes from anybody against `admission::review`: whatever comes in, what goes out is an answer that the API server
//! takes, in time and of bounded size.
//!
//! A body that begins with a NUL, which no JSON does, is made into a review by `generate`; all others are taken as they
//! are. What is read of a body here is read as `serde_json::Value`: never by the types that admission reads it with.

#![no_main]

mod generate;
// The two rooms alone: to build and watch the whole operator takes minutes, and nothing else of it is asked.
#[path = "../../../src"]
#[allow(dead_code, unused_imports, reason = "what the rest of the operator uses of them")]
mod rooms {
    pub mod admission;
    pub mod crd;
}

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use libfuzzer_sys::fuzz_target;
use rooms::admission::{Decision, Webhook, review};
use rooms::crd::{self, TaskNames};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most bytes of an answer: so many for each of the body, and so many more. The dearest byte is DEL in a filename: seven
/// as `\\u{7f}`, in three messages, each of which stands twice.
const BYTES_PER_BYTE: usize = 48;
const BYTES_BESIDE: usize = 4096;
/// A span, as the webhook has one where traces are on.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fuzz_target!(|bytes: &[u8]| {
    let body = match bytes {
        [0, choices @ ..] => generate::review(choices),
        raw => raw.to_vec(),
    };
    let known: Option<Value> = serde_json::from_slice(&body).ok();
    for names in [TaskNames::ById, TaskNames::ByService] {
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            answer(webhook, &body, names, known.as_ref());
        }
    }
    known.iter().for_each(mutates_once);
});

/// The `response`, if there is one, after a look at all that holds for each.
fn answer(webhook: Webhook, body: &[u8], names: TaskNames, known: Option<&Value>) -> Option<Value> {
    let reviewed = review(webhook, body, names, Some(TRACEPARENT));
    let uid = known.and_then(|known| known.pointer("/request/uid")?.as_str());
    let Some(bytes) = reviewed.body else {
        assert_eq!(reviewed.decision, Decision::Malformed);
        if let Some(known) = known.filter(|_| uid.is_some()) {
            // a key that stands twice is an error to admission and its last one to us
            let once = known.to_string().into_bytes();
            assert!(once != body && review(webhook, &once, names, None).body.is_some(), "a uid is not answered to");
        }
        return None;
    };
    assert!(bytes.len() <= BYTES_PER_BYTE * body.len() + BYTES_BESIDE, "{} bytes to {}", bytes.len(), body.len());
    let mut answer: Value = serde_json::from_slice(&bytes).expect("an answer is JSON");
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&"admission.k8s.io/v1".into(), &"AdmissionReview".into()));
    let response = answer["response"].take();
    // what admission leaves unread may be no JSON to us, such as what is nested too deep
    assert!(known.is_none() || uid.is_some_and(|uid| response["uid"] == uid), "{uid:?} is answered as {response}");

    let is_allowed = response["allowed"].as_bool().expect("yes or no");
    let has_patch = response.get("patch").is_some();
    assert_eq!(has_patch.then_some("JSONPatch"), response.get("patchType").map(|kind| kind.as_str().expect("text")));
    let decision = match (is_allowed, has_patch) {
        (true, true) => Decision::Patched,
        (true, false) => Decision::Allowed,
        (false, _) => Decision::Denied,
    };
    assert!(reviewed.decision == decision || (!is_allowed && reviewed.decision == Decision::Malformed), "{response}");
    assert!(!has_patch || (webhook == Webhook::Mutate && is_allowed), "a patch with {response}");
    let (code, message) = (response["status"]["code"].as_u64(), response["status"]["message"].as_str());
    let is_explained = code.is_some_and(|code| code >= 400) && message.is_some_and(|message| !message.is_empty());
    assert_eq!(is_allowed, !is_explained, "{response}");
    for warning in response["warnings"].as_array().into_iter().flatten() {
        let warning = warning.as_str().expect("a warning is text");
        assert!(warning.chars().count() <= 256 && !warning.chars().any(char::is_control), "{warning:?}");
    }
    Some(response)
}

/// Mutating admission's patch fits the object; asked again about what it made of it, it wants nothing more, and the
/// version is one that validating admission takes.
fn mutates_once(known: &Value) {
    let names = TaskNames::default();
    let body = known.to_string();
    let Some(response) = answer(Webhook::Mutate, body.as_bytes(), names, Some(known)) else { return };
    let mut once = known.clone();
    patch(&mut once, &response);
    if !could_be_stored(&known["request"]["oldObject"]) {
        return;
    }
    let body = once.to_string();
    let response = answer(Webhook::Mutate, body.as_bytes(), names, Some(&once)).expect("it was answered before");
    let mut twice = once.clone();
    patch(&mut twice, &response);
    assert_eq!(once["request"]["object"], twice["request"]["object"], "asked again: {response}");

    let response = answer(Webhook::Validate, body.as_bytes(), names, Some(&once)).expect("it was answered before");
    let causes = response["status"]["details"]["causes"].as_array();
    // of an old object that cannot be read no version is known
    let is_complaint = |cause: &&Value| {
        let message = cause["message"].as_str().unwrap_or_default();
        cause["field"] == "spec.contextVersion" && !message.starts_with("must be a number")
    };
    let complaint = causes.into_iter().flatten().find(is_complaint);
    assert_eq!(complaint, None, "of {once}");
}

fn patch(review: &mut Value, response: &Value) {
    if let Some(patch) = response["patch"].as_str() {
        let patch = BASE64_STANDARD.decode(patch).expect("a patch is base64");
        let patch: Patch = serde_json::from_slice(&patch).expect("a patch is a JSON patch");
        let object = &mut review["request"]["object"];
        json_patch::patch(object, &patch).unwrap_or_else(|error| panic!("{patch} on {object}: {error}"));
    }
}

/// Whether the schema lets an old object be: it has a version that is not the last one, and no file's name twice.
fn could_be_stored(old: &Value) -> bool {
    let Some(spec) = old.get("spec") else { return true };
    let mut names = BTreeSet::new();
    let mut files = spec["markdownFiles"].as_array().into_iter().flatten();
    files.all(|file| names.insert(file["filename"].as_str()))
        && spec["contextVersion"].as_u64().is_some_and(|version| (1..u64::from(u32::MAX)).contains(&version))
}
