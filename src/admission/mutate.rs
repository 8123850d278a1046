//! Mutating admission: the next `contextVersion`, who caused it, and on creation the labels and the
//! finalizer, which saves the reconciler a write.

use super::kept::{keep, removed_files_of_others};
use super::{Metadata, Subject, Writer, add};
use crate::crd::{CHANGED_BY, FINALIZER, TRACEPARENT, is_label, is_traceparent};
use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What mutating admission does to an object.
#[derive(Debug, Default, PartialEq)]
pub struct Mutation {
    /// Operations on the object, none where it is as it should be.
    pub patch: Vec<PatchOperation>,
    /// The version that the object has then.
    pub version: i64,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Decides what becomes of a new object (`old` absent) or of a changed one. Applied to its own
/// result it does nothing more.
#[must_use]
pub fn mutate(new: &Subject<'_>, old: Option<&Subject<'_>>, writer: Writer<'_>) -> Mutation {
    match old {
        None => create(new, writer),
        Some(old) => update(new, old, writer),
    }
}

fn create(new: &Subject<'_>, writer: Writer<'_>) -> Mutation {
    let mut mutation = Mutation::default();
    let written = new.spec.context_version;
    if written.is_none() {
        mutation.add(&["spec", "contextVersion"], json!(1));
    }
    // only what was stored before has a later version, or says that it ran or that somebody else wrote it
    let version = written.unwrap_or(1);
    let is_copy = version > 1 || has_run(new) || (written.is_some() && is_of_another(new, writer));
    if is_copy && new.spec.suspend != Some(true) {
        mutation.add(&["spec", "suspend"], json!(true));
        mutation.warnings.push(format!(
            "this looks like a restored or copied TaskRun (spec.contextVersion is {version}), so it gets suspend: true; set suspend to false to run it"
        ));
    }
    mutation.add_finalizer(&new.metadata);
    mutation.add_labels(new);
    mutation.version = version;
    mutation.annotate(new, None, Some(writer));
    mutation
}

fn has_run(new: &Subject<'_>) -> bool {
    let status = new.status.and_then(|status| serde_json::from_str::<Value>(status.get()).ok());
    status.is_some_and(|status| status["runs"].as_array().is_some_and(|runs| !runs.is_empty()))
}

fn is_of_another(new: &Subject<'_>, writer: Writer<'_>) -> bool {
    new.annotation(CHANGED_BY).is_some_and(|user| user != writer.username)
}

fn update(new: &Subject<'_>, old: &Subject<'_>, writer: Writer<'_>) -> Mutation {
    let mut mutation = Mutation::default();
    let before = old.spec.context_version.unwrap_or(0);
    let written = new.spec.context_version;
    let kept = keep(new, old, writer);
    let moves = written == Some(before.saturating_add(1)) || !new.same_content_with(&kept.files, old);
    let wanted = before.saturating_add(i64::from(moves));
    mutation.warnings.extend(kept.warning());
    mutation.patch.extend(kept.patch);
    if written != Some(wanted) && wanted > 0 {
        mutation.add(&["spec", "contextVersion"], json!(wanted));
        if written.is_some_and(|written| written != before) {
            mutation.warnings.push(format!(
                "spec.contextVersion is managed, it is {wanted} now: leave it out, or write {} to run the same context again",
                wanted.saturating_add(1)
            ));
        }
    }
    mutation.version = wanted;
    mutation.annotate(new, Some(old), moves.then_some(writer));
    mutation.warnings.extend(removed_files_of_others(new, old, &kept.names, writer));
    mutation
}

impl Mutation {
    fn add(&mut self, path: &[&str], value: Value) {
        self.patch.push(add(path, value));
    }

    fn add_finalizer(&mut self, metadata: &Metadata<'_>) {
        let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            self.add(&["metadata", "finalizers"], json!(finalizers));
        }
    }

    /// The seed's labels, where the fields are legal: otherwise the schema shall speak of the field.
    fn add_labels(&mut self, new: &Subject<'_>) {
        let mut labels = new.metadata.labels.clone().unwrap_or_default();
        let before = labels.clone();
        if let Some(task_id) = new.spec.task_id {
            labels.insert("task-id".into(), task_id.to_string());
        }
        if let Some(service) = new.spec.service_name.as_deref().filter(|s| is_label(s) && s.len() <= 63) {
            labels.insert("service-name".into(), service.to_owned());
        }
        if labels != before {
            self.add(&["metadata", "labels"], json!(labels));
        }
    }

    /// Who gave the object its version, and in which span; the old ones where nobody did.
    fn annotate(&mut self, new: &Subject<'_>, old: Option<&Subject<'_>>, giver: Option<Writer<'_>>) {
        let before = |key| old.and_then(|old| old.annotation(key));
        let changed_by = giver.map_or_else(|| before(CHANGED_BY), |giver| Some(giver.username));
        let is_asked_again = self.patch.is_empty() && new.annotation(CHANGED_BY) == changed_by;
        let of_first = new.annotation(TRACEPARENT).filter(|text| Some(*text) != before(TRACEPARENT));
        let traceparent = match giver {
            None => before(TRACEPARENT),
            // what the first call gave stays
            Some(giver) => of_first.filter(|text| is_asked_again && is_traceparent(text)).or(giver.traceparent),
        };
        let wanted = [(CHANGED_BY, changed_by), (TRACEPARENT, traceparent)];
        if new.metadata.annotations.is_none() {
            let all: BTreeMap<_, _> = wanted.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            if !all.is_empty() {
                self.add(&["metadata", "annotations"], json!(all));
            }
            return;
        }
        for (key, value) in wanted.into_iter().filter(|(key, value)| new.annotation(key) != *value) {
            let path = ["metadata", "annotations", key];
            let removal = || RemoveOperation { path: PointerBuf::from_tokens(path) };
            self.patch.push(value.map_or_else(|| PatchOperation::Remove(removal()), |value| add(&path, json!(value))));
        }
    }
}
