//! What stands before each route about tasks: a token that is proved, and room for the body. Nothing of a body is
//! read for somebody whom the API server does not know.

use super::answer::Failure;
use super::{MAX_BODY, State};
use crate::task::Code;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage};
use tokio::sync::{Semaphore, SemaphorePermit};

const KIB: usize = 1024;
/// Room for the bodies of all requests that are being carried out, in KiB: the webhook lives in the same memory.
static BODIES: Semaphore = Semaphore::const_new(64 * KIB);

/// Lets a request through to its handler, which finds the [`Caller`](super::caller::Caller) in its extensions.
pub async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // without a caller no handler does anything
    let Some(state) = request.app_data::<Data<State>>().cloned() else { return next.call(request).await };
    let caller = state.sessions.caller(request.headers()).await?;
    tracing::Span::current().record("user", caller.user());
    request.extensions_mut().insert(caller);
    let _room = room(request.headers(), &BODIES)?;
    next.call(request).await
}

fn room<'a>(headers: &HeaderMap, bodies: &'a Semaphore) -> Result<SemaphorePermit<'a>, Failure> {
    let length = u32::try_from(length(headers).div_ceil(KIB)).unwrap_or(u32::MAX);
    let message = "too many large requests at once: come back later";
    bodies.try_acquire_many(length).map_err(|_| Failure::new(Code::Unavailable, message))
}

/// Bytes that the body may have, at most as many as are read of one.
fn length(headers: &HeaderMap) -> usize {
    if headers.contains_key(TRANSFER_ENCODING) {
        return MAX_BODY;
    }
    let given = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
    given.map_or(0, |length: usize| length.min(MAX_BODY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn a_body_takes_what_it_may_come_to_until_it_is_answered() {
        let head = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        assert_eq!(length(&HeaderMap::new()), 0);
        assert_eq!(length(&head(CONTENT_LENGTH, "5000")), 5_000);
        assert_eq!(length(&head(CONTENT_LENGTH, "99999999")), MAX_BODY);
        assert_eq!(length(&head(TRANSFER_ENCODING, "chunked")), MAX_BODY);

        let bodies = Semaphore::new(5);
        let held = room(&head(CONTENT_LENGTH, "4097"), &bodies).expect("room");
        assert!(room(&head(CONTENT_LENGTH, "1"), &bodies).is_err());
        assert!(room(&HeaderMap::new(), &bodies).is_ok());
        drop(held);
        assert!(room(&head(CONTENT_LENGTH, "1"), &bodies).is_ok());
    }
}
