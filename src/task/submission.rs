//! A task as it is submitted, and how it compares to one that is there already.

use crate::crd::{EnvVar, MarkdownFile, TaskNames, TaskRun, TaskRunSpec};
use std::collections::BTreeMap;

/// Annotation: the task's title, for people.
pub const TITLE: &str = "orchestrator.io/title";
/// Longest title that is kept, in characters.
const MAX_TITLE: usize = 256;

/// A task as it is submitted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Submission {
    /// Number of the task.
    pub task_id: u32,
    /// The service that it belongs to.
    pub service_name: String,
    /// Who works on it.
    pub agent_name: String,
    /// A line for people.
    pub title: String,
    /// Its context.
    pub files: Vec<MarkdownFile>,
    /// Variables for this task.
    pub env: Vec<EnvVar>,
}

impl Submission {
    /// The object to create. It is not judged here: admission names all that is wrong with it.
    #[must_use]
    pub fn task_run(&self, names: TaskNames) -> TaskRun {
        let name = names.task_run(&self.service_name, self.task_id.into());
        let spec = TaskRunSpec {
            task_id: self.task_id,
            service_name: self.service_name.clone(),
            agent_name: self.agent_name.clone(),
            context_version: 1,
            markdown_files: self.files.clone(),
            env: self.env.clone(),
            ..TaskRunSpec::default()
        };
        let mut task_run = TaskRun::new(&name, spec);
        let title: String = self.title.trim().chars().filter(|c| !c.is_control()).take(MAX_TITLE).collect();
        if !title.is_empty() {
            task_run.metadata.annotations = Some(BTreeMap::from([(TITLE.to_owned(), title)]));
        }
        task_run
    }

    /// What the stored task says otherwise; nothing where it is this one. Files that were added since do not count.
    #[must_use]
    pub fn differences(&self, stored: &TaskRun) -> Vec<String> {
        let spec = &stored.spec;
        let mut found = vec![];
        for (field, ours, theirs) in [
            ("service_name", &self.service_name, &spec.service_name),
            ("agent_name", &self.agent_name, &spec.agent_name),
        ] {
            if ours != theirs {
                found.push(format!("{field} is {theirs:?} there"));
            }
        }
        for file in &self.files {
            match spec.markdown_files.iter().find(|stored| stored.filename == file.filename) {
                None => found.push(format!("{} is not there", file.filename)),
                Some(stored) if stored.content != file.content => found.push(format!("{} differs", file.filename)),
                Some(_) => {}
            }
        }
        // but for what requests have added since
        let is_ours = |stored: &&MarkdownFile| {
            stored.request_id.is_some() || self.files.iter().any(|file| file.filename == stored.filename)
        };
        let others = spec.markdown_files.iter().filter(|stored| !is_ours(stored));
        found.extend(others.map(|stored| format!("{} is there besides", stored.filename)));
        let sorted = |env: &[EnvVar]| -> BTreeMap<String, String> {
            env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect()
        };
        if sorted(&self.env) != sorted(&spec.env) {
            found.push("env differs".to_owned());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission() -> Submission {
        let file = |name: &str| MarkdownFile { filename: name.into(), content: "do it".into(), request_id: None };
        Submission {
            task_id: 7,
            service_name: "auth".into(),
            agent_name: "agent".into(),
            title: " A\nline ".into(),
            files: vec![file("task.md"), file("prompt.md")],
            env: vec![EnvVar { name: "MODEL".into(), value: "m".into() }],
        }
    }

    #[test]
    fn the_object_is_named_by_the_scheme_and_titled() {
        let task_run = submission().task_run(TaskNames::ByService);
        assert_eq!(task_run.metadata.name.as_deref(), Some("auth-task-7"));
        assert_eq!(task_run.metadata.annotations.expect("some")[TITLE], "Aline");
    }

    #[test]
    fn the_same_again_has_no_difference_even_after_context_was_added() {
        let mut stored = submission().task_run(TaskNames::ById);
        assert_eq!(submission().differences(&stored), Vec::<String>::new());
        stored.spec.markdown_files.reverse();
        stored.spec.markdown_files.push(MarkdownFile {
            filename: "context-v2.md".into(),
            content: "more".into(),
            request_id: Some("r".into()),
        });
        assert_eq!(submission().differences(&stored), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_named_and_no_markdown_is_told() {
        let stored = submission().task_run(TaskNames::ById);
        let mut other = submission();
        other.agent_name = "other".into();
        other.files[0].content = "secret words".into();
        other.files[1].filename = "new.md".into();
        other.env.clear();
        let found = other.differences(&stored);
        assert_eq!(
            found,
            [
                "agent_name is \"agent\" there",
                "task.md differs",
                "new.md is not there",
                "prompt.md is there besides",
                "env differs"
            ]
        );
    }
}
