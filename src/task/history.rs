//! What the versions of a context had, and how to go back to one.

use crate::crd::{MarkdownFile, TaskRun};
use serde::Serialize;
use std::collections::BTreeMap;

/// Files of a version: content by name.
pub type Files = BTreeMap<String, String>;

/// What a version did to a file.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there before.
    Added,
    /// It had another content before.
    Changed,
    /// It is there no more.
    Removed,
}

/// What has become of which file, by name.
#[must_use]
pub fn changes(before: &Files, after: &Files) -> BTreeMap<String, Change> {
    let new = after.iter().filter_map(|(name, content)| match before.get(name) {
        None => Some((name.clone(), Change::Added)),
        Some(old) if old != content => Some((name.clone(), Change::Changed)),
        Some(_) => None,
    });
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), Change::Removed));
    new.chain(gone).collect()
}

/// The files of an older version as those of this TaskRun, or `None` where they are its own already. A file that
/// stays keeps the id of the request that added it.
#[must_use]
pub fn rolled_back(task_run: &TaskRun, files: &Files) -> Option<Vec<MarkdownFile>> {
    let present: Files =
        task_run.spec.markdown_files.iter().map(|file| (file.filename.clone(), file.content.clone())).collect();
    let stored = |filename: &String, content: &String| {
        let stored = task_run.spec.markdown_files.iter().find(|file| file.filename == *filename);
        let request_id = stored.and_then(|file| file.request_id.clone());
        MarkdownFile { filename: filename.clone(), content: content.clone(), request_id }
    };
    (present != *files).then(|| files.iter().map(|(name, content)| stored(name, content)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn changes_name_what_came_changed_and_went() {
        let (before, after) =
            (files(&[("a", "1"), ("b", "1"), ("c", "1")]), files(&[("a", "1"), ("b", "2"), ("d", "1")]));
        let expected = [("b", Change::Changed), ("c", Change::Removed), ("d", Change::Added)];
        assert_eq!(changes(&before, &after), expected.map(|(name, change)| (name.to_owned(), change)).into());
    }

    #[test]
    fn a_rollback_keeps_the_request_of_files_that_stay() {
        let mut task_run = TaskRun::new("task-1", crate::crd::TaskRunSpec::default());
        let file = |name: &str, content: &str, id: &str| MarkdownFile {
            filename: name.into(),
            content: content.into(),
            request_id: Some(id.into()),
        };
        task_run.spec.markdown_files = vec![file("a.md", "1", "r1"), file("b.md", "2", "r2")];
        let back = rolled_back(&task_run, &files(&[("a.md", "1"), ("b.md", "1")])).expect("a change");
        assert_eq!((back[0].request_id.as_deref(), back[1].request_id.as_deref()), (Some("r1"), Some("r2")));
        assert_eq!(rolled_back(&task_run, &files(&[("a.md", "1"), ("b.md", "2")])), None);
    }
}
