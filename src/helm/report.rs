//! What is told of the rows: as JSON for programs, as a table for people. Nothing of others' reaches a terminal as it
//! came.

use super::judge::{Row, Verdict};
use super::task::JobSeen;
use serde::Serialize;
use std::fmt;

const HEADER: [&str; 7] = ["RELEASE", "REV", "STATUS", "JOB", "TASKRUN", "FILES", "ACTION"];
const GAP: &str = "   ";

/// A row, for programs.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Name of the release.
    pub release: String,
    /// Its governing revision; none where it cannot be read.
    pub revision: Option<u32>,
    /// What Helm says of it.
    pub status: Option<String>,
    /// Name and version of its chart.
    pub chart: Option<String>,
    /// The service of its task.
    pub service_name: Option<String>,
    /// Name of its `TaskRun`.
    pub task_run: Option<String>,
    /// Its Job.
    pub job: Option<JobSeen>,
    /// How many files its task has.
    pub files: usize,
    /// What is to be done, or was: a word of an [`Action`].
    pub action: Action,
    /// Why nothing is.
    pub reason: Option<String>,
    /// What people must know.
    pub notes: Vec<String>,
}

/// What is to be done with a release, or was done.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Its `TaskRun` is to be made.
    Create,
    /// Its `TaskRun` was made, and is what it was to be.
    Created,
    /// Its `TaskRun` is there.
    Migrated,
    /// The same, and all of it is what it was to be.
    Verified,
    /// It is not left in Helm or in the cluster any more.
    Deleted,
    /// It is left for this time, for a reason.
    Skipped,
    /// It could not be done, or is not what it was to be, for a reason.
    Failed,
    /// It is not a task.
    OtherChart,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<&Row> for Entry {
    fn from(row: &Row) -> Self {
        let (action, reason) = match &row.verdict {
            Verdict::Create(_) => (Action::Create, None),
            Verdict::Migrated(_) => (Action::Migrated, None),
            Verdict::OtherChart => (Action::OtherChart, None),
            Verdict::Skip(reason) => (Action::Skipped, Some(harmless(reason))),
        };
        Self {
            release: harmless(&row.release),
            revision: row.revision,
            status: row.status.as_ref().map(|status| harmless(&status.to_string())),
            chart: row.chart.as_ref().map(|chart| harmless(&chart.to_string())),
            service_name: row.service_name.clone(),
            task_run: row.task_run.clone(),
            job: row.job.clone(),
            files: row.files,
            action,
            reason,
            notes: row.notes.iter().map(|note| harmless(note)).collect(),
        }
    }
}

/// For people: a line each, its reason and notes below; notes to several at the end. Other charts are only counted.
#[must_use]
pub fn table(entries: &[Entry]) -> String {
    let (others, tasks): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.action == Action::OtherChart);
    let lines: Vec<[String; 7]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(tasks.iter().map(|entry| entry.cells())).collect();
    let widths: Vec<usize> =
        (0..HEADER.len()).map(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0)).collect();
    let line = |cells: &[String; 7]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join(GAP).trim_end().to_owned()
    };
    let mut text = vec![];
    if !tasks.is_empty() {
        text.push(line(&lines[0]));
    }
    let count = |note: &String| tasks.iter().filter(|entry| entry.notes.contains(note)).count();
    let mut shared: Vec<&String> = vec![];
    for (entry, cells) in tasks.iter().zip(&lines[1..]) {
        text.push(line(cells));
        text.extend(entry.reason.iter().map(|reason| format!("{GAP}why: {reason}")));
        for note in &entry.notes {
            match count(note) {
                1 => text.push(format!("{GAP}note: {note}")),
                _ if shared.contains(&note) => {}
                _ => shared.push(note),
            }
        }
    }
    text.extend(shared.iter().map(|note| format!("note to {} releases: {note}", count(note))));
    if !others.is_empty() {
        text.push(format!("{} of other charts, left alone", others.len()));
    }
    text.into_iter().map(|line| line + "\n").collect()
}

impl Entry {
    /// The same, where this was done.
    #[must_use]
    pub fn done(self, action: Action) -> Self {
        Self { action, reason: None, ..self }
    }

    /// The same, where this came of it.
    #[must_use]
    pub fn because(self, action: Action, reason: &str) -> Self {
        Self { action, reason: Some(harmless(reason)), ..self }
    }

    /// Tells people one thing more.
    pub fn note(&mut self, note: &str) {
        self.notes.push(harmless(note));
    }

    fn cells(&self) -> [String; 7] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.release.clone(),
            or_none(self.revision.map(|revision| revision.to_string())),
            or_none(self.status.clone()),
            or_none(self.job.as_ref().map(|job| job.state.to_string())),
            or_none(self.task_run.clone()),
            self.files.to_string(),
            self.action.to_string(),
        ]
    }
}

/// Names and our own words are ASCII: all else is shown as `\u{…}`, and every character takes one column.
fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c == ' ' || c.is_ascii_graphic() {
            true => safe.push(c),
            false => safe.extend(c.escape_unicode()),
        }
    }
    safe
}
