//! `kubectl taskrun diff`: the files of two versions, as `diff -u` shows them.

use super::error::Error;
use super::history::kept_files;
use super::table::Paper;
use super::text::harmless_line;
use super::{TaskArg, in_namespace};
use crate::client::Tasks;
use crate::crd::TaskRun;
use crate::task::{Files, changes, texts, versions};
use anstyle::{AnsiColor, Style};
use clap::Args;
use similar::{ChangeTag, TextDiff};
use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

/// Exit code of an error, as `diff` and `kubectl diff` have it: 1 says that there are differences.
pub const TROUBLE: u8 = 2;
/// After so long the rest of a file is shown as replaced.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `diff` takes.
#[derive(Args)]
#[command(after_help = "The exit code is 0 if the versions have the same files, 1 if not, 2 on an error.

Examples:
  kubectl taskrun diff 7
  kubectl taskrun diff 7 1 3")]
pub struct DiffArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Older version; otherwise the last but one that is kept
    #[arg(value_name = "V1", value_parser = clap::value_parser!(u32).range(1..))]
    old: Option<u32>,
    /// Newer version; otherwise the present one
    #[arg(value_name = "V2", value_parser = clap::value_parser!(u32).range(1..))]
    new: Option<u32>,
}

/// Prints the differences.
pub async fn run(args: DiffArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let task_run = match tasks.get(&args.task.task).await {
        Ok(task_run) => task_run,
        Err(error) => return Err(in_namespace(tasks, error).await),
    };
    let present = task_run.spec.context_version;
    let ((old, before), (new, after)) = match (args.old, args.new) {
        (Some(old), new) => {
            let new = new.unwrap_or(present);
            let fetch = async |version| match tasks.files(&task_run, version).await {
                Ok(files) => Ok(texts(&files)),
                Err(error) => Err(Error::at(tasks, error)),
            };
            ((old, fetch(old).await?), (new, fetch(new).await?))
        }
        (None, _) => last_two(tasks, &task_run).await?,
    };
    let text = difference(&Paper::stdout(), (old, &before), (new, &after));
    stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::from(u8::from(!text.is_empty())))
}

/// The last two versions whose files are kept.
async fn last_two(tasks: &Tasks, task_run: &TaskRun) -> Result<((u32, Files), (u32, Files)), Error> {
    let kept = kept_files(tasks, task_run, &versions(task_run)).await.map_err(|error| Error::at(tasks, error))?;
    let mut newest = kept.into_iter().rev();
    match (newest.next(), newest.next()) {
        (Some(new), Some(old)) => Ok((old, new)),
        _ => Err(Error::Input("there is nothing to compare: the files of only one version are kept".to_owned())),
    }
}

/// Everything that differs, file by file; nothing where they are the same.
fn difference(paper: &Paper, (old, before): (u32, &Files), (new, after): (u32, &Files)) -> String {
    let mut text = String::new();
    for name in changes(before, after).keys() {
        let side = |version: u32, files: &Files| match files.contains_key(name) {
            true => format!("version {version}/{name}"),
            false => "/dev/null".to_owned(),
        };
        let content = |files: &Files| files.get(name).cloned().unwrap_or_default();
        let bold = Style::new().bold();
        line(&mut text, paper, bold, &format!("--- {}", side(old, before)));
        line(&mut text, paper, bold, &format!("+++ {}", side(new, after)));
        hunks(&mut text, paper, &content(before), &content(after));
    }
    text
}

fn hunks(text: &mut String, paper: &Paper, before: &str, after: &str) {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
    for hunk in diff.unified_diff().iter_hunks() {
        line(text, paper, colour(AnsiColor::Cyan), &hunk.header().to_string());
        for change in hunk.iter_changes() {
            let style = match change.tag() {
                ChangeTag::Delete => colour(AnsiColor::Red),
                ChangeTag::Insert => colour(AnsiColor::Green),
                ChangeTag::Equal => Style::new(),
            };
            let content = change.value();
            let content = content.strip_suffix('\n').unwrap_or(content);
            line(text, paper, style, &format!("{}{}", change.tag(), content));
            if change.missing_newline() {
                line(text, paper, Style::new(), "\\ No newline at end of file");
            }
        }
    }
}

fn line(text: &mut String, paper: &Paper, style: Style, content: &str) {
    // writing to memory cannot fail
    let _ = writeln!(text, "{}", paper.paint(style, &harmless_line(content)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn a_difference_is_a_patch() {
        let before = files(&[("gone.md", "x"), ("same.md", "s\n"), ("task.md", "a\nb\nc\n")]);
        let after = files(&[("new.md", "n\n"), ("same.md", "s\n"), ("task.md", "a\nB\tb\u{1b}[2J\nc\n")]);
        let plain = Paper { has_colour: false, columns: None };
        assert_eq!(
            difference(&plain, (1, &before), (3, &after)),
            "--- version 1/gone.md\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\\ No newline at end of file\n\
             --- /dev/null\n+++ version 3/new.md\n@@ -0,0 +1 @@\n+n\n\
             --- version 1/task.md\n+++ version 3/task.md\n@@ -1,3 +1,3 @@\n a\n-b\n+B\tb\\u{1b}[2J\n c\n"
        );
        assert_eq!(difference(&plain, (1, &before), (2, &before)), "");
    }

    #[test]
    fn what_goes_is_red_and_what_comes_is_green() {
        let paper = Paper { has_colour: true, columns: None };
        let text = difference(&paper, (1, &files(&[("a.md", "1\n")])), (2, &files(&[("a.md", "2\n")])));
        assert!(text.contains("\u{1b}[31m-1\u{1b}[0m\n") && text.contains("\u{1b}[32m+2\u{1b}[0m\n"), "{text:?}");
    }
}
