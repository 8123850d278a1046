//! A task on one line.

use super::TITLE;
use serde_json::Value;

/// What a list says of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its namespace; empty in the table of one namespace.
    pub namespace: String,
    /// Name of the TaskRun.
    pub name: String,
    /// `spec.taskId`.
    pub task_id: u32,
    /// `spec.serviceName`.
    pub service: String,
    /// `spec.agentName`.
    pub agent: String,
    /// What it is about, if that was told.
    pub title: String,
    /// The newest context version.
    pub version: u32,
    /// `Pending` where nothing was said yet.
    pub phase: String,
    /// Pods of the run that have started.
    pub attempts: u32,
    /// When the run was released, as RFC 3339.
    pub started: Option<String>,
    /// When it ended, as RFC 3339.
    pub ended: Option<String>,
    /// Its Job.
    pub job: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// Field of an object and column of its table.
const TASK_ID: (&str, &str) = ("/spec/taskId", "Task");
const SERVICE: (&str, &str) = ("/spec/serviceName", "Service");
const AGENT: (&str, &str) = ("/spec/agentName", "Agent");
const VERSION: (&str, &str) = ("/spec/contextVersion", "Version");
const PHASE: (&str, &str) = ("/status/phase", "Phase");
const ATTEMPTS: (&str, &str) = ("/status/attempts", "Attempts");
const STARTED: (&str, &str) = ("/status/startTime", "Started");
const ENDED: (&str, &str) = ("/status/completionTime", "Ended");
const JOB: (&str, &str) = ("/status/jobName", "Job");
const MESSAGE: (&str, &str) = ("/status/message", "Message");

impl Summary {
    /// Of a whole object.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let title = object["metadata"]["annotations"].get(TITLE).cloned().unwrap_or_default();
        let name = &object["metadata"]["name"];
        Self::read(&object["metadata"], name, &title, |(path, _)| object.pointer(path).cloned().unwrap_or_default())
    }

    /// Of the rows of a `meta.k8s.io/v1` Table: the columns that `kubectl get -o wide` shows. No markdown is in it.
    #[must_use]
    pub fn of_table(table: &Value) -> Vec<Self> {
        let columns = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let cell = |row: &Value, column: &str| {
            let i = columns.iter().position(|definition| definition["name"] == column);
            i.and_then(|i| row["cells"].get(i)).cloned().unwrap_or_default()
        };
        let summary = |row: &Value| {
            let (name, title) = (cell(row, "Name"), cell(row, "Title"));
            Self::read(&row["object"]["metadata"], &name, &title, |(_, column)| cell(row, column))
        };
        rows.iter().map(summary).collect()
    }

    fn read(metadata: &Value, name: &Value, title: &Value, value: impl Fn((&str, &str)) -> Value) -> Self {
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let optional = |field| Some(text(value(field))).filter(|text| !text.is_empty());
        let number = |field| value(field).as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
        Self {
            namespace: text(metadata["namespace"].clone()),
            name: text(name.clone()),
            task_id: number(TASK_ID),
            service: text(value(SERVICE)),
            agent: text(value(AGENT)),
            title: text(title.clone()),
            version: number(VERSION),
            phase: optional(PHASE).unwrap_or_else(|| "Pending".to_owned()),
            attempts: number(ATTEMPTS),
            started: optional(STARTED),
            ended: optional(ENDED),
            job: optional(JOB),
            message: text(value(MESSAGE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;
    use serde_json::json;

    #[test]
    fn an_object_and_its_row_say_the_same() {
        let object = json!({
            "metadata": {"name": "task-1", "annotations": {"orchestrator.io/title": "Tokens"}},
            "spec": {"taskId": 1, "serviceName": "auth", "agentName": "reader", "contextVersion": 3},
            "status": {"phase": "Running", "attempts": 1, "startTime": "2026-01-01T00:00:00Z", "jobName": "auth-1-v3"},
        });
        let names =
            ["Name", "Task", "Service", "Agent", "Version", "Phase", "Attempts", "Job", "Started", "Ended", "Title"];
        let columns: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let cells = json!([
            "task-1",
            1,
            "auth",
            "reader",
            3,
            "Running",
            1,
            "auth-1-v3",
            "2026-01-01T00:00:00Z",
            null,
            "Tokens"
        ]);
        let table = json!({"columnDefinitions": columns, "rows": [{"cells": cells}]});
        assert_eq!(Summary::of_table(&table), [Summary::of(&object)]);
    }

    #[test]
    fn a_task_that_nobody_has_looked_at_is_pending() {
        assert_eq!(Summary::of(&json!({"metadata": {"name": "task-1"}})).phase, "Pending");
    }
}
