//! What the versions of a context had, and how to go back to one.

use crate::crd::{MarkdownFile, REMOVE_FILES, REQUEST_IDS, TaskRun};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use serde_json::{Value, json};
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

/// The files of a run, as its ConfigMap keeps them.
#[must_use]
pub fn files_of(config_map: ConfigMap) -> Vec<MarkdownFile> {
    let ids = config_map
        .metadata
        .annotations
        .and_then(|annotations| serde_json::from_str(annotations.get(REQUEST_IDS)?).ok());
    let mut ids: BTreeMap<String, String> = ids.unwrap_or_default();
    let files = config_map.data.unwrap_or_default().into_iter();
    files.map(|(filename, content)| MarkdownFile { request_id: ids.remove(&filename), filename, content }).collect()
}

/// Content by name.
#[must_use]
pub fn texts(files: &[MarkdownFile]) -> Files {
    files.iter().map(|file| (file.filename.clone(), file.content.clone())).collect()
}

/// What makes the files of an older version those of this TaskRun, as a patch of metadata and spec; `None` where they
/// are its own already. What requests have added since is removed knowingly.
#[must_use]
pub fn rollback(task_run: &TaskRun, files: &[MarkdownFile]) -> Option<Value> {
    let present = &task_run.spec.markdown_files;
    if texts(present) == texts(files) {
        return None;
    }
    let stays = |file: &MarkdownFile| {
        files.iter().any(|other| other.filename == file.filename && other.request_id == file.request_id)
    };
    let gone = present.iter().filter(|file| file.request_id.is_some() && !stays(file));
    let next = task_run.spec.context_version.saturating_add(1);
    // an annotation counts when it changes: the version makes it another one each time
    let names: Vec<String> =
        std::iter::once(format!("v{next}")).chain(gone.map(|file| file.filename.clone())).collect();
    Some(json!({
        "metadata": {"annotations": {REMOVE_FILES: names.join(",")}},
        "spec": {"markdownFiles": files, "contextVersion": next, "cancel": null},
    }))
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
    fn a_rollback_brings_requests_back_and_names_what_it_removes() {
        let mut task_run = TaskRun::new("task-1", crate::crd::TaskRunSpec::default());
        let file = |name: &str, content: &str, id: Option<&str>| MarkdownFile {
            filename: name.into(),
            content: content.into(),
            request_id: id.map(Into::into),
        };
        task_run.spec.context_version = 4;
        task_run.spec.markdown_files = vec![file("task.md", "1", None), file("b.md", "2", Some("r2"))];
        let config_map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"annotations": {REQUEST_IDS: "{\"c.md\":\"r3\"}"}}, "data": {"task.md": "1", "c.md": "3"}}))
        .expect("a ConfigMap");
        let back = rollback(&task_run, &files_of(config_map)).expect("a change");
        assert_eq!(back["metadata"]["annotations"][REMOVE_FILES], "v5,b.md");
        let (third, first) = (
            json!({"filename": "c.md", "content": "3", "requestId": "r3"}),
            json!({"filename": "task.md", "content": "1"}),
        );
        assert_eq!(back["spec"], json!({"markdownFiles": [third, first], "contextVersion": 5, "cancel": null}));
        assert_eq!(rollback(&task_run, &task_run.spec.markdown_files), None);
    }
}
