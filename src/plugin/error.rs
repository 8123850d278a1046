//! Why a verb came to nothing, on one line, with what to do about it.

use super::text::harmless;
use crate::client::Tasks;
use crate::task::{self, Code};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// What the shell has for a command whose reader went away: 128 + SIGPIPE.
const READER_GONE: u8 = 141;

/// Says something besides on standard error. Nobody may be left to read it.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Why a verb came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster says so, or a decision.
    #[error("{}", remedy(.error, .namespace, .server))]
    Task {
        /// What it said.
        error: Box<task::Error>,
        /// Where the task was looked for.
        namespace: String,
        /// Where the API server is.
        server: String,
    },
    /// There is no such namespace.
    #[error("namespace {0:?} not found: choose another with -n, or create it")]
    NoNamespace(String),
    /// The arguments, or what they name, cannot be used.
    #[error("{0}")]
    Input(String),
    /// What was printed could not be written.
    #[error("failed to write: {0}")]
    Output(#[from] std::io::Error),
}

impl From<task::Error> for Error {
    fn from(error: task::Error) -> Self {
        Self::Task { error: Box::new(error), namespace: String::new(), server: String::new() }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

impl Error {
    /// What the cluster said, and where it was asked.
    pub fn at(tasks: &Tasks, error: task::Error) -> Self {
        let (namespace, server) = (tasks.namespace.clone(), tasks.server.clone());
        Self::Task { error: Box::new(error), namespace, server }
    }

    /// Says it on standard error, unless nobody reads any more, and returns the exit code.
    pub fn tell(&self, code: u8) -> ExitCode {
        if matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe) {
            return ExitCode::from(READER_GONE);
        }
        note(&format!("error: {self}"));
        ExitCode::from(code)
    }
}

/// The error with what to do about it, and its violations, each on a line.
fn remedy(error: &task::Error, namespace: &str, server: &str) -> String {
    let said = harmless(without_violations(error).trim_end_matches('.'));
    let mut text = match error.code {
        Code::Unauthenticated => {
            "the API server does not know you: sign in again, or check the user in your kubeconfig".to_owned()
        }
        // a policy says what it wants by itself
        Code::Forbidden if said.contains(" cannot ") => format!("{said}: ask whoever runs the cluster for this right"),
        Code::NotFound => match said.split_once("taskruns.orchestrator.io ").map(|(_, rest)| rest) {
            Some(rest) => {
                format!("TaskRun {rest} in namespace {namespace:?}: \"kubectl taskrun list\" shows what is there")
            }
            None => said,
        },
        Code::AlreadyExists if error.message.contains("is another one") => {
            format!("{said}: choose another --id, or add to it with \"kubectl taskrun add-context\"")
        }
        Code::Unavailable if said.contains("failed calling webhook") => format!("{said}: is the operator running?"),
        Code::Unavailable if said.starts_with("failed to reach") => {
            format!("{said} ({server}): is it up, and the one that your kubeconfig means?")
        }
        Code::Unavailable | Code::RateLimited => format!("{said}: try again in a moment"),
        // every rule of ours tells its field
        Code::Invalid if said.starts_with("admission webhook") && !error.violations.is_empty() => "refused:".to_owned(),
        Code::Invalid if !error.violations.is_empty() => said + ":",
        _ => said,
    };
    for violation in &error.violations {
        // writing to memory cannot fail
        let _ = write!(text, "\n  {}: {}", harmless(&violation.field), harmless(&violation.message));
    }
    text
}

/// What the API server said before it came to the fields, which follow on lines of their own.
fn without_violations(error: &task::Error) -> &str {
    let first = error.violations.iter().filter_map(|violation| error.message.find(&violation.field)).min();
    let said = first.map_or(error.message.as_str(), |end| &error.message[..end]);
    said.trim_end_matches([' ', ':', '[', '*', '<', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Violation;

    #[test]
    fn violations_stand_on_lines_of_their_own_and_only_there() {
        let violation = |field: &str| Violation { reason: None, field: field.into(), message: "is bad".into() };
        let mut error =
            task::Error::new(Code::Invalid, "TaskRun \"task-1\" is invalid: [spec.a: is bad, spec.b: is bad]");
        error.violations = vec![violation("spec.a"), violation("spec.b")];
        let text = Error::from(error).to_string();
        assert_eq!(text, "TaskRun \"task-1\" is invalid:\n  spec.a: is bad\n  spec.b: is bad");
    }

    #[test]
    fn what_can_be_done_is_said() {
        let text = |code, said: &str| remedy(&task::Error::new(code, said), "team", "https://k8s:6443/");
        let missing = text(Code::NotFound, "taskruns.orchestrator.io \"task-9\" not found");
        assert_eq!(
            missing,
            "TaskRun \"task-9\" not found in namespace \"team\": \"kubectl taskrun list\" shows what is there"
        );
        assert!(text(Code::Unavailable, "failed to reach the API server: refused").contains("https://k8s:6443/"));
        assert!(text(Code::Unavailable, "no answer in time").ends_with(": try again in a moment"));
        assert!(text(Code::Unavailable, "failed calling webhook \"x\"").ends_with("is the operator running?"));
        assert!(!text(Code::Conflict, "\u{1b}[2J").contains('\u{1b}'));
    }
}
