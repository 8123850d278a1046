//! The carrier format: bytes of an `AdmissionReview` in, bytes of its answer out.
//!
//! Every answer echoes the request's uid: the API server counts one without as a failed call, and
//! then `failurePolicy` speaks instead of us.

use super::{Mutation, Reason, Subject, Violation, Writer, from_map, mutate, validate};
use crate::crd::{GROUP, MAX_OBJECT_BYTES, TRACEPARENT, TaskNames, is_traceparent};
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most bytes of a review: two objects of 3 MB, the API server's own limit, and 1 MB around them.
pub const MAX_REVIEW_BYTES: usize = 7 * 1024 * 1024;
/// The API server cuts a warning after so many characters.
const MAX_WARNING: usize = 256;
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// Which of the two webhooks is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// `/mutate`.
    Mutate,
    /// `/validate`.
    Validate,
}

/// What was decided, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let through as it is.
    Allowed,
    /// Let through, changed.
    Patched,
    /// Refused.
    Denied,
    /// Not a review that we can read.
    Malformed,
}

/// The operation under review, for metrics and logs.
#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// Anything else, let through.
    #[default]
    #[serde(other)]
    Other,
}

/// An answer.
#[derive(Debug)]
pub struct Reviewed {
    /// `AdmissionReview` as JSON; absent where the request had no uid to answer to.
    pub body: Option<Vec<u8>>,
    /// What was decided.
    pub decision: Decision,
    /// Why, where it was not let through: the first rule that is broken.
    pub reason: Option<Reason>,
    /// About what.
    pub operation: Operation,
    /// And about which object, for traces and logs.
    pub about: About,
}

/// The object of a review, as far as it could be read: texts of bounded length.
#[derive(Debug, Default)]
pub struct About {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: it has none while its creation is mutated.
    pub uid: String,
    /// The version that it has by this answer.
    pub version: Option<i64>,
    /// The span that its version came with.
    pub traceparent: Option<String>,
    /// Whether nothing is to be stored.
    pub is_dry_run: bool,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "O: Deserialize<'de>"))]
struct Review<O> {
    #[serde(deserialize_with = "from_map")]
    request: Request<O>,
}

/// With its objects as far as they were read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
struct Request<O> {
    uid: String,
    operation: Operation,
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(default)]
    options: Option<Options>,
    #[serde(default = "none")]
    object: Option<O>,
    #[serde(default = "none")]
    old_object: Option<O>,
}

/// An object under review; none where it cannot be read.
struct Object<'a> {
    subject: Option<Subject<'a>>,
    /// Its bytes, or more where that makes no difference.
    bytes: usize,
}

/// One that is read with the review.
#[derive(Deserialize)]
struct Within<'a>(#[serde(borrow, deserialize_with = "from_map")] Subject<'a>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resource {
    group: String,
    resource: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UserInfo {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    field_manager: Option<String>,
}

/// The least that an answer needs.
#[derive(Deserialize)]
struct UidOnly {
    #[serde(deserialize_with = "from_map")]
    request: Uid,
}

#[derive(Deserialize)]
struct Uid {
    uid: String,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
    #[serde(skip)]
    reason: Option<Reason>,
}

/// Answers a review. The span that tells of it, if there is one, is its `traceparent`.
#[must_use]
pub fn review(webhook: Webhook, body: &[u8], names: TaskNames, traceparent: Option<&str>) -> Reviewed {
    match read_review(body) {
        Ok(request) => {
            let operation = request.operation;
            let mut about = About {
                namespace: request.namespace.as_deref().map(bounded).unwrap_or_default(),
                is_dry_run: request.dry_run.unwrap_or_default(),
                ..About::default()
            };
            let response = answer(webhook, &request, names, traceparent, &mut about);
            let decision = match &response {
                Response { allowed: false, .. } => Decision::Denied,
                Response { patch: Some(_), .. } => Decision::Patched,
                _ => Decision::Allowed,
            };
            Reviewed { body: Some(encode(&response)), decision, reason: response.reason, operation, about }
        }
        Err(error) => {
            // the position, never the text: it may be markdown
            let message =
                format!("not an AdmissionReview v1 of a TaskRun (line {}, column {})", error.line(), error.column());
            let uid = read::<UidOnly>(body).ok();
            let reason = Reason::Unreadable;
            let body = uid.map(|UidOnly { request: Uid { uid } }| encode(&bad_request(uid, reason, &message)));
            Reviewed::malformed(body, reason)
        }
    }
}

/// Reads a review, which is gone through once if all is as it should be. Where it is not, an object that does not fit
/// shall not hide the rest; and of one that may be too large it must be known how large it is.
fn read_review(body: &[u8]) -> serde_json::Result<Request<Object<'_>>> {
    if body.len() <= MAX_OBJECT_BYTES
        && let Ok(Review { request }) = read::<Review<Within<'_>>>(body)
    {
        return Ok(request.map(|Within(subject)| Object { subject: Some(subject), bytes: body.len() }));
    }
    Ok(read::<Review<&RawValue>>(body)?.request.map(Object::of))
}

impl<'a> Object<'a> {
    fn of(raw: &'a RawValue) -> Self {
        Self { subject: read(raw.get().as_bytes()).ok(), bytes: raw.get().len() }
    }
}

fn none<T>() -> Option<T> {
    None
}

/// Reads a JSON object; a list of its fields is none.
fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let object = from_map(&mut json)?;
    json.end()?;
    Ok(object)
}

fn answer(
    webhook: Webhook,
    request: &Request<Object<'_>>,
    names: TaskNames,
    traceparent: Option<&str>,
    about: &mut About,
) -> Response {
    let uid = request.uid.clone();
    if (request.resource.group.as_str(), request.resource.resource.as_str()) != (GROUP, "taskruns") {
        return bad_request(
            uid,
            Reason::WrongResource,
            "this webhook reviews taskruns.orchestrator.io only: mend the rules of the webhook configuration",
        );
    }
    let is_subresource = request.sub_resource.as_deref().is_some_and(|name| !name.is_empty());
    let allowed = Response { uid, allowed: true, ..Response::default() };
    if request.operation == Operation::Other || is_subresource {
        return allowed;
    }
    let Some(object) = &request.object else { return allowed };
    // malformed: the schema refuses it with an exact message, if it is not stored already
    let Some(new) = &object.subject else { return allowed };
    about.tell(new);
    let old = request.old_object.as_ref().and_then(|old| old.subject.as_ref());
    match webhook {
        // stored malformed and mended now: which version it was is not known, all the rest is judged
        Webhook::Mutate if request.operation == Operation::Update && old.is_none() => allowed,
        Webhook::Mutate => {
            let mutation = mutate(new, old, request.writer(traceparent));
            about.version = Some(mutation.version);
            mutated(allowed, &mutation)
        }
        Webhook::Validate => judged(allowed, new, &validate(new, old, names, object.bytes)),
    }
}

impl<O> Request<O> {
    fn map<P>(self, change: impl Fn(O) -> P) -> Request<P> {
        let Self { uid, operation, resource, sub_resource, namespace, dry_run, user_info, options, object, old_object } =
            self;
        let (object, old_object) = (object.map(&change), old_object.map(&change));
        Request { uid, operation, resource, sub_resource, namespace, dry_run, user_info, options, object, old_object }
    }

    fn writer<'a>(&'a self, traceparent: Option<&'a str>) -> Writer<'a> {
        Writer {
            username: &self.user_info.username,
            manager: self.options.as_ref().and_then(|options| options.field_manager.as_deref()),
            traceparent,
        }
    }
}

impl Reviewed {
    /// What is no review, or none that was survived.
    #[must_use]
    pub fn malformed(body: Option<Vec<u8>>, reason: Reason) -> Self {
        let (decision, operation) = (Decision::Malformed, Operation::Other);
        Self { body, decision, reason: Some(reason), operation, about: About::default() }
    }
}

impl About {
    fn tell(&mut self, object: &Subject<'_>) {
        self.name = object.metadata.name.as_deref().map(bounded).unwrap_or_default();
        self.uid = object.metadata.uid.as_deref().map(bounded).unwrap_or_default();
        self.version = object.spec.context_version;
        self.traceparent = object.annotation(TRACEPARENT).filter(|text| is_traceparent(text)).map(str::to_owned);
    }
}

/// As long as a name may be.
fn bounded(text: &str) -> String {
    if text.len() <= MAX_NAME { text.to_owned() } else { text.chars().take(MAX_NAME).collect() }
}

fn mutated(mut response: Response, mutation: &Mutation) -> Response {
    response.warnings = mutation.warnings.iter().map(|warning| one_line(warning)).collect();
    if !mutation.patch.is_empty() {
        response.patch_type = Some("JSONPatch");
        response.patch = Some(ByteString(serde_json::to_vec(&mutation.patch).unwrap_or_default()));
    }
    response
}

fn judged(response: Response, new: &Subject<'_>, violations: &[Violation]) -> Response {
    if violations.is_empty() {
        let version = new.spec.context_version.unwrap_or_default().to_string();
        return Response { audit_annotations: [("context-version", version)].into(), ..response };
    }
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    let cause = |v: &Violation| json!({"reason": "FieldValueInvalid", "field": v.field, "message": v.message});
    let status = json!({
        "status": "Failure", "code": 422, "reason": "Invalid", "message": lines.join("; "),
        "details": {
            "group": GROUP, "kind": "TaskRun", "name": new.metadata.name,
            "causes": violations.iter().map(cause).collect::<Vec<_>>(),
        },
    });
    let reason = violations.first().and_then(|violation| violation.reason);
    Response { allowed: false, status: Some(status), reason, ..response }
}

fn bad_request(uid: String, reason: Reason, message: &str) -> Response {
    let status = json!({"status": "Failure", "code": 400, "reason": "BadRequest", "message": message});
    Response { uid, status: Some(status), reason: Some(reason), ..Response::default() }
}

fn encode(response: &Response) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        api_version: &'static str,
        kind: &'static str,
        response: &'a Response,
    }
    let answer = Answer { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    serde_json::to_vec(&answer).unwrap_or_default()
}

/// A warning as the API server takes it: it drops one that has control characters.
fn one_line(warning: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = warning.chars().map(clean).take(MAX_WARNING).collect();
    if warning.chars().count() > MAX_WARNING {
        line.pop();
        line.push('…');
    }
    line
}
