//! Admission: what the API server is told about a write to a `TaskRun`.
//!
//! A pure function of (old object, new object, user). The API server calls it again for every retry
//! of a contended write, so nothing may be counted or remembered here: the version is `old + 1` or it
//! is `old`. It judges raw JSON through `Subject`, which ignores fields that it does not know: an
//! object is never taken apart and put together again, which would drop fields of newer schemas.

mod content;
mod kept;
mod markdown;
mod mutate;
mod reason;
mod review;
mod validate;

#[cfg(test)]
mod tests;

pub use content::Content;
pub use markdown::is_blank;
pub use mutate::{Mutation, mutate};
pub use reason::Reason;
pub use review::{About, Decision, MAX_REVIEW_BYTES, Operation, Reviewed, Webhook, review};
pub use validate::{Violation, json_bytes, validate};

use crate::crd::TaskRun;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use std::marker::PhantomData;

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `request.userInfo.username`.
    pub username: &'a str,
    /// The field manager, where the request names one.
    pub manager: Option<&'a str>,
    /// The span that tells of this write, where traces are on: a `traceparent`.
    pub traceparent: Option<&'a str>,
}

/// What admission reads of a `TaskRun`. Everything is optional: mutating admission sees objects
/// before the schema was checked.
#[derive(Deserialize, Debug, Default)]
pub struct Subject<'a> {
    /// `metadata`.
    #[serde(borrow, deserialize_with = "from_map")]
    pub metadata: Metadata<'a>,
    /// `spec`: an object without one is malformed.
    #[serde(borrow, deserialize_with = "from_map")]
    pub spec: Spec<'a>,
    /// `status`: in a creation only a copy of a stored object has one.
    #[serde(borrow, default)]
    pub status: Option<&'a RawValue>,
}

/// What admission reads of `metadata`.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata<'a> {
    /// Absent before `generateName` was carried out.
    pub name: Option<String>,
    /// Absent in a creation that is mutated.
    pub uid: Option<String>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Finalizers.
    pub finalizers: Option<Vec<String>>,
    /// Who owns which field.
    #[serde(borrow)]
    pub managed_fields: Option<Vec<ManagedFields<'a>>>,
}

/// One manager's fields.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedFields<'a> {
    /// Name of the manager.
    pub manager: Option<String>,
    /// `Apply` or `Update`.
    pub operation: Option<String>,
    /// The fields, read only where needed: they are large.
    #[serde(borrow)]
    pub fields_v1: Option<&'a RawValue>,
}

/// What admission reads of `spec`.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// `spec.taskId`.
    pub task_id: Option<i64>,
    /// `spec.serviceName`.
    pub service_name: Option<String>,
    /// `spec.agentName`.
    pub agent_name: Option<String>,
    /// `spec.contextVersion`.
    pub context_version: Option<i64>,
    /// `spec.markdownFiles`.
    #[serde(borrow)]
    pub markdown_files: Option<Vec<File<'a>>>,
    /// `spec.env`.
    #[serde(borrow)]
    pub env: Option<Vec<Env<'a>>>,
    /// `spec.suspend`.
    pub suspend: Option<bool>,
}

/// One markdown file.
#[derive(Debug)]
pub struct File<'a> {
    /// Name.
    pub filename: Cow<'a, str>,
    /// Markdown.
    pub content: Content<'a>,
    /// All else, as it was read.
    pub rest: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// One environment variable.
#[derive(Deserialize, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Env<'a> {
    /// Name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Value.
    #[serde(borrow, default)]
    pub value: Cow<'a, str>,
}

impl<'a> Subject<'a> {
    /// `spec.markdownFiles`, empty where absent.
    #[must_use]
    pub fn files(&self) -> &[File<'a>] {
        self.spec.markdown_files.as_deref().unwrap_or_default()
    }

    /// `spec.env`, empty where absent.
    #[must_use]
    pub fn env(&self) -> &[Env<'a>] {
        self.spec.env.as_deref().unwrap_or_default()
    }

    /// Whether both have the same content: what a version is a version of. Order does not count.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_content_with(&[], other)
    }

    /// The same, with `more` files beside those of `self`.
    fn same_content_with(&self, more: &[File<'_>], other: &Self) -> bool {
        let files = self.files().iter().chain(more);
        self.spec.agent_name == other.spec.agent_name
            && same_set(files.map(File::text).collect(), other.files().iter().map(File::text).collect())
            && same_set(self.env().iter().collect(), other.env().iter().collect())
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

impl File<'_> {
    /// What counts as content.
    fn text(&self) -> (&str, &Content<'_>) {
        (&self.filename, &self.content)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for File<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = File<'de>;
            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a file")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File<'de>, A::Error> {
                let (mut filename, mut content, mut rest) = (None, None, vec![]);
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "filename" if filename.is_none() => filename = Some(map.next_value::<Text<'de>>()?.0),
                        "content" if content.is_none() => content = Some(map.next_value()?),
                        "filename" | "content" => return Err(Error::custom("stands twice")),
                        _ => rest.push((name, map.next_value()?)),
                    }
                }
                let filename = filename.ok_or_else(|| Error::missing_field("filename"))?;
                let content = content.ok_or_else(|| Error::missing_field("content"))?;
                Ok(File { filename, content, rest })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Borrowed where it has no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a struct from a JSON object alone. Derived code takes a list of its fields as well, which no
/// patch of ours would fit.
fn from_map<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct FromMap<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for FromMap<T> {
        type Value = T;
        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_map(FromMap(PhantomData))
}

fn same_set<T: Ord>(mut a: Vec<T>, mut b: Vec<T>) -> bool {
    if a.len() == b.len() && a != b {
        a.sort_unstable();
        b.sort_unstable();
    }
    a == b
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}

/// A stored object, as the reconciler has it.
impl<'a> From<&'a TaskRun> for Subject<'a> {
    fn from(task_run: &'a TaskRun) -> Self {
        let spec = &task_run.spec;
        let file = |f: &'a crate::crd::MarkdownFile| File {
            filename: Cow::Borrowed(&f.filename),
            content: Content::Text(Cow::Borrowed(&f.content)),
            rest: vec![],
        };
        let env = |e: &'a crate::crd::EnvVar| Env { name: Cow::Borrowed(&e.name), value: Cow::Borrowed(&e.value) };
        Self {
            metadata: Metadata { name: task_run.metadata.name.clone(), ..Metadata::default() },
            status: None,
            spec: Spec {
                task_id: Some(spec.task_id.into()),
                service_name: Some(spec.service_name.clone()),
                agent_name: Some(spec.agent_name.clone()),
                context_version: Some(spec.context_version.into()),
                markdown_files: Some(spec.markdown_files.iter().map(file).collect()),
                env: Some(spec.env.iter().map(env).collect()),
                suspend: spec.suspend,
            },
        }
    }
}
