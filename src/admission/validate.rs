//! Validating admission: every rule that a `TaskRun` breaks, each with its field and the remedy.
//!
//! The reconciler calls the same function before it runs anything. Rules of content judge only what a
//! write changed, so that an object which breaks a newer rule can still be edited and deleted.

use super::{Content, Env, File, Reason, Spec, Subject};
use crate::crd::{
    ADOPTS, Adoption, MAX_CONTENT_BYTES, MAX_ENV, MAX_FILENAME, MAX_FILES, MAX_OBJECT_BYTES, MAX_SERVICE_NAME,
    TaskNames, is_env_name, is_filename, is_label, is_reserved_env_name, is_subdomain,
};
use std::collections::{BTreeMap, BTreeSet};

/// Files that agents read from their repository: one in the context would be mistaken for it.
const RESERVED_FILENAMES: [&str; 1] = ["CLAUDE.md"];

/// Most violations that are told, so that an answer stays short.
const MAX_VIOLATIONS: usize = 100;

/// A rule that an object breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind of rule; not known of one that an API server told of.
    pub reason: Option<Reason>,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what to do; never holds markdown.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// All violations of a new object (`old` absent) or of a change. `object_bytes` is the length of the
/// whole object as the API server's JSON.
#[must_use]
pub fn validate(new: &Subject<'_>, old: Option<&Subject<'_>>, names: TaskNames, object_bytes: usize) -> Vec<Violation> {
    let mut found = Found::default();
    found.identity(new, old, names);
    found.version(new, old);
    found.files(new, old, object_bytes);
    found.env(new, old);
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = match self.0.len() {
            0..MAX_VIOLATIONS => (field.into(), message.into()),
            MAX_VIOLATIONS => ("spec".into(), "breaks more rules than are told here: mend these first".into()),
            _ => return,
        };
        self.0.push(Violation { reason: Some(reason), field, message });
    }

    fn identity(&mut self, new: &Subject<'_>, old: Option<&Subject<'_>>, names: TaskNames) {
        let (id, service) = (new.spec.task_id, new.spec.service_name.as_deref().unwrap_or(""));
        let changed = |is_same: fn(&Spec<'_>, &Spec<'_>) -> bool| old.is_none_or(|old| !is_same(&old.spec, &new.spec));
        if changed(|a, b| a.task_id == b.task_id) && !id.is_some_and(|id| (1..=i64::from(u32::MAX)).contains(&id)) {
            self.add(Reason::TaskId, "spec.taskId", "must be a number from 1 to 4294967295");
        }
        if changed(|a, b| a.service_name == b.service_name) && (!is_label(service) || service.len() > MAX_SERVICE_NAME)
        {
            self.add(
                Reason::ServiceName,
                "spec.serviceName",
                format!("must be lower-case letters, digits and '-', at most {MAX_SERVICE_NAME} long, beginning and ending with a letter or digit"),
            );
        }
        if changed(|a, b| a.agent_name == b.agent_name) && !new.spec.agent_name.as_deref().is_some_and(is_subdomain) {
            self.add(
                Reason::AgentName,
                "spec.agentName",
                "must be the name of an Agent: lower-case letters, digits, '-' and '.'",
            );
        }
        if let Some(old) = old {
            if old.spec.task_id.is_some() && old.spec.task_id != id {
                self.add(Reason::Immutable, "spec.taskId", "is immutable: create another TaskRun for another task");
            }
            if old.spec.service_name.is_some() && old.spec.service_name != new.spec.service_name {
                self.add(
                    Reason::Immutable,
                    "spec.serviceName",
                    "is immutable: create another TaskRun for another service",
                );
            }
        } else {
            let right = names.task_run(service, id.unwrap_or_default());
            if new.metadata.name.as_deref() != Some(&right) && is_label(service) && id.is_some() {
                self.add(Reason::Name, "metadata.name", format!("must be \"{right}\": one TaskRun a task"));
            }
            if new.annotation(ADOPTS).is_some_and(|text| !Adoption::of(text).is_legal()) {
                self.add(
                    Reason::Adoption,
                    format!("metadata.annotations[{ADOPTS}]"),
                    "must be NAME/UID of a Job, or NAME",
                );
            }
        }
    }

    fn version(&mut self, new: &Subject<'_>, old: Option<&Subject<'_>>) {
        let version = new.spec.context_version.unwrap_or(0);
        if !(1..=i64::from(u32::MAX)).contains(&version) {
            self.add(
                Reason::Version,
                "spec.contextVersion",
                "must be a number from 1 to 4294967295: leave it out, it is managed",
            );
        }
        let Some((old, before)) = old.and_then(|old| Some((old, old.spec.context_version?))) else {
            return;
        };
        let raised = version == before.saturating_add(1);
        if !new.same_content(old) && !raised {
            self.add(
                Reason::Version,
                "spec.contextVersion",
                format!("must be {} since the context changed: leave it out, it is managed", before.saturating_add(1)),
            );
        } else if version != before && !raised {
            self.add(
                Reason::Version,
                "spec.contextVersion",
                format!("must be {before}, or {} to run the same context again", before.saturating_add(1)),
            );
        }
    }

    fn files(&mut self, new: &Subject<'_>, old: Option<&Subject<'_>>, object_bytes: usize) {
        let files = new.files();
        let before: BTreeMap<&str, &Content<'_>> =
            old.iter().flat_map(|old| old.files()).map(|f| (&*f.filename, &f.content)).collect();
        let is_changed = |file: &File<'_>| before.get(&*file.filename) != Some(&&file.content);
        let changed: Vec<bool> = files.iter().map(is_changed).collect();
        let any_changed = old.is_none() || changed.contains(&true);
        if files.is_empty() && (old.is_none() || !before.is_empty()) {
            self.add(
                Reason::NoFiles,
                "spec.markdownFiles",
                "must have at least one file: the agent would have nothing to do",
            );
        }
        if any_changed && files.len() > MAX_FILES {
            self.add(
                Reason::TooManyFiles,
                "spec.markdownFiles",
                format!("has {} files, at most {MAX_FILES} are possible: put several into one", files.len()),
            );
        }
        let mut seen = BTreeSet::new();
        for (i, file) in files.iter().enumerate() {
            let is_new = seen.insert(&*file.filename);
            if changed[i] || !is_new {
                self.file(i, file, is_new);
            }
        }
        let env_before: Option<BTreeSet<&Env<'_>>> = old.map(|old| old.env().iter().collect());
        let has_new_env = env_before.is_some_and(|before| new.env().iter().any(|env| !before.contains(env)));
        if any_changed {
            self.contents(files);
        }
        if any_changed || has_new_env {
            self.object(object_bytes);
        }
    }

    fn file(&mut self, i: usize, file: &File<'_>, is_new: bool) {
        let name = quote(&file.filename);
        let path = format!("spec.markdownFiles[{i}].filename");
        if !is_filename(&file.filename) || file.filename.len() > MAX_FILENAME {
            self.add(Reason::Filename, &path, format!("{name} must end in .md and be letters, digits, '.', '_' and '-', not beginning with '.', at most {MAX_FILENAME} long"));
        }
        if RESERVED_FILENAMES.iter().any(|reserved| reserved.eq_ignore_ascii_case(&file.filename)) {
            self.add(Reason::ReservedFilename, &path, format!("{name} is reserved, since agents read a file of this name from their repository: choose another name"));
        }
        if !is_new {
            self.add(
                Reason::DuplicateFilename,
                &path,
                format!("{name} stands twice: give each file a name of its own"),
            );
        }
        if file.content.is_blank() {
            self.add(
                Reason::EmptyFile,
                format!("spec.markdownFiles[{i}].content"),
                format!("{name} is empty: white space, HTML comments, front matter and link definitions do not count; write what the agent needs to know, or leave the file out"),
            );
        }
    }

    fn contents(&mut self, files: &[File<'_>]) {
        if files.iter().map(|file| file.content.most_bytes()).sum::<usize>() <= MAX_CONTENT_BYTES {
            return;
        }
        let bytes: usize = files.iter().map(|file| file.content.text().len()).sum();
        if bytes > MAX_CONTENT_BYTES {
            self.add(Reason::TooLarge, "spec.markdownFiles", format!("contents have {bytes} bytes, {} more than the {MAX_CONTENT_BYTES} that fit a ConfigMap: shorten them", bytes - MAX_CONTENT_BYTES));
        }
    }

    fn object(&mut self, object_bytes: usize) {
        if object_bytes > MAX_OBJECT_BYTES {
            self.add(Reason::TooLarge, "spec.markdownFiles", format!("the object has {object_bytes} bytes as JSON, {} more than the {MAX_OBJECT_BYTES} that are safe to store: shorten files or variables (as JSON '<', '>' and '&' take six bytes)", object_bytes - MAX_OBJECT_BYTES));
        }
    }

    fn env(&mut self, new: &Subject<'_>, old: Option<&Subject<'_>>) {
        let before: BTreeSet<&str> = old.iter().flat_map(|old| old.env()).map(|env| &*env.name).collect();
        let env = new.env();
        if env.len() > MAX_ENV && env.len() > before.len() {
            self.add(Reason::Env, "spec.env", format!("has {} variables, at most {MAX_ENV} are possible", env.len()));
        }
        let mut seen = BTreeSet::new();
        for (i, variable) in env.iter().enumerate() {
            let (path, name) = (format!("spec.env[{i}].name"), quote(&variable.name));
            if !seen.insert(&*variable.name) {
                self.add(Reason::Env, path, format!("{name} stands twice"));
            } else if before.contains(&*variable.name) {
            } else if is_reserved_env_name(&variable.name) {
                self.add(Reason::Env, path, format!("{name} is set by the operator: choose another name"));
            } else if !is_env_name(&variable.name) {
                self.add(
                    Reason::Env,
                    path,
                    format!("{name} must be letters, digits and '_', not beginning with a digit"),
                );
            }
        }
    }
}

/// The length as the API server's JSON, which is Go's: `<`, `>`, `&` and the two line separators are escaped.
#[must_use]
pub fn json_bytes(value: &impl serde::Serialize) -> usize {
    let json = serde_json::to_string(value).unwrap_or_default();
    let escaped = json.chars().map(|c| match c {
        '<' | '>' | '&' => 5,
        '\u{2028}' | '\u{2029}' => 3,
        _ => 0,
    });
    json.len() + escaped.sum::<usize>()
}

/// A name from outside, on one line and of bounded length.
fn quote(name: &str) -> String {
    format!("{:?}", name.chars().take(2 * MAX_FILENAME).collect::<String>())
}
