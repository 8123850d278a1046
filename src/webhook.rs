//! The admission webhook: bytes in, [`admission::review`], bytes out.
//!
//! It decides nothing. Whatever comes in, it answers: a panic or a malformed body becomes a clean 4xx
//! and a metric, never a closed connection.

use crate::admission::{self, Decision, MAX_REVIEW_BYTES, Operation, Reviewed, Webhook};
use crate::crd::TaskNames;
use crate::metrics::Metrics;
use actix_web::web::{self, Bytes, Data, PayloadConfig, ServiceConfig};
use actix_web::{HttpResponse, http::header::ContentType};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// What the handlers need.
#[derive(Clone)]
pub struct State {
    /// How TaskRuns are named.
    pub names: TaskNames,
    /// Where reviews are counted.
    pub metrics: Arc<Metrics>,
}

/// Routes of the TLS listener: `POST /mutate` and `POST /validate`.
pub fn routes(config: &mut ServiceConfig) {
    config
        .app_data(PayloadConfig::new(MAX_REVIEW_BYTES))
        .route("/mutate", web::post().to(mutate))
        .route("/validate", web::post().to(validate));
}

async fn mutate(state: Data<State>, body: Bytes) -> HttpResponse {
    respond(&state, Webhook::Mutate, &body)
}

async fn validate(state: Data<State>, body: Bytes) -> HttpResponse {
    respond(&state, Webhook::Validate, &body)
}

fn respond(state: &State, webhook: Webhook, body: &[u8]) -> HttpResponse {
    let started = Instant::now();
    let reviewed = catch_unwind(AssertUnwindSafe(|| admission::review(webhook, body, state.names)));
    let reviewed =
        reviewed.unwrap_or(Reviewed { body: None, decision: Decision::Malformed, operation: Operation::Other });
    state.metrics.reviewed(webhook, reviewed.operation, reviewed.decision, started.elapsed());
    match reviewed.body {
        Some(body) => HttpResponse::Ok().content_type(ContentType::json()).body(body),
        None => HttpResponse::BadRequest().body("not an AdmissionReview with a request.uid"),
    }
}
