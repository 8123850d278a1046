//! Calls to the API server.

use super::declare::Declare;
use http::{Method, StatusCode, Uri};
use prometheus::{Error, GaugeVec, HistogramVec, IntCounterVec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Until the head of an answer came: a write takes milliseconds, and no call is waited for longer than 20 s.
const SECONDS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0];
const OTHER: &str = "other";
/// Of a call without an answer.
const NO_CODE: &str = "none";
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", OTHER];
/// What the operator calls.
const RESOURCES: [&str; 16] = [
    "taskruns",
    "taskruns/status",
    "agents",
    "agents/status",
    "jobs",
    "pods",
    "configmaps",
    "persistentvolumeclaims",
    "events",
    "leases",
    "secrets",
    "namespaces",
    "workloads",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    OTHER,
];
/// Those that API servers answer with.
const CODES: [&str; 20] = [
    "200", "201", "202", "400", "401", "403", "404", "405", "409", "410", "413", "415", "422", "429", "500", "502",
    "503", "504", OTHER, NO_CODE,
];
/// What is kept as copies.
const CACHED: [&str; 4] = ["taskruns", "jobs", "pods", "agents"];

/// Of calls to the API server; cheap to clone.
#[derive(Clone)]
pub struct Calls {
    answers: IntCounterVec,
    seconds: HistogramVec,
    age: GaugeVec,
    watches: Arc<Mutex<HashMap<(&'static str, String), Instant>>>,
    started: Instant,
}

/// A call, until dropped: then without an answer, if it had none before.
pub struct Call {
    calls: Calls,
    verb: &'static str,
    resource: &'static str,
    /// Of a watch of what is cached.
    watched: Option<String>,
    code: &'static str,
    began: Instant,
}

impl Calls {
    pub(super) fn new(declare: &mut Declare) -> Result<Self, Error> {
        Ok(Self {
            answers: declare.counters(
                "taskrun_apiserver_requests_total",
                "Calls of the operator itself to the API server; those with the rights of callers of the PM API are \
                 not among them. The code none: no answer, or given up before it came.",
                &[("verb", &VERBS), ("resource", &RESOURCES), ("code", &CODES)],
            )?,
            seconds: declare.histograms(
                "taskrun_apiserver_request_duration_seconds",
                "Time until the head of the answer came, or the call was given up.",
                &[("verb", &VERBS)],
                &SECONDS,
            )?,
            age: declare.seconds(
                "taskrun_cache_age_seconds",
                "Seconds since the API server last opened a watch of this, the oldest of the watched namespaces: \
                 nothing in the cache is out of date for longer, but by what is under way. A watch is opened anew every \
                 20 s.",
                &[("resource", &CACHED)],
            )?,
            watches: Arc::default(),
            started: Instant::now(),
        })
    }

    /// A call begins.
    #[must_use]
    pub fn begin(&self, method: &Method, uri: &Uri) -> Call {
        let (verb, resource) = words(method, uri);
        let watched = (verb == "watch" && CACHED.contains(&resource)).then(|| uri.path().to_owned());
        Call { calls: self.clone(), verb, resource, watched, code: NO_CODE, began: Instant::now() }
    }

    /// Looks at the clock.
    pub(super) fn look(&self) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in CACHED {
            let opened = watches.iter().filter(|((of, _), _)| *of == resource).map(|(_, opened)| *opened).min();
            let age = opened.unwrap_or(self.started).elapsed();
            self.age.with_label_values(&[resource]).set(age.as_secs_f64());
        }
    }
}

impl Call {
    /// It was answered.
    pub fn answered(mut self, status: StatusCode) {
        self.code = CODES.into_iter().find(|code| *code == status.as_str()).unwrap_or(OTHER);
        if let Some(path) = self.watched.take().filter(|_| status.is_success()) {
            let mut watches = self.calls.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.insert((self.resource, path), Instant::now());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.answers.with_label_values(&[self.verb, self.resource, self.code]).inc();
        self.calls.seconds.with_label_values(&[self.verb]).observe(self.began.elapsed().as_secs_f64());
    }
}

/// Verb and resource of a call, as the API server's paths say them.
fn words(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let inside = match path.first() {
        Some(&"api") => path.get(2..),
        Some(&"apis") => path.get(3..),
        _ => None,
    };
    let path = match inside.unwrap_or_default() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        path => path,
    };
    let is_watch = || uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
    let verb = match (method, path.get(1)) {
        (&Method::GET, _) if is_watch() => "watch",
        (&Method::GET, Some(_)) => "get",
        (&Method::GET, None) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, Some(_)) => "delete",
        _ => OTHER,
    };
    let is_called = |word: &&str| match path {
        [resource] | [resource, _] => word == resource,
        [resource, _, sub] => word.split_once('/') == Some((resource, sub)),
        _ => false,
    };
    (verb, RESOURCES.into_iter().find(is_called).unwrap_or(OTHER))
}
