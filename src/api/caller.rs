//! Whose request it is: the bearer token goes on to the API server, which judges it at every call.
//!
//! A client for each token is kept for a while, under the token's hash. It is kept once the API server knew the
//! token; what the caller may do is not known here.

use super::answer::Failure;
use crate::task::Code;
use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use k8s_openapi::jiff::Timestamp;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use std::future::{Ready, ready};
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::client::{Endpoint, Tasks};
use crate::clock::now;

/// Most tokens whose clients are kept.
const SESSIONS: u64 = 200;
/// The longest that a client is kept; a token that ends earlier takes its client with it.
const LIFE: Duration = Duration::from_mins(10);
/// How many seconds of requests may come at once.
const BURST_SECONDS: u32 = 4;
/// Tokens a second that the API server is asked about, and how many at once: each costs a client and a call, and
/// anybody can make them up.
const NEW_TOKENS: (NonZeroU32, NonZeroU32) =
    (NonZeroU32::new(20).expect("not 0"), NonZeroU32::new(100).expect("not 0"));
/// Most streams that a caller reads at once.
const STREAMS: usize = 16;

/// The callers of the last minutes.
#[derive(Clone)]
pub struct Sessions {
    endpoint: Endpoint,
    quota: Quota,
    new_tokens: Arc<DefaultDirectRateLimiter>,
    /// Tokens that the API server is being asked about: once for all requests that wait for it.
    asked: Cache<Key, Arc<OnceCell<Proof>>>,
    known: Cache<Key, Arc<Session>>,
}

/// SHA-256 of a token.
type Key = [u8; 32];
type Proof = Result<Arc<Session>, Failure>;

struct Session {
    tasks: Tasks,
    user: Option<String>,
    limit: DefaultDirectRateLimiter,
    streams: Arc<Semaphore>,
    life: Duration,
}

/// Whoever sent a request: his tasks, with his rights.
#[derive(Clone)]
pub struct Caller {
    session: Arc<Session>,
}

impl Caller {
    /// What the API server calls him, if it told.
    pub fn user(&self) -> Option<&str> {
        self.session.user.as_deref()
    }

    /// To be held for as long as a stream goes on.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let message = || format!("at most {STREAMS} streams (events, logs) at once: close one of yours");
        let permit = self.session.streams.clone().try_acquire_owned();
        permit.map_err(|_| Failure::new(Code::RateLimited, message()))
    }
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
        let new_tokens = Arc::new(RateLimiter::direct(Quota::per_second(NEW_TOKENS.0).allow_burst(NEW_TOKENS.1)));
        let known = Cache::builder().max_capacity(SESSIONS).eviction_policy(EvictionPolicy::lru());
        let known = known.expire_after(Lives).build();
        Self { endpoint, quota, new_tokens, asked: Cache::new(SESSIONS), known }
    }

    /// Whose token a request has, if he may send one now.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Failure> {
        let header = super::only(headers, &AUTHORIZATION)?.and_then(|value| value.to_str().ok());
        let token = header.and_then(bearer).ok_or_else(|| {
            Failure::new(
                Code::Unauthenticated,
                "send a Kubernetes token: Authorization: Bearer TOKEN (kubectl create token …)",
            )
        })?;
        let session = self.session(token).await?;
        check(&session.limit)?;
        Ok(Caller { session })
    }

    async fn session(&self, token: &str) -> Proof {
        let mut key = Key::default();
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let asked = self.asked.get_with(key, Arc::default);
        let session = asked.get_or_init(|| self.prove(key, token)).await.clone();
        self.asked.invalidate(&key);
        session
    }

    /// Keeps a session for a token that the API server knows.
    async fn prove(&self, key: Key, token: &str) -> Proof {
        check(&self.new_tokens)?;
        let tasks = self.endpoint.tasks(token)?;
        let user = tasks.fetch_user().await?;
        let life = life(token, now());
        let (limit, streams) = (RateLimiter::direct(self.quota), Arc::new(Semaphore::new(STREAMS)));
        let session = Arc::new(Session { tasks, user, limit, streams, life });
        self.known.insert(key, session.clone());
        Ok(session)
    }
}

fn check(limit: &DefaultDirectRateLimiter) -> Result<(), Failure> {
    limit.check().map_err(|not_until| Failure::too_many(not_until.wait_time_from(DefaultClock::default().now())))
}

const BURST: NonZeroU32 = NonZeroU32::new(BURST_SECONDS).expect("not 0");

struct Lives;

impl Expiry<Key, Arc<Session>> for Lives {
    fn expire_after_create(&self, _: &Key, session: &Arc<Session>, _: Instant) -> Option<Duration> {
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
        let caller = request.extensions().get::<Self>().cloned();
        ready(caller.ok_or_else(|| Failure::new(Code::Unavailable, "starting")))
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
