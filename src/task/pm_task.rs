//! Tasks as project managers' tools write them: Task Master's `tasks.json`, and the predecessor's requests.

use super::{Code, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt::Write;

/// One task. Whatever else is in the file is left out.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct PmTask {
    /// Its number.
    #[serde(deserialize_with = "number")]
    pub id: u32,
    /// Its title.
    #[serde(deserialize_with = "text")]
    pub title: String,
    /// What it is about.
    #[serde(deserialize_with = "text")]
    pub description: String,
    /// How to do it.
    #[serde(deserialize_with = "text")]
    pub details: String,
    /// How to know that it is done.
    #[serde(alias = "testStrategy", deserialize_with = "text")]
    pub test_strategy: String,
    /// Its parts.
    pub subtasks: Vec<Subtask>,
}

/// A part of a task.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Subtask {
    /// Its number in the task.
    #[serde(deserialize_with = "number")]
    pub id: u32,
    /// Its title.
    #[serde(deserialize_with = "text")]
    pub title: String,
    /// What it is about.
    #[serde(deserialize_with = "text")]
    pub description: String,
    /// How to do it.
    #[serde(deserialize_with = "text")]
    pub details: String,
    /// How to know that it is done.
    #[serde(alias = "testStrategy", deserialize_with = "text")]
    pub test_strategy: String,
}

/// A number, which some versions of Task Master write as a string; 0 where it is neither.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    Ok(number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default())
}

/// A text, which may be `null`.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl PmTask {
    /// Whether there is anything to do in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let texts = [&self.title, &self.description, &self.details, &self.test_strategy];
        texts.iter().all(|text| text.trim().is_empty()) && self.subtasks.is_empty()
    }

    /// As the agent's `task.md`.
    #[must_use]
    pub fn markdown(&self) -> String {
        let title = if self.title.trim().is_empty() { format!("Task {}", self.id) } else { line(&self.title) };
        let mut markdown = format!("# {title}\n");
        section(&mut markdown, "", &self.description);
        section(&mut markdown, "## Details", &self.details);
        section(&mut markdown, "## Test strategy", &self.test_strategy);
        if !self.subtasks.is_empty() {
            markdown.push_str("\n## Subtasks\n");
        }
        for subtask in &self.subtasks {
            section(&mut markdown, "", &format!("### {}. {}", subtask.id, line(&subtask.title)));
            section(&mut markdown, "", &subtask.description);
            section(&mut markdown, "", &subtask.details);
            section(&mut markdown, "", &subtask.test_strategy);
        }
        markdown
    }
}

/// A text on one line, as a heading must be.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn section(markdown: &mut String, heading: &str, text: &str) {
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    // writing to memory cannot fail
    let _ = match heading {
        "" => writeln!(markdown, "\n{text}"),
        _ => writeln!(markdown, "\n{heading}\n\n{text}"),
    };
}

/// The tasks of a `tasks.json`: `{"tasks": […]}`, or the same under the name of a tag (`master`).
///
/// # Errors
/// If it is not such a file, or has several tags and none was chosen.
pub fn parse_task_master(json: &str, tag: Option<&str>) -> Result<Vec<PmTask>, Error> {
    let invalid = |message: String| Error::new(Code::InvalidRequest, message);
    let mut file: Value = serde_json::from_str(json).map_err(|error| invalid(format!("not JSON: {error}")))?;
    let tags: Vec<String> = file
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| value["tasks"].is_array())
        .map(|(tag, _)| tag.clone())
        .collect();
    let tasks = match (tag, tags.as_slice()) {
        (None, _) if file["tasks"].is_array() => file["tasks"].take(),
        (None, [only]) => file[only]["tasks"].take(),
        (None, several) if several.iter().any(|tag| tag == "master") => file["master"]["tasks"].take(),
        (Some(tag), several) if several.iter().any(|other| other == tag) => file[tag]["tasks"].take(),
        (_, []) => return Err(invalid("has no list \"tasks\": is it a Task Master tasks.json?".to_owned())),
        (_, several) => return Err(invalid(format!("choose one of its tags: {}", several.join(", ")))),
    };
    serde_json::from_value(tasks).map_err(|error| invalid(format!("a task cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"{"id": "3", "title": "Refresh\n tokens", "description": "Do it.", "details": null,
        "testStrategy": "Run it.", "status": "pending", "dependencies": [1, "2.1"],
        "subtasks": [{"id": 1, "title": "First", "details": "So."}]}"#;

    #[test]
    fn a_task_becomes_markdown() {
        let tasks = parse_task_master(&format!("{{\"master\": {{\"tasks\": [{TASK}]}}}}"), None).expect("a file");
        assert_eq!(tasks[0].id, 3);
        assert_eq!(
            tasks[0].markdown(),
            "# Refresh tokens\n\nDo it.\n\n## Test strategy\n\nRun it.\n\n## Subtasks\n\n### 1. First\n\nSo.\n"
        );
        assert!(PmTask::default().is_empty() && !tasks[0].is_empty());
    }

    #[test]
    fn both_forms_and_tags_are_read() {
        assert_eq!(parse_task_master(&format!("{{\"tasks\": [{TASK}]}}"), None).expect("a file").len(), 1);
        let tagged = format!("{{\"a\": {{\"tasks\": [{TASK}]}}, \"b\": {{\"tasks\": []}}}}");
        assert_eq!(parse_task_master(&tagged, Some("a")).expect("a file").len(), 1);
        let error = parse_task_master(&tagged, None).expect_err("two tags");
        assert_eq!(error.message, "choose one of its tags: a, b");
        for bad in ["", "[]", "{}", "{\"tasks\": 1}", "{\"tasks\": [{\"title\": 1}]}"] {
            assert_eq!(parse_task_master(bad, None).expect_err(bad).code, Code::InvalidRequest);
        }
    }
}
