//! `kubectl taskrun history`: what became of each version, and what it changed.

use super::error::{Error, note};
use super::object::{print_json, print_yaml};
use super::table::{Cell, Paper};
use super::{TaskArg, in_namespace, text};
use crate::client::Tasks;
use crate::clock::now;
use crate::crd::TaskRun;
use crate::task::{self, Change, Code, Files, Version, changes, versions};
use clap::{Args, ValueEnum};
use futures::stream::{self, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stdout};
use std::process::ExitCode;

const HEADER: [&str; 7] = ["VERSION", "STATE", "ATTEMPTS", "STARTED", "TOOK", "BY", "CHANGES"];
/// Versions whose files are asked for at once.
const AT_ONCE: usize = 8;

#[derive(Args)]
#[command(
    after_help = "CHANGES are files that were +added, ~changed or -removed; ? where the files of the version, or \
of the one before it, are not kept.

Example:
  kubectl taskrun history 7"
)]
pub struct HistoryArgs {
    #[command(flatten)]
    task: TaskArg,
    /// As JSON or YAML
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

/// What a version changed, if that is known.
type Changes = Option<BTreeMap<String, Change>>;

/// Prints the versions.
pub async fn run(args: HistoryArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let task_run = match tasks.get(&args.task.task).await {
        Ok(task_run) => task_run,
        Err(error) => return Err(in_namespace(tasks, error).await),
    };
    let versions = versions(&task_run);
    let files = kept_files(tasks, &task_run, &versions).await.map_err(|error| Error::at(tasks, error))?;
    let changes = changes_of(&versions, &files);
    match args.output {
        None => print_table(&versions, &changes)?,
        Some(output) => {
            let document = document(&task_run, &versions, &changes);
            match output {
                Output::Json => print_json(&document)?,
                Output::Yaml => print_yaml(&document)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of those versions of which they are kept and may be read.
pub async fn kept_files(
    tasks: &Tasks,
    task_run: &TaskRun,
    versions: &[Version],
) -> Result<BTreeMap<u32, Files>, task::Error> {
    // and of the one before each, which may not be recorded yet
    let numbers = versions.iter().flat_map(|version| [version.number.saturating_sub(1), version.number]);
    let numbers: BTreeSet<u32> = numbers.filter(|number| *number > 0).collect();
    let fetch = |number| async move { (number, tasks.files(task_run, number).await) };
    let mut found = stream::iter(numbers).map(fetch).buffer_unordered(AT_ONCE);
    let (mut kept, mut refused) = (BTreeMap::new(), None);
    while let Some((number, files)) = found.next().await {
        match files {
            Ok(files) => drop(kept.insert(number, task::texts(&files))),
            Err(error) if error.code == Code::NotFound => {}
            Err(error) if error.code == Code::Forbidden => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = refused {
        note(&format!("warning: the files of older versions cannot be read: {}", text::harmless(&error.message)));
    }
    Ok(kept)
}

/// What each version changed, where its files and those of the version before it are kept.
fn changes_of(versions: &[Version], files: &BTreeMap<u32, Files>) -> Vec<Changes> {
    let nothing = Files::new();
    let of = |version: &Version| {
        let before = if version.number == 1 { Some(&nothing) } else { files.get(&(version.number - 1)) };
        Some(changes(before?, files.get(&version.number)?))
    };
    versions.iter().map(of).collect()
}

fn print_table(versions: &[Version], changes: &[Changes]) -> Result<(), Error> {
    let now = Time(now());
    let rows: Vec<Vec<Cell>> =
        versions.iter().zip(changes).map(|(version, changes)| row(version, changes, &now)).collect();
    for line in Paper::stdout().table(&HEADER, &rows) {
        writeln!(stdout(), "{line}")?;
    }
    Ok(())
}

fn row(version: &Version, changes: &Changes, now: &Time) -> Vec<Cell> {
    let run = &version.run;
    vec![
        Cell::from(version.number.to_string()),
        Cell::state(version.state),
        Cell::from(run.attempts.unwrap_or_default().to_string()),
        Cell::from(run.start_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default()),
        Cell::from(version.seconds(now).map(text::elapsed).unwrap_or_default()),
        Cell::from(run.changed_by.as_deref().unwrap_or_default()),
        Cell::from(changes_text(changes)),
    ]
}

fn changes_text(changes: &Changes) -> String {
    let Some(changes) = changes else { return "?".to_owned() };
    let sign = |change: &Change| match change {
        Change::Added => '+',
        Change::Changed => '~',
        Change::Removed => '-',
    };
    let signed: Vec<String> = changes.iter().map(|(name, change)| format!("{}{name}", sign(change))).collect();
    if signed.is_empty() { "none".to_owned() } else { signed.join(" ") }
}

fn document(task_run: &TaskRun, versions: &[Version], changes: &[Changes]) -> Value {
    let version = |(version, changes): (&Version, &Changes)| {
        let run = &version.run;
        json!({
            "version": version.number, "state": version.state, "attempts": run.attempts.unwrap_or_default(),
            "changedBy": run.changed_by, "startTime": run.start_time, "completionTime": run.completion_time,
            "jobName": run.job_name, "message": run.message, "changes": changes,
        })
    };
    let versions: Vec<Value> = versions.iter().zip(changes).map(version).collect();
    json!({"name": task_run.name_any(), "namespace": task_run.namespace(), "versions": versions})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn changes_are_told_where_both_sides_are_kept() {
        let versions: Vec<Version> = (1..=5).map(|number| Version { number, ..Version::default() }).collect();
        let task = files(&[("task.md", "1")]);
        let more = files(&[("task.md", "2"), ("more.md", "1")]);
        let kept = BTreeMap::from([(1, task.clone()), (2, more.clone()), (3, more), (5, task)]);
        let texts: Vec<String> = changes_of(&versions, &kept).iter().map(changes_text).collect();
        assert_eq!(texts, ["+task.md", "+more.md ~task.md", "none", "?", "?"]);
    }

    #[test]
    fn the_document_says_null_where_nothing_is_known() {
        let task_run = TaskRun::new("task-1", crate::crd::TaskRunSpec::default());
        let found = versions(&task_run);
        let document = document(&task_run, &found, &[None]);
        assert_eq!(document["versions"][0]["changes"], Value::Null);
        assert_eq!(document["versions"][0]["state"], "Pending");
    }
}
