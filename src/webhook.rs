//! The admission webhook: bytes in, [`admission::review`], bytes out.
//!
//! It decides nothing. Whatever comes in, it answers: a panic or a malformed body becomes a clean 4xx
//! and a metric, never a closed connection. It stands in the path of every write and fails closed, so nobody who can
//! reach its port may use it up: bodies are bounded in time and memory, large ones are judged one at a time beside the
//! small, and `connections` make room for each other.

pub mod connections;

mod body;
mod timeout;

use crate::admission::{self, MAX_REVIEW_BYTES, Reason, Reviewed, Webhook};
use crate::clock::now;
use crate::crd::TaskNames;
use crate::metrics::{Metrics, Refused};
use crate::telemetry::{Span, Task};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_LENGTH, ContentType, RETRY_AFTER};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use body::Body;
use rustix::process::setpriority_process;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

/// Bytes from which a review is judged apart from the small ones: it takes milliseconds.
const LARGE: usize = 128 * 1024;
/// How many large reviews are judged at once, in all workers.
static LARGE_TURNS: Semaphore = Semaphore::const_new(1);
/// Their thread's niceness: while small reviews need a processor, they have it.
const LARGE_NICENESS: i32 = 10;

/// What the handlers need.
#[derive(Clone)]
pub struct State {
    /// How TaskRuns are named.
    pub names: TaskNames,
    /// Where reviews are counted.
    pub metrics: Arc<Metrics>,
    /// Whether each answer ends its connection: so the API server, which keeps connections, has none left when they are
    /// closed. Into one that is just being closed it would write, and fail.
    pub is_leaving: Arc<AtomicBool>,
}

/// Routes of the TLS listener: `POST /mutate` and `POST /validate`.
pub fn routes(config: &mut ServiceConfig) {
    let only_post = || web::to(async |state: Data<State>| refusal(&state, Refused::Method));
    let mutate = web::resource("/mutate").route(web::post().to(mutate)).default_service(only_post());
    let validate = web::resource("/validate").route(web::post().to(validate)).default_service(only_post());
    let elsewhere = web::to(async |state: Data<State>| refusal(&state, Refused::Path));
    let in_turn = from_fn(connections::in_turn);
    config.service(web::scope("").wrap(in_turn).service(mutate).service(validate).default_service(elsewhere));
}

async fn mutate(state: Data<State>, request: HttpRequest, payload: Payload) -> HttpResponse {
    answer(state, Webhook::Mutate, &request, payload).await
}

async fn validate(state: Data<State>, request: HttpRequest, payload: Payload) -> HttpResponse {
    answer(state, Webhook::Validate, &request, payload).await
}

async fn answer(state: Data<State>, webhook: Webhook, request: &HttpRequest, payload: Payload) -> HttpResponse {
    let _in_flight = state.metrics.admission.review_begins();
    match review(&state, webhook, request, payload).await {
        Ok(Reviewed { body: Some(body), .. }) => HttpResponse::Ok().content_type(ContentType::json()).body(body),
        Ok(_) => HttpResponse::BadRequest().body("not an AdmissionReview with a request.uid"),
        Err(why) => refusal(&state, why),
    }
}

async fn review(state: &State, webhook: Webhook, request: &HttpRequest, payload: Payload) -> Result<Reviewed, Refused> {
    let (started, timeout) = (tokio::time::Instant::now(), timeout::of(request.query_string()));
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(Refused::ContentType);
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
    let parent = Span::parent(|name| request.headers().get(name)?.to_str().ok());
    let body = Body::read(payload, length, state.metrics.clone());
    let body = timeout_at(started + timeout, body).await.map_err(|_| Refused::Slow)??;
    if body.len() < LARGE {
        return Ok(judge(state, webhook, parent.as_deref(), &body));
    }
    // one that waits longer is not answered in time: the API server asks again
    let turn = timeout_at(started + timeout / 2, LARGE_TURNS.acquire()).await;
    let (Ok(Ok(turn)), state) = (turn, state.clone()) else { return Err(Refused::Time) };
    let judged = web::block(move || {
        let _until_judged = turn; // though the client may be gone by then
        let _ = setpriority_process(None, LARGE_NICENESS); // of this thread, which does nothing else
        judge(&state, webhook, parent.as_deref(), &body)
    });
    judged.await.map_err(|_| Refused::Time)
}

fn judge(state: &State, webhook: Webhook, parent: Option<&str>, body: &[u8]) -> Reviewed {
    let (started, began) = (Instant::now(), now());
    // it may become the one that all later ones of the version belong to
    let span = (webhook == Webhook::Mutate).then(|| Span::begin("admission", parent, began));
    let traceparent = span.as_ref().and_then(Span::traceparent);
    let review = || admission::review(webhook, body, state.names, traceparent.as_deref());
    let reviewed = catch_unwind(AssertUnwindSafe(review)).unwrap_or_else(|_| Reviewed::malformed(None, Reason::Panic));
    state.metrics.admission.reviewed(webhook, &reviewed, body.len(), started.elapsed());
    // a review that gave no version belongs to the one that did
    let parent = parent.or(reviewed.about.traceparent.as_deref());
    tell(span.unwrap_or_else(|| Span::begin("admission", parent, began)), webhook, &reviewed);
    reviewed
}

fn tell(mut span: Span, webhook: Webhook, Reviewed { operation, decision, about, .. }: &Reviewed) {
    let task = Task { namespace: &about.namespace, name: &about.name, uid: &about.uid, version: about.version };
    span.describe(&task, || {
        let (webhook, operation) = (format!("{webhook:?}"), format!("{operation:?}"));
        let decision = format!("{decision:?}");
        vec![
            ("webhook", webhook),
            ("operation", operation),
            ("decision", decision),
            ("dry_run", about.is_dry_run.to_string()),
        ]
    });
    if tracing::enabled!(tracing::Level::TRACE) {
        span.logs(&task).in_scope(|| tracing::trace!(?webhook, ?operation, ?decision, "reviewed"));
    }
}

/// Says why in one line. After a 429 with `Retry-After` the API server's client asks again by itself, within the
/// webhook's timeout (client-go, `rest/with_retry.go`).
fn refusal(state: &State, why: Refused) -> HttpResponse {
    state.metrics.admission.refused(why);
    let too_large = format!("a review has at most {MAX_REVIEW_BYTES} bytes");
    let (status, line) = match why {
        Refused::Path => (StatusCode::NOT_FOUND, "reviews are posted to /mutate or /validate"),
        Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "reviews are posted"),
        Refused::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "a review is application/json"),
        Refused::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, too_large.as_str()),
        Refused::Slow => (StatusCode::REQUEST_TIMEOUT, "the body did not come within the request's timeout"),
        Refused::CutOff => (StatusCode::BAD_REQUEST, "the body ended too early"),
        Refused::Memory => (StatusCode::TOO_MANY_REQUESTS, "too many large reviews are held: come back later"),
        Refused::Time => (StatusCode::TOO_MANY_REQUESTS, "too many large reviews are waiting: come back later"),
    };
    let mut response = HttpResponse::build(status);
    match status {
        StatusCode::METHOD_NOT_ALLOWED => response.insert_header((ALLOW, "POST")),
        StatusCode::TOO_MANY_REQUESTS => response.insert_header((RETRY_AFTER, "1")),
        _ => &mut response,
    };
    response.content_type(ContentType::plaintext()).body(format!("{line}\n"))
}
