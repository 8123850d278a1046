//! Files that requests added stay where a write leaves them out.
//!
//! `kubectl edit` sends the whole list as it was when the editor opened, client-side `kubectl apply` the manifest's:
//! neither need have seen what was added meanwhile, and a review does not tell a patch from a replacement. Whoever
//! means it says so, by a sign that no old manifest carries by accident.

use super::{File, ManagedFields, Metadata, Subject, Writer, add};
use crate::crd::REMOVE_FILES;
use json_patch::PatchOperation;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Most files that a warning names: it has no room for more.
const MAX_NAMED: usize = 20;

/// What is put back into a write.
#[derive(Debug, Default)]
pub(super) struct Kept<'a> {
    /// The files, by the names that they have then.
    pub files: Vec<File<'a>>,
    /// Their names in the old object.
    pub names: Vec<&'a str>,
    /// What puts them back, as they are stored.
    pub patch: Vec<PatchOperation>,
}

impl Kept<'_> {
    /// Which they are, and how to remove one on purpose.
    pub fn warning(&self) -> Option<String> {
        let names: Vec<&str> = self.files.iter().map(|file| &*file.filename).collect();
        let names = names.join(", ");
        (!names.is_empty()).then(|| {
            format!("files that others added were kept; to remove one, name it in the annotation {REMOVE_FILES} in the same edit: {names}")
        })
    }
}

/// The files of requests that a write leaves out, replaces by others of their names, or takes the request's id from.
/// A manager that applied a file may take it away, as server-side apply does with what is no longer in a manifest.
pub(super) fn keep<'a>(new: &Subject<'_>, old: &'a Subject<'_>, writer: Writer<'_>) -> Kept<'a> {
    let mut kept = Kept::default();
    let mut known = BTreeSet::new();
    // no name stands twice in what is stored; in what is not, each would be looked for a new one
    let once = old.files().iter().filter(|file| known.insert(&*file.filename));
    let added: Vec<(&File<'_>, String)> = once.filter_map(|file| Some((file, request_id(file)?))).collect();
    if added.is_empty() {
        return kept;
    }
    let ids: Vec<Option<String>> = new.files().iter().map(request_id).collect();
    let at: BTreeMap<&str, usize> = new.files().iter().enumerate().map(|(i, file)| (&*file.filename, i)).collect();
    let mut taken: BTreeSet<String> =
        old.files().iter().chain(new.files()).map(|file| file.filename.clone().into_owned()).collect();
    let renamed: BTreeSet<&String> = new
        .files()
        .iter()
        .zip(&ids)
        .filter(|(file, _)| !known.contains(&*file.filename))
        .filter_map(|(_, id)| id.as_ref())
        .collect();
    let (named, own) = (named_to_be_removed(new, old), applied_by(old, writer));
    for (file, id) in added {
        let place = at.get(&*file.filename).copied();
        let is_there = place.is_some_and(|i| ids[i].as_ref() == Some(&id)) || renamed.contains(&id);
        if is_there || named.contains(&*file.filename) || own.contains(&*file.filename) {
            continue;
        }
        match place {
            Some(i) if ids[i].is_none() && new.files()[i].content == file.content => {
                kept.patch.push(add(&["spec", "markdownFiles", &i.to_string(), "requestId"], json!(id)));
            }
            Some(_) => kept.put_back(file, free_name(&file.filename, &mut taken)),
            None => kept.put_back(file, file.filename.to_string()),
        }
    }
    if new.spec.markdown_files.is_none() && !kept.patch.is_empty() {
        kept.patch.insert(0, add(&["spec", "markdownFiles"], json!([])));
    }
    kept
}

impl<'a> Kept<'a> {
    fn put_back(&mut self, file: &'a File<'_>, name: String) {
        let mut stored = json!({"filename": name, "content": file.content.text()});
        for (field, value) in &file.rest {
            stored[&**field] = serde_json::from_str(value.get()).unwrap_or_default();
        }
        self.patch.push(add(&["spec", "markdownFiles", "-"], stored));
        self.names.push(&file.filename);
        self.files.push(File { filename: Cow::Owned(name), content: file.content.clone(), rest: vec![] });
    }
}

/// The request that added a file.
fn request_id(file: &File<'_>) -> Option<String> {
    let (_, id) = file.rest.iter().find(|(field, _)| field == "requestId")?;
    serde_json::from_str(id.get()).ok()
}

/// The files that this write names as to be removed. What an earlier one named does not count again.
fn named_to_be_removed<'a>(new: &'a Subject<'_>, old: &Subject<'_>) -> BTreeSet<&'a str> {
    let names = new.annotation(REMOVE_FILES).filter(|names| old.annotation(REMOVE_FILES) != Some(names));
    names.into_iter().flat_map(|names| names.split(',')).map(str::trim).collect()
}

/// The files that the writer's manager has applied. An owner by `Update` does not count: `kubectl-edit` is one manager
/// for everybody.
fn applied_by<'a>(old: &'a Subject<'_>, writer: Writer<'_>) -> BTreeSet<&'a str> {
    let own = owners(&old.metadata).filter(|owner| owner.applies && Some(owner.manager) == writer.manager);
    let own: BTreeSet<String> = own.map(|owner| owner.file).collect();
    old.files().iter().filter(|file| own.contains(&key(file))).map(|file| &*file.filename).collect()
}

/// A name beside a file that somebody else called so meanwhile.
fn free_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let stem = name.strip_suffix(".md").unwrap_or(name);
    let mut names = (2_u32..).map(|number| format!("{stem}-{number}.md"));
    let free = names.find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

/// A warning that names the files which this write removes though another manager put them there.
pub(super) fn removed_files_of_others(
    new: &Subject<'_>,
    old: &Subject<'_>,
    kept: &[&str],
    writer: Writer<'_>,
) -> Option<String> {
    let stay: BTreeSet<&str> = new.files().iter().map(|file| &*file.filename).chain(kept.iter().copied()).collect();
    let gone: Vec<&File<'_>> = old.files().iter().filter(|file| !stay.contains(&*file.filename)).collect();
    if gone.is_empty() {
        return None;
    }
    let mut others = BTreeMap::new();
    for owner in owners(&old.metadata).filter(|owner| Some(owner.manager) != writer.manager) {
        others.entry(owner.file).or_insert(owner.manager);
    }
    let of_others = gone.into_iter().filter_map(|file| {
        let manager = others.get(&key(file))?;
        Some(format!("{} (added by {manager})", file.filename))
    });
    let names: Vec<String> = of_others.take(MAX_NAMED).collect();
    (!names.is_empty()).then(|| format!("this change removes files that others added: {}", names.join(", ")))
}

/// A manager of a file.
struct Owner<'a> {
    manager: &'a str,
    /// By server-side apply.
    applies: bool,
    /// The file's `key`.
    file: String,
}

/// What a file is called among a manager's fields.
fn key(file: &File<'_>) -> String {
    format!("k:{}", json!({ "filename": file.filename }))
}

fn owners<'a>(metadata: &'a Metadata<'_>) -> impl Iterator<Item = Owner<'a>> {
    metadata.managed_fields.iter().flatten().flat_map(|entry| owned(entry).unwrap_or_default())
}

fn owned<'a>(entry: &'a ManagedFields<'_>) -> Option<Vec<Owner<'a>>> {
    let mut fields: Value = serde_json::from_str(entry.fields_v1?.get()).ok()?;
    let Value::Object(files) = fields.pointer_mut("/f:spec/f:markdownFiles")?.take() else { return None };
    let (manager, applies) = (entry.manager.as_deref()?, entry.operation.as_deref() == Some("Apply"));
    Some(files.into_iter().map(|(file, _)| Owner { manager, applies, file }).collect())
}
