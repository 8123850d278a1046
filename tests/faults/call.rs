//! What a request asks for, read from its method, path and body.

use hyper::Method;
use hyper::http::request::Parts;
use serde_json::Value;

/// Kinds whose writes are not a run's: telling people, electing, registering, judging Agents.
pub const ASIDE: [&str; 5] =
    ["events", "leases", "agents", "mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// One request of the operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// As the audit log has it: create, update, patch, delete, or get for all reads.
    pub verb: &'static str,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The uid that it is bound to.
    pub uid: String,
    /// What a patch of a Job or pod means: release, suspend or cancel.
    pub meaning: &'static str,
    pub is_watch: bool,
    pub is_dry_run: bool,
}

impl Call {
    pub fn of(head: &Parts, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let verb = match head.method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let mut path = head.uri.path().split('/').skip(1);
        // /api/v1/…, /apis/group/v1/…
        let skipped = if path.next() == Some("api") { 1 } else { 2 };
        let mut path = path.skip(skipped).peekable();
        if path.peek() == Some(&"namespaces") {
            path.nth(1);
        }
        let mut segment = || path.next().unwrap_or_default().to_owned();
        let (resource, name, subresource) = (segment(), segment(), segment());
        let name = if name.is_empty() { text("/metadata/name") } else { name };
        let uid = if verb == "delete" { text("/preconditions/uid") } else { text("/metadata/uid") };
        let meaning = match (verb, resource.as_str()) {
            ("patch", "jobs") => job_patch(&body["spec"]),
            ("patch", "pods") => "release",
            _ => "",
        };
        let asks = |what| head.uri.query().is_some_and(|query| query.contains(what));
        let (is_watch, is_dry_run) = (asks("watch=true"), asks("dryRun=All"));
        Self { verb, resource, subresource, name, uid, meaning, is_watch, is_dry_run }
    }

    /// Whether a run is written.
    pub fn is_write(&self) -> bool {
        self.verb != "get" && !self.is_aside()
    }

    pub fn is_aside(&self) -> bool {
        self.is_dry_run || ASIDE.contains(&self.resource.as_str())
    }

    /// Without names: the same in each run of a scenario.
    pub fn masked(&self) -> String {
        let what = [self.resource.as_str(), self.subresource.as_str()].join("/");
        [self.verb, what.trim_end_matches('/'), self.meaning].join(" ").trim_end().to_owned()
    }
}

fn job_patch(spec: &Value) -> &'static str {
    match &spec["suspend"] {
        Value::Bool(false) => "release",
        Value::Bool(true) => "suspend",
        _ => "cancel",
    }
}

#[test]
fn a_release_is_told_from_what_else_is_written() {
    let call = |method: &str, path: &str, body: Value| {
        let (head, ()) = hyper::Request::builder().method(method).uri(path).body(()).expect("a request").into_parts();
        Call::of(&head, body.to_string().as_bytes())
    };
    let jobs = "/apis/batch/v1/namespaces/test-1/jobs";
    let release = serde_json::json!({"metadata": {"uid": "u"}, "spec": {"suspend": false}});
    let release = call("PATCH", &format!("{jobs}/svc-1-v1?fieldManager=a"), release);
    assert_eq!((release.masked().as_str(), release.name.as_str()), ("patch jobs release", "svc-1-v1"));
    let create = call("POST", "/api/v1/namespaces/test-1/configmaps", serde_json::json!({"metadata": {"name": "a"}}));
    assert_eq!((create.masked().as_str(), create.name.as_str()), ("create configmaps", "a"));
    let status = call("PATCH", "/apis/orchestrator.io/v1/namespaces/test-1/taskruns/task-1/status", Value::Null);
    assert_eq!(status.masked(), "patch taskruns/status");
    let delete = call("DELETE", &format!("{jobs}/svc-1-v1"), serde_json::json!({"preconditions": {"uid": "u"}}));
    assert_eq!((delete.is_write(), delete.uid.as_str()), (true, "u"));
    let webhook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/taskrun-operator";
    assert!(!call("PATCH", webhook, Value::Null).is_write());
    assert!(call("GET", &format!("{jobs}?watch=true"), Value::Null).is_watch);
}
