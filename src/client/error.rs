//! Why a call came to nothing, in the words that people and plans need.

use crate::crd::reason;
use crate::metrics::Failure;
use kube::core::Status;
use std::future::Future;
use std::time::Duration;

/// The longest that one call may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the call was decided on is not so any more: observe again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The API server refuses the object for what it is.
    #[error("refused ({reason}): {message}")]
    Refused {
        /// Word for a condition.
        reason: &'static str,
        /// What the API server said.
        message: String,
    },
    /// No answer in time; the call may have been carried out.
    #[error("no answer from the API server in time")]
    Timeout,
    /// Anything else.
    #[error("failed to call the API server: {}", brief(.0))]
    Call(#[from] kube::Error),
    /// Nobody said where the API server is.
    #[error("found no API server: set KUBECONFIG, or run in a pod with a service account")]
    NoConfiguration,
}

impl Error {
    /// Whether a right is missing.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Call(kube::Error::Api(status)) if status.code == 403)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Conflict(_) => Self::Conflict,
            Error::Refused { .. } => Self::Refused,
            Error::Timeout => Self::Timeout,
            Error::Call(kube::Error::Api(_)) => Self::Answer,
            Error::Call(_) | Error::NoConfiguration => Self::Connection,
        }
    }
}

/// A call with an end; conflicts are told apart.
pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Err(_) => Err(Error::Timeout),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Error::Conflict(status.message.clone())),
        Ok(result) => Ok(result?),
    }
}

/// What people need to know of it: not the whole answer, nor each layer's name.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        _ => root(error),
    }
}

/// What is at the bottom of it.
pub(super) fn root(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Why the API server does not take an object, where asking again would not help.
pub(super) fn refusal(status: &Status) -> Option<&'static str> {
    match status.code {
        400 | 422 => Some(reason::INVALID_AGENT),
        403 => Some(reason::FORBIDDEN),
        413 => Some(reason::TOO_LARGE),
        500 if status.message.contains("request is too large") => Some(reason::TOO_LARGE),
        _ => None,
    }
}

/// What was to be patched is gone, or another object has its name by now (422 for a wrong uid).
pub(super) fn gone_is_conflict(error: Error) -> Error {
    match error {
        Error::Call(kube::Error::Api(status)) if status.code == 404 || is_other_uid(&status.message) => {
            Error::Conflict(status.message.clone())
        }
        other => other,
    }
}

fn is_other_uid(message: &str) -> bool {
    message.contains("metadata.uid")
}
