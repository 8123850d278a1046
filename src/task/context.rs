//! Adding to a context: one file a request, found again by the request's id.

use crate::admission::json_bytes;
use crate::crd::{MAX_CONTENT_BYTES, MAX_OBJECT_BYTES, MarkdownFile, TaskRun};

/// Longest id of a request, in characters: as long as `requestId` may be.
pub const MAX_REQUEST_ID: usize = 128;
/// What names of added files begin with.
const FILE_PREFIX: &str = "context-v";
/// What a file costs in the object besides its content, in bytes: its entry, and its fields in `managedFields`.
const FILE_OVERHEAD: usize = 1024;

/// Whether a client may call its request so: visible ASCII.
#[must_use]
pub fn is_request_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `context-v{N}.md`, where N is the version that the file brings; `context-v{N}-2.md` where that is taken.
#[must_use]
pub fn next_filename(task_run: &TaskRun) -> String {
    let version = task_run.spec.context_version.saturating_add(1);
    let is_free = |name: &String| task_run.spec.markdown_files.iter().all(|file| file.filename != *name);
    let first = std::iter::once(format!("{FILE_PREFIX}{version}.md"));
    let later = (2_u32..).map(|number| format!("{FILE_PREFIX}{version}-{number}.md"));
    first.chain(later).find(is_free).unwrap_or_default()
}

/// The version that a file of [`next_filename`] brought.
#[must_use]
pub fn version_of(filename: &str) -> Option<u32> {
    let rest = filename.strip_prefix(FILE_PREFIX)?.strip_suffix(".md")?;
    rest.split('-').next()?.parse().ok()
}

/// The file that this request has added before.
#[must_use]
pub fn added_by<'a>(task_run: &'a TaskRun, request_id: &str) -> Option<&'a MarkdownFile> {
    task_run.spec.markdown_files.iter().find(|file| file.request_id.as_deref() == Some(request_id))
}

/// Why the present version does not run as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It runs when the task is run again.
    Cancelled,
    /// It runs when the task is resumed.
    Suspended,
    /// It runs when an older run has ended (`AfterCompletion`).
    Waiting,
}

/// What holds the present version, if anything does.
#[must_use]
pub fn held(task_run: &TaskRun) -> Option<Held> {
    match (task_run.spec.cancel == Some(true), task_run.spec.suspend == Some(true)) {
        (true, _) => Some(Held::Cancelled),
        (_, true) => Some(Held::Suspended),
        _ => task_run.run_waited_for().map(|_| Held::Waiting),
    }
}

/// What still fits into a context, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of markdown, in all files: a ConfigMap holds no more.
    pub content: usize,
    /// Of the object as the API server's JSON, in which `<`, `>` and `&` take six bytes.
    pub json: usize,
}

impl Room {
    /// Whether a text fits.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        text.len() <= self.content && json_bytes(&text) + FILE_OVERHEAD <= self.json
    }

    /// Bytes of plain text that are left.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        // the quotes are JSON, too
        self.content.min(self.json.saturating_sub(FILE_OVERHEAD + 2))
    }
}

/// What still fits into this TaskRun's context.
#[must_use]
pub fn room(task_run: &TaskRun) -> Room {
    let content: usize = task_run.spec.markdown_files.iter().map(|file| file.content.len()).sum();
    Room {
        content: MAX_CONTENT_BYTES.saturating_sub(content),
        json: MAX_OBJECT_BYTES.saturating_sub(json_bytes(task_run)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_run(files: &[(&str, &str)]) -> TaskRun {
        let mut task_run = TaskRun::new("task-1", crate::crd::TaskRunSpec::default());
        task_run.spec.context_version = 3;
        task_run.spec.markdown_files = files
            .iter()
            .map(|(name, content)| MarkdownFile {
                filename: (*name).into(),
                content: (*content).into(),
                request_id: None,
            })
            .collect();
        task_run
    }

    #[test]
    fn a_file_is_named_after_the_version_that_it_brings() {
        assert_eq!(next_filename(&task_run(&[("task.md", "x"), ("context-v5.md", "x")])), "context-v4.md");
        let taken = task_run(&[("context-v4.md", "x"), ("context-v4-2.md", "x")]);
        assert_eq!(next_filename(&taken), "context-v4-3.md");
        for (name, version) in
            [("context-v4.md", Some(4)), ("context-v4-3.md", Some(4)), ("context-vx.md", None), ("task.md", None)]
        {
            assert_eq!(version_of(name), version, "{name}");
        }
    }

    #[test]
    fn room_is_what_content_and_json_leave() {
        let full = task_run(&[("task.md", &"x".repeat(MAX_CONTENT_BYTES - 10))]);
        assert!(room(&full).fits("0123456789") && !room(&full).fits("0123456789a"));
        assert_eq!(room(&full).bytes_left(), 10);
        let escaped = task_run(&[("task.md", &"<".repeat(200_000))]);
        assert!(room(&escaped).content > 700_000 && room(&escaped).json < 120_000);
        assert!(!room(&escaped).fits(&"<".repeat(20_000)) && room(&escaped).fits(&"x".repeat(20_000)));
    }

    #[test]
    fn request_ids_are_visible_and_short() {
        assert!(is_request_id("a") && is_request_id(&"x".repeat(128)));
        for bad in ["", "a b", "é", "a\n", &"x".repeat(129)] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
    }
}
