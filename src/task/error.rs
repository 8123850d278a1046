//! Why a request came to nothing, in words for people and in a code for programs.
//!
//! The API server's own reason is passed on: it knows which right is missing and which rule was broken.

use crate::admission::Violation;
use kube::core::Status;
use std::fmt;

/// Stable words for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request itself cannot be read.
    InvalidRequest,
    /// No token, or one that the API server does not know.
    Unauthenticated,
    /// RBAC, or a policy, says no.
    Forbidden,
    /// There is no such task, version or log.
    NotFound,
    /// The cluster does not have the CRD.
    NotInstalled,
    /// There is such a task already, and it says something else.
    AlreadyExists,
    /// The task has changed meanwhile, or is not in a state for this.
    Conflict,
    /// It does not fit.
    TooLarge,
    /// Admission refuses it.
    Invalid,
    /// Too many requests.
    RateLimited,
    /// The API server, or admission, does not answer.
    Unavailable,
}

impl Code {
    /// As it stands in an answer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::NotInstalled => "not_installed",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
        }
    }

    /// Its HTTP status (RFC 9110, RFC 6585).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::RateLimited => 429,
            Self::NotInstalled | Self::Unavailable => 503,
        }
    }
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// For programs.
    pub code: Code,
    /// For people; never holds markdown or a token.
    pub message: String,
    /// The fields that are wrong, if any.
    pub violations: Vec<Violation>,
    /// Seconds after which it is worth trying again.
    pub retry_after: Option<u32>,
    /// Bytes that the context has left, where it does not fit.
    pub bytes_left: Option<usize>,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// One without details.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry_after = matches!(code, Code::Unavailable | Code::RateLimited).then_some(1);
        Self { code, message: message.into(), violations: vec![], retry_after, bytes_left: None }
    }

    /// What the API server answered.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.details.as_ref();
        let code = match (status.code, status.reason.as_str()) {
            // 410: the place where a page ended is too old
            (400 | 410, _) => Code::InvalidRequest,
            (401, _) => Code::Unauthenticated,
            (403, _) => Code::Forbidden,
            // of an object it says which; of a kind that it does not serve, nothing
            (404, "NotFound") if details.is_some_and(|details| !details.name.is_empty()) => Code::NotFound,
            (404, _) => Code::NotInstalled,
            (409, "AlreadyExists") => Code::AlreadyExists,
            (409, _) => Code::Conflict,
            (413, _) => Code::TooLarge,
            (422, _) => Code::Invalid,
            (429, _) => Code::RateLimited,
            _ => Code::Unavailable,
        };
        let message = match code {
            Code::NotInstalled => "the cluster does not have TaskRuns: apply crds/".to_owned(),
            _ => status.message.trim().to_owned(),
        };
        let causes = details.map(|details| details.causes.as_slice()).unwrap_or_default();
        let violation = |cause: &kube::core::response::StatusCause| Violation {
            reason: None,
            field: cause.field.clone(),
            message: cause.message.clone(),
        };
        // which says only that some rules were not looked at
        let causes: Vec<_> = causes.iter().filter(|cause| cause.field != "<nil>").collect();
        let told = details.map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
        let error = Self::new(code, message);
        Self {
            violations: if code == Code::Invalid { causes.into_iter().map(violation).collect() } else { vec![] },
            retry_after: error.retry_after.map(|least| told.unwrap_or(least)),
            ..error
        }
    }

    /// Whether the same may succeed when it is tried again on what is stored by then.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.code, Code::Conflict | Code::RateLimited | Code::Unavailable)
    }

    /// A text that does not fit into what a context has left.
    #[must_use]
    pub fn too_large(name: &str, bytes: usize, left: usize) -> Self {
        let message = format!(
            "the text has {bytes} bytes, and the context of {name:?} has {left} left (as JSON: '<', '>' and '&' take six, line ends two): \
             shorten it, or take files away"
        );
        Self { bytes_left: Some(left), ..Self::new(Code::TooLarge, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Error};
    use kube::core::Status;
    use serde_json::json;

    fn of(status: serde_json::Value) -> Error {
        Error::from_status(&serde_json::from_value::<Status>(status).expect("a Status"))
    }

    #[test]
    fn the_api_servers_reason_and_every_violation_are_passed_on() {
        let error = of(json!({"code": 422, "reason": "Invalid", "message": "TaskRun \"task-1\" is invalid",
            "details": {"causes": [{"field": "spec.taskId", "message": "is immutable"}]}}));
        assert_eq!((error.code, error.violations[0].field.as_str()), (Code::Invalid, "spec.taskId"));
        assert!(!error.is_passing());
        let error = of(json!({"code": 403, "reason": "Forbidden", "message": "cannot create"}));
        assert_eq!((error.code.status(), error.message.as_str()), (403, "cannot create"));
    }

    #[test]
    fn a_kind_that_is_not_served_is_told_from_an_object_that_is_not_there() {
        let details = json!({"name": "task-1", "kind": "taskruns"});
        assert_eq!(of(json!({"code": 404, "reason": "NotFound", "details": details})).code, Code::NotFound);
        assert_eq!(of(json!({"code": 404, "message": "404 page not found"})).code, Code::NotInstalled);
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        let error = of(json!({"code": 429, "details": {"retryAfterSeconds": 7}}));
        assert_eq!((error.retry_after, error.is_passing()), (Some(7), true));
        assert_eq!(of(json!({"code": 500, "message": "failed calling webhook"})).retry_after, Some(1));
        assert_eq!(of(json!({"code": 404})).code, Code::NotInstalled);
    }
}
