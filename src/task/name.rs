//! How people call a task.

use super::{Code, Error};
use crate::crd::is_subdomain;

/// The TaskRun's name: `7` and `task-7` are one task, `auth-task-7` is its own name, and so is what kubectl prints
/// (`taskrun/task-7`).
///
/// # Errors
/// If no TaskRun can be called so: then it must not become part of a URL.
pub fn parse_name(text: &str) -> Result<String, Error> {
    let kinds = ["taskrun.orchestrator.io/", "taskruns.orchestrator.io/", "taskrun/", "taskruns/", "trun/"];
    let name = kinds.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    let is_number = !name.is_empty() && name.len() <= 10 && name.bytes().all(|byte| byte.is_ascii_digit());
    match (is_number, is_subdomain(name)) {
        (true, _) => Ok(format!("task-{name}")),
        (_, true) => Ok(name.to_owned()),
        _ => Err(Error::new(Code::InvalidRequest, "the task must be its number, or its TaskRun's name".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_name;

    #[test]
    fn a_task_is_called_by_number_or_name() {
        for (text, name) in [
            ("7", "task-7"),
            ("task-7", "task-7"),
            ("auth-task-7", "auth-task-7"),
            ("taskrun/task-7", "task-7"),
            ("taskrun.orchestrator.io/task-7", "task-7"),
        ] {
            assert_eq!(parse_name(text).expect("a name"), name);
        }
        for bad in ["", "..", "a/b", "task-7/status", "A", "a b", "%2e", "taskrun/", "a?b"] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
