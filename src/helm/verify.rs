//! Whether what is stored is what was to be made.

use crate::crd::{EnvVar, HELM_RELEASE, TaskRun};
use std::collections::BTreeMap;

/// What a stored `TaskRun` says otherwise than the one that was made of a release; nothing where it is equal. Files are
/// compared byte for byte and never told.
///
/// A later version may have another agent, other variables and more files. Its first one is judged by `first_files`,
/// which is what the ConfigMap of version 1 holds, or else by what the stored one still has.
#[must_use]
pub fn verify(expected: &TaskRun, live: &TaskRun, first_files: Option<&BTreeMap<String, String>>) -> Vec<String> {
    let (ours, theirs) = (&expected.spec, &live.spec);
    let is_first = theirs.context_version == 1;
    let release = |task_run: &TaskRun| task_run.metadata.annotations.as_ref()?.get(HELM_RELEASE).cloned();
    let by_name = |env: &[EnvVar]| -> BTreeMap<String, String> {
        env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect()
    };
    let mut found: Vec<String> = [
        ("name", expected.metadata.name == live.metadata.name),
        ("namespace", expected.metadata.namespace == live.metadata.namespace),
        (HELM_RELEASE, release(expected) == release(live)),
        ("taskId", ours.task_id == theirs.task_id),
        ("serviceName", ours.service_name == theirs.service_name),
        ("agentName", !is_first || ours.agent_name == theirs.agent_name),
        ("env", !is_first || by_name(&ours.env) == by_name(&theirs.env)),
    ]
    .into_iter()
    .filter(|(_, is_equal)| !is_equal)
    .map(|(field, _)| format!("{field} differs"))
    .collect();
    let files = |task_run: &TaskRun| -> BTreeMap<String, String> {
        task_run.spec.markdown_files.iter().map(|file| (file.filename.clone(), file.content.clone())).collect()
    };
    let (expected, stored) = (files(expected), files(live));
    let kept = first_files.filter(|_| !is_first).unwrap_or(&stored);
    for (name, content) in &expected {
        match kept.get(name) {
            None => found.push(format!("{name} is not there")),
            Some(other) => found.extend(difference(content, other).map(|difference| format!("{name} {difference}"))),
        }
    }
    if is_first {
        let besides = stored.keys().filter(|name| !expected.contains_key(*name));
        found.extend(besides.map(|name| format!("{name} is there besides")));
    }
    found
}

/// Where two texts part.
fn difference(ours: &str, theirs: &str) -> Option<String> {
    let same = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
    let differs = || format!("differs from byte {same} on: {} bytes in Helm, {} stored", ours.len(), theirs.len());
    (ours != theirs).then(differs)
}
