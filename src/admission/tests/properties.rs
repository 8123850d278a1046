//! What holds for every object: the patch fits, changes nothing else and nothing twice; no review is
//! too odd to be answered.

use super::*;
use crate::crd::TRACEPARENT;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Few names and few values, so that two objects often have something in common.
fn pairs(key: &'static str, value: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let names = prop::sample::select(vec!["a.md", "b.md", "c.md"]);
    let pair = (names, prop::sample::select(vec!["one", "two"]));
    let map = prop::collection::btree_map(pair.clone().prop_map(|p| p.0), pair.prop_map(|p| p.1), 1..3);
    let list = map.prop_map(move |map: BTreeMap<&str, &str>| {
        map.into_iter().map(|(k, v)| json!({key: k, value: v})).collect::<Vec<_>>()
    });
    list.prop_shuffle()
}

const SPANS: [&str; 4] = [
    "00-00000000000000000000000000000001-0000000000000001-01",
    "00-00000000000000000000000000000002-0000000000000001-01",
    "00-00000000000000000000000000000003-0000000000000001-00",
    "00-00000000000000000000000000000004-0000000000000001-01",
];

fn told_in(new: &Value, old: Option<&Value>, traceparent: Option<&str>) -> Answer {
    Answer::told_in(Webhook::Mutate, &request(new, old), TaskNames::ById, traceparent)
}

/// Traces are on, or off.
fn span() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some(SPANS[2])])
}

fn annotations() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        Value::Null,
        json!({}),
        json!({"x": "y"}),
        json!({CHANGED_BY: USER}),
        json!({CHANGED_BY: "ben", "x": "y"}),
        json!({CHANGED_BY: USER, TRACEPARENT: SPANS[0]}),
        json!({TRACEPARENT: SPANS[1], "x": "y"}),
        json!({CHANGED_BY: USER, TRACEPARENT: "malformed"}),
    ])
}

/// A TaskRun with fields that this version of the schema does not know.
fn object(version: impl Strategy<Value = Option<i64>>) -> impl Strategy<Value = Value> {
    let some = (prop::sample::select(vec!["coder", "writer"]), any::<bool>(), any::<Option<bool>>());
    (pairs("filename", "content"), pairs("name", "value"), version, annotations(), some).prop_map(
        |(mut files, env, version, annotations, (agent, future, suspend))| {
            let mut object = stored(1);
            if future {
                files[0]["future"] = json!({"a": 1});
                object["spec"]["future"] = json!([null, {"deep": 1.5}]);
                object["metadata"]["future"] = json!("kept");
                object["future"] = json!(true);
            }
            object["spec"]["markdownFiles"] = json!(files);
            object["spec"]["env"] = json!(env);
            object["spec"]["agentName"] = json!(agent);
            object = with(object, "/spec/contextVersion", json!(version));
            object = with(object, "/spec/suspend", json!(suspend));
            object["metadata"]["annotations"] = annotations;
            object
        },
    )
}

/// An object some of whose files were added by requests.
fn with_requests() -> impl Strategy<Value = Value> {
    let requests = prop::collection::vec(any::<bool>(), 3);
    let owner = (prop::sample::select(vec![MANAGER, "pm-r"]), prop::sample::select(vec!["Apply", "Update"]));
    (object((1_i64..6).prop_map(Some)), requests, owner).prop_map(|(mut object, requests, (manager, operation))| {
        let files = object["spec"]["markdownFiles"].as_array_mut().unwrap();
        for (file, _) in files.iter_mut().zip(requests).filter(|(_, by_request)| *by_request) {
            file["requestId"] = json!(format!("r-{}", file["filename"]));
        }
        let owned = json!({"k:{\"filename\":\"a.md\"}": {}});
        let fields = json!({"f:spec": {"f:markdownFiles": owned}});
        object["metadata"]["managedFields"] = json!([{"manager": manager, "operation": operation, "fieldsV1": fields}]);
        object
    })
}

/// The files of `old` that requests added and that may not be removed.
fn protected(old: &Value) -> Vec<Value> {
    let owner = &old["metadata"]["managedFields"][0];
    let is_own =
        |file: &Value| file["filename"] == "a.md" && owner["manager"] == MANAGER && owner["operation"] == "Apply";
    let files = old["spec"]["markdownFiles"].as_array().unwrap().iter();
    files.filter(|file| file["requestId"].is_string() && !is_own(file)).cloned().collect()
}

/// An old object and what somebody makes of it: often the same content.
fn update() -> impl Strategy<Value = (Value, Value)> {
    let old = with_requests();
    let new = object(prop::option::of(1_i64..8));
    (old, new, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(old, mut new, same, reversed, next)| {
        if next && !new["spec"]["contextVersion"].is_null() {
            new["spec"]["contextVersion"] = json!(old["spec"]["contextVersion"].as_i64().unwrap() + 1);
        }
        if same {
            for field in ["markdownFiles", "env", "agentName"] {
                new["spec"][field] = old["spec"][field].clone();
            }
        }
        if let Some(files) = new["spec"]["markdownFiles"].as_array_mut().filter(|_| reversed) {
            files.reverse();
        }
        (old, new)
    })
}

/// What a version is a version of, without regard to order.
fn content(object: &Value) -> (Value, BTreeMap<String, Value>, BTreeMap<String, Value>) {
    let map = |list: &Value, key: &str, value: &str| {
        let entries = list.as_array().unwrap().iter();
        entries.map(|entry| (entry[key].to_string(), entry[value].clone())).collect()
    };
    let spec = &object["spec"];
    (spec["agentName"].clone(), map(&spec["markdownFiles"], "filename", "content"), map(&spec["env"], "name", "value"))
}

/// The object without what mutating admission owns: all the rest must survive untouched.
fn rest(object: &Value, is_create: bool) -> Value {
    let mut rest = with(object.clone(), "/spec/contextVersion", Value::Null);
    let annotations = rest["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let annotations: BTreeMap<_, _> =
        annotations.into_iter().filter(|(key, _)| key != CHANGED_BY && key != TRACEPARENT).collect();
    rest["metadata"]["annotations"] = json!(annotations);
    if is_create { with(rest, "/spec/suspend", Value::Null) } else { rest }
}

proptest! {
    #[test]
    fn a_span_comes_with_the_version_and_once((old, new) in update(), span in span(), later in any::<bool>()) {
        let object = patched(&new, &told_in(&new, Some(&old), span));
        let later = if later { Some(SPANS[3]) } else { span };
        prop_assert_eq!(told_in(&object, Some(&old), later.filter(|_| span.is_some())).patch, None);
        prop_assert_eq!(told_in(&object, Some(&object), later).patch, None);
        let traceparent = |object: &Value| object["metadata"]["annotations"][TRACEPARENT].clone();
        let moves = object["spec"]["contextVersion"] != old["spec"]["contextVersion"];
        let own = traceparent(&new).as_str().filter(|own| SPANS.contains(own) && traceparent(&old) != *own).map(str::to_owned);
        let wanted = if moves { json!(span) } else { traceparent(&old) };
        // what is just as the first of two calls leaves it cannot be told from that
        let is_kept = moves && own.is_some() && json!(own) == traceparent(&object);
        prop_assert!(traceparent(&object) == wanted || is_kept, "{} {}", traceparent(&object), wanted);
        let mut without = object.clone();
        let mut plain = patched(&new, &told_in(&new, Some(&old), None));
        for object in [&mut without, &mut plain] {
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove(TRACEPARENT);
            }
        }
        prop_assert_eq!(without["spec"].clone(), plain["spec"].clone());
        prop_assert_eq!(&without["metadata"]["annotations"][CHANGED_BY], &plain["metadata"]["annotations"][CHANGED_BY]);
    }

    #[test]
    fn a_creation_is_told_in_one_span(new in object(prop::option::of(1_i64..4)), span in span()) {
        let object = patched(&new, &told_in(&new, None, span));
        prop_assert_eq!(told_in(&object, None, span.map(|_| SPANS[3])).patch, None);
    }

    #[test]
    fn an_update_is_patched_once_and_moves_the_version_by_what_changed((old, new) in update()) {
        let answer = mutate(&new, Some(&old));
        let object = patched(&new, &answer);
        prop_assert_eq!(mutate(&object, Some(&old)).patch, None);
        prop_assert_eq!(mutate(&object, Some(&object)).patch, None);

        let list = |object: &Value| object["spec"]["markdownFiles"].as_array().unwrap().clone();
        for file in protected(&old) {
            let is_it = |found: &&Value| found["requestId"] == file["requestId"];
            let found: Vec<Value> = list(&object).iter().filter(is_it).cloned().collect();
            prop_assert_eq!((found.len(), &found[0]["content"]), (1, &file["content"]));
        }
        let put_back = &list(&object)[list(&new).len()..];
        prop_assert_eq!(answer.warnings.iter().any(|warning| warning.contains("were kept")), !put_back.is_empty());
        let mut new = new;
        new["spec"]["markdownFiles"].as_array_mut().unwrap().extend(put_back.to_vec());
        let without_ids = |object: &Value| {
            let mut object = rest(object, false);
            object["spec"]["markdownFiles"].as_array_mut().unwrap().iter_mut().for_each(|file| file["requestId"] = json!(null));
            object
        };
        prop_assert_eq!(without_ids(&object), without_ids(&new));

        let before = old["spec"]["contextVersion"].as_i64().unwrap();
        let moves = content(&old) != content(&new) || new["spec"]["contextVersion"] == before + 1;
        prop_assert_eq!(&object["spec"]["contextVersion"], before + i64::from(moves));
        let by = &object["metadata"]["annotations"][CHANGED_BY];
        prop_assert_eq!(by, &if moves { json!(USER) } else { old["metadata"]["annotations"][CHANGED_BY].clone() });
        // names like "a.md" are no environment variables, which is not the question here
        let fields = validate(&object, Some(&old));
        prop_assert!(!fields.fields().contains(&"spec.contextVersion"), "{}", fields.message());
    }

    #[test]
    fn a_creation_is_patched_once(new in object(prop::option::of(1_i64..4))) {
        let object = patched(&new, &mutate(&new, None));
        prop_assert_eq!(mutate(&object, None).patch, None);
        prop_assert_eq!(rest(&object, true), rest(&new, true));
        let version = new["spec"]["contextVersion"].as_i64().unwrap_or(1);
        prop_assert_eq!(&object["spec"]["contextVersion"], version);
        let by = &new["metadata"]["annotations"][CHANGED_BY];
        let is_copy = version > 1 || (!new["spec"]["contextVersion"].is_null() && !by.is_null() && *by != USER);
        prop_assert!(!is_copy || object["spec"]["suspend"] == true);
        prop_assert!(is_copy || object["spec"]["suspend"] == new["spec"]["suspend"]);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answered(&bytes)?;
    }

    #[test]
    fn a_torn_review_is_answered(
        (old, new) in update(),
        keep in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = request(&new, Some(&old));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        answered(&bytes)?;
        bytes.truncate(keep.index(bytes.len() + 1));
        answered(&bytes)?;
    }

    #[test]
    fn a_review_with_anything_anywhere_is_answered((old, new) in update(), at in any::<prop::sample::Index>(), value in odd()) {
        let mut review: Value = serde_json::from_slice(&request(&new, Some(&old))).unwrap();
        let mut pointers = vec![];
        collect("", &review, &mut pointers);
        *review.pointer_mut(&pointers[at.index(pointers.len())]).unwrap() = value;
        answered(&serde_json::to_vec(&review).unwrap())?;
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let odd = [
        json!(null),
        json!(1),
        json!(-1.5),
        json!(1e300),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!({}),
        json!([null]),
        deep,
    ];
    prop::sample::select(odd.to_vec())
}

fn collect(path: &str, value: &Value, found: &mut Vec<String>) {
    found.push(path.to_owned());
    let token = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| collect(&format!("{path}/{}", token(key)), value, found));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| collect(&format!("{path}/{i}"), value, found));
        }
        _ => {}
    }
}

/// No panic; what has a uid gets a JSON answer that echoes it, and any patch in it applies.
fn answered(bytes: &[u8]) -> Result<(), TestCaseError> {
    let review: Option<Value> = serde_json::from_slice(bytes).ok();
    let request = review.as_ref().map(|review| &review["request"]);
    let text = String::from_utf8_lossy(bytes);
    for webhook in [Webhook::Mutate, Webhook::Validate] {
        let reviewed = super::review(webhook, bytes, TaskNames::ById, Some(SPANS[2]));
        let Some(body) = reviewed.body else {
            prop_assert_eq!(reviewed.decision, Decision::Malformed);
            continue;
        };
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let response = &answer["response"];
        // what a review ignores may be no JSON (nested too deep, not UTF-8) and the rest be readable
        prop_assert!(request.is_none_or(|request| request["uid"] == response["uid"]));
        prop_assert!(text.contains(response["uid"].as_str().unwrap()));
        prop_assert!(response["allowed"].is_boolean());
        if let Some(patch) = serde_json::from_value::<Option<ByteString>>(response["patch"].clone()).unwrap() {
            let patch: json_patch::Patch = serde_json::from_slice(&patch.0).unwrap();
            let Some(mut object) = request.map(|request| request["object"].clone()) else { continue };
            prop_assert!(json_patch::patch(&mut object, &patch).is_ok(), "{} on {}", patch, object);
        }
    }
    Ok(())
}
