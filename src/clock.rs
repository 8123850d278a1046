//! The one look at the clock. Whoever decides is told the time, so that a decision can be tested at any hour.

use k8s_openapi::jiff::Timestamp;

/// The time of day, which may jump.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
