//! Whose request it is: the bearer token goes on to the API server, which judges it at every call.
//!
//! A client for each token is kept for a while, under the token's hash; being in here proves nothing.

use super::State;
use super::answer::Failure;
use crate::task::Code;
use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use k8s_openapi::jiff::Timestamp;
use moka::Expiry;
use moka::sync::Cache;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use std::future::{Ready, ready};
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{Endpoint, Tasks};

/// Most tokens whose clients are kept.
const SESSIONS: u64 = 500;
/// The longest that a client is kept; a token that ends earlier takes its client with it.
const LIFE: Duration = Duration::from_mins(10);
/// How many seconds of requests may come at once.
const BURST_SECONDS: u32 = 4;

/// The callers of the last minutes.
#[derive(Clone)]
pub struct Sessions {
    endpoint: Endpoint,
    quota: Quota,
    known: Cache<[u8; 32], Arc<Session>>,
}

struct Session {
    tasks: Tasks,
    limit: DefaultDirectRateLimiter,
    life: Duration,
}

/// Whoever sent a request: his tasks, with his rights.
pub struct Caller {
    session: Arc<Session>,
}

impl Deref for Caller {
    type Target = Tasks;

    fn deref(&self) -> &Tasks {
        &self.session.tasks
    }
}

impl Sessions {
    /// With this many requests a second for each token.
    #[must_use]
    pub fn new(endpoint: Endpoint, per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(BURST));
        let known = Cache::builder().max_capacity(SESSIONS).expire_after(Lives).build();
        Self { endpoint, quota, known }
    }

    fn caller(&self, request: &HttpRequest) -> Result<Caller, Failure> {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(bearer).ok_or_else(|| {
            Failure::new(
                Code::Unauthenticated,
                "send a Kubernetes token: Authorization: Bearer TOKEN (kubectl create token …)",
            )
        })?;
        let session = self.session(token)?;
        session.limit.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            Failure::too_many(wait)
        })?;
        Ok(Caller { session })
    }

    fn session(&self, token: &str) -> Result<Arc<Session>, Failure> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        #[expect(clippy::disallowed_methods, reason = "the token's end is a time of day")]
        let now = Timestamp::now();
        let session = Session {
            tasks: self.endpoint.tasks(token)?,
            limit: RateLimiter::direct(self.quota),
            life: life(token, now),
        };
        Ok(self.known.get_with(key, || Arc::new(session)))
    }
}

const BURST: NonZeroU32 = NonZeroU32::new(BURST_SECONDS).expect("not 0");

struct Lives;

impl Expiry<[u8; 32], Arc<Session>> for Lives {
    fn expire_after_create(&self, _: &[u8; 32], session: &Arc<Session>, _: Instant) -> Option<Duration> {
        Some(session.life)
    }
}

/// RFC 6750, 2.1: the scheme's case does not count.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    let is_token =
        scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    is_token.then_some(token)
}

/// How long a token's client is kept. What it says of itself is not proved here, and can only shorten it.
fn life(token: &str, now: Timestamp) -> Duration {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = token.split('.').nth(1).and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
    let left = claims.map(|claims| claims.exp.saturating_sub(now.as_second()).max(0).unsigned_abs());
    left.map_or(LIFE, |seconds| LIFE.min(Duration::from_secs(seconds)))
}

impl FromRequest for Caller {
    type Error = Failure;
    type Future = Ready<Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<Data<State>>();
        let missing = || Failure::new(Code::Unavailable, "starting");
        ready(state.ok_or_else(missing).and_then(|state| state.sessions.caller(request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_lives_no_longer_than_its_token() {
        let token = |claims: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let now = Timestamp::from_second(1_000).expect("a time");
        for (token, seconds) in [
            (token(r#"{"exp": 1060}"#), 60),
            (token(r#"{"exp": 999}"#), 0),
            (token(r#"{"exp": 99999}"#), 600),
            (token("{}"), 600),
            ("opaque".to_owned(), 600),
        ] {
            assert_eq!(life(&token, now), Duration::from_secs(seconds), "{token}");
        }
    }

    #[test]
    fn a_bearer_token_is_one_word() {
        assert_eq!(bearer("Bearer abc.def"), Some("abc.def"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer a\u{e9}"] {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
    }
}
