//! Each request has an id, an end and a line in the log. Neither tokens nor bodies are in there.

use super::answer::Failure;
use crate::task::Code;
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tracing::Instrument;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a request's head may take to be answered, its body read.
const LONGEST: Duration = Duration::from_mins(1);
/// Longest id that is taken from a client, in characters.
const MAX_ID: usize = 64;

/// Names the request by its own `X-Request-Id` or a new one, which the answer has as well. Whatever happens to the
/// request, it gets an answer.
pub async fn trace(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let (started, id) = (Instant::now(), id(&request));
    let (method, path) = (request.method().clone(), request.match_pattern().unwrap_or_default());
    let span = tracing::info_span!("request", request_id = %id, user = tracing::field::Empty);
    let called = AssertUnwindSafe(next.call(request)).catch_unwind().instrument(span.clone());
    let result = match tokio::time::timeout(LONGEST, called).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Failure::new(Code::Unavailable, "the request could not be carried out: see the log").into()),
        Err(_) => Err(Failure::new(Code::Unavailable, "the request took too long").into()),
    };
    let status = result.as_ref().map_or_else(|error| error.as_response_error().status_code(), ServiceResponse::status);
    span.in_scope(|| {
        tracing::info!(%method, path, status = status.as_u16(), seconds = started.elapsed().as_secs_f64(), "answered");
    });
    match result {
        Ok(mut response) => {
            name(response.headers_mut(), &id);
            Ok(response)
        }
        Err(error) => {
            let mut response = error.error_response();
            name(response.headers_mut(), &id);
            Err(InternalError::from_response(error, response).into())
        }
    }
}

fn name(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}

fn id(request: &ServiceRequest) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_legal = |id: &&str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(legal)
    };
    given.filter(is_legal).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
