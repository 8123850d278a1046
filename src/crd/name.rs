//! Names: what is a legal one, and how those of our objects are made.
//!
//! Every name is a pure function of the task and the version, so that creating an object twice is a
//! conflict that the API server sees. Never add a random part.

use clap::ValueEnum;
use std::fmt;

/// How `TaskRun`s are named: the API server's uniqueness of names is what makes one object a task.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskNames {
    /// `task-{taskId}`: task numbers are unique in a namespace.
    #[default]
    #[value(help = None)]
    ById,
    /// `{serviceName}-task-{taskId}`: each service numbers its own tasks.
    #[value(help = None)]
    ByService,
}

impl TaskNames {
    /// The one name that the `TaskRun` of this task may have.
    #[must_use]
    pub fn task_run(self, service_name: &str, task_id: i64) -> String {
        match self {
            Self::ById => format!("task-{task_id}"),
            Self::ByService => format!("{service_name}-task-{task_id}"),
        }
    }
}

impl TaskNames {
    /// Whether a name was made by the scheme that this is not.
    #[must_use]
    pub fn is_of_the_other(self, name: &str) -> bool {
        let Some((service, task_id)) = name.rsplit_once("task-") else { return false };
        let is_task = !task_id.is_empty() && task_id.bytes().all(|byte| byte.is_ascii_digit());
        is_task
            && match self {
                Self::ById => service.ends_with('-'),
                Self::ByService => service.is_empty(),
            }
    }
}

/// A context version of a task: what a run, its Job and its ConfigMap are named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId {
    /// `spec.serviceName`.
    pub service_name: String,
    /// `spec.taskId`.
    pub task_id: u32,
    /// `spec.contextVersion`.
    pub version: u32,
}

impl RunId {
    /// `{service}-{task}`: shared by all runs of the task, also those of another `TaskRun`.
    #[must_use]
    pub fn task(&self) -> String {
        format!("{}-{}", self.service_name, self.task_id)
    }

    /// `workspace-{service}-{task}`: the `PersistentVolumeClaim` that all runs of the task share.
    #[must_use]
    pub fn workspace(&self) -> String {
        format!("workspace-{}", self.task())
    }
}

/// `{service}-{task}-v{version}`: the name of the run's Job and of its ConfigMap, at most 63 long.
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-v{}", self.service_name, self.task_id, self.version)
    }
}

/// Pattern of [`is_filename`], for the schema.
pub const FILENAME_PATTERN: &str = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*\.md$";
/// Pattern of [`is_label`], for the schema.
pub const LABEL_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Pattern of [`is_subdomain`], for the schema.
pub const SUBDOMAIN_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Pattern of [`is_env_name`], for the schema.
pub const ENV_NAME_PATTERN: &str = r"^[A-Za-z_][A-Za-z0-9_]*$";

/// Whether a ConfigMap may have this key and an agent finds it as a markdown file.
#[must_use]
pub fn is_filename(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let stem = name.strip_suffix(".md").unwrap_or_default();
    !stem.is_empty() && !stem.starts_with('.') && stem.chars().all(legal)
}

/// Whether this is a DNS-1123 label (RFC 1123), but for its length.
#[must_use]
pub fn is_label(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && !name.starts_with('-') && !name.ends_with('-') && name.chars().all(legal)
}

/// Whether this is a DNS-1123 subdomain (RFC 1123): what an object may be called.
#[must_use]
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether this is a C identifier: what a shell takes as a variable's name.
#[must_use]
pub fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether this is a `traceparent` of version 00 (W3C Trace Context, 3.2): ids that are not zero, lower case.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_id = |part: &str| part.bytes().any(|b| b != b'0');
    let &[version, trace, span, flags] = parts.as_slice() else { return false };
    let fits = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
    fits && version == "00" && is_id(trace) && is_id(span) && [trace, span, flags].into_iter().all(is_hex)
}

/// Whether the operator sets this variable itself in every container.
#[must_use]
pub fn is_reserved_env_name(name: &str) -> bool {
    ["TASK_ID", "SERVICE_NAME", "AGENT_NAME", "CONTEXT_VERSION", "CONTEXT_DIR"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_run_name_fits_a_label() {
        let id = RunId { service_name: "s".repeat(40), task_id: u32::MAX, version: u32::MAX };
        assert_eq!(id.to_string().len(), 63);
    }

    #[test]
    fn schemes_are_told_apart_by_the_name() {
        for (name, by_service) in [("task-7", false), ("auth-task-7", true), ("task-task-7", true)] {
            assert_eq!(TaskNames::ById.is_of_the_other(name), by_service, "{name}");
            assert_eq!(TaskNames::ByService.is_of_the_other(name), !by_service, "{name}");
        }
        for name in ["foo", "task-x", "task-", "mytask-7"] {
            assert!(!TaskNames::ById.is_of_the_other(name) && !TaskNames::ByService.is_of_the_other(name), "{name}");
        }
    }

    #[test]
    fn filenames_are_what_the_pattern_says() {
        for good in ["a.md", "task.md", "-x.md", "_.md", "context-v2.md", "a..md"] {
            assert!(is_filename(good), "{good}");
        }
        for bad in ["", ".md", "..md", ".a.md", "a.txt", "a b.md", "é.md", "a/b.md", "a.md\n", "a.MD"] {
            assert!(!is_filename(bad), "{bad:?}");
        }
    }

    #[test]
    fn labels_and_subdomains_follow_rfc_1123() {
        for good in ["a", "a-b", "0", "auth-service"] {
            assert!(is_label(good) && is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a b"] {
            assert!(!is_label(bad) && !is_subdomain(bad), "{bad:?}");
        }
        assert!(is_subdomain("a.b") && !is_label("a.b") && !is_subdomain("a..b"));
    }

    #[test]
    fn a_traceparent_is_what_w3c_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good) && is_traceparent(&good.replace("-01", "-00")));
        for (from, to) in [
            ("00-4", "01-4"),
            ("00-4", "ff-4"),
            ("4bf92f35", "4BF92F35"),
            ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            ("00f067aa0ba902b7", "0000000000000000"),
            ("b7-01", "b-701"),
            ("-01", ""),
            ("-01", "-0g"),
            ("-01", "-01-"),
            ("-01", "-01\n"),
            ("4bf9", "é9"),
            (good, ""),
        ] {
            assert!(!is_traceparent(&good.replace(from, to)), "{from} {to}");
        }
    }
}
