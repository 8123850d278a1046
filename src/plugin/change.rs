//! `kubectl taskrun rollback`, `rerun`, `cancel`, `suspend` and `resume`: one change of a task, and what happens now.

use super::error::Error;
use super::object::{Format, print_changed};
use super::{TaskArg, in_namespace};
use crate::client::{Expected, Tasks};
use crate::crd::{Phase, TaskRun};
use crate::task;
use clap::Args;
use kube::ResourceExt;
use std::process::ExitCode;

/// The object instead of a sentence.
#[derive(Args)]
struct OutputArg {
    /// Print the object instead of a sentence
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// What `rollback` takes.
#[derive(Args)]
#[command(
    after_help = "Files that were added since are removed; \"kubectl taskrun history\" shows which versions are kept.

Example:
  kubectl taskrun rollback 7 1"
)]
pub struct RollbackArgs {
    #[command(flatten)]
    task: TaskArg,
    /// The version whose files to go back to
    #[arg(value_name = "V", value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    #[command(flatten)]
    output: OutputArg,
}

/// What `rerun` takes.
#[derive(Args)]
#[command(after_help = "Lifts \"cancel\". A run that is going on is ended first.

Examples:
  kubectl taskrun rerun 7
  kubectl taskrun rerun 7 --if-version 2   # not if somebody has added context meanwhile")]
pub struct RerunArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Only if this is the present version
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(u32).range(1..))]
    if_version: Option<u32>,
    #[command(flatten)]
    output: OutputArg,
}

/// What `cancel` takes.
#[derive(Args)]
#[command(after_help = "The Job and its log are kept. \"kubectl taskrun rerun\" runs the context again.

Example:
  kubectl taskrun cancel 7")]
pub struct CancelArgs {
    #[command(flatten)]
    task: TaskArg,
    #[command(flatten)]
    output: OutputArg,
}

/// What `suspend` takes.
#[derive(Args)]
#[command(after_help = "Example:
  kubectl taskrun suspend 7")]
pub struct SuspendArgs {
    #[command(flatten)]
    task: TaskArg,
    #[command(flatten)]
    output: OutputArg,
}

/// What `resume` takes.
#[derive(Args)]
#[command(after_help = "Example:
  kubectl taskrun resume 7")]
pub struct ResumeArgs {
    #[command(flatten)]
    task: TaskArg,
    #[command(flatten)]
    output: OutputArg,
}

/// Makes the files of an older version the present ones.
pub async fn rollback(args: RollbackArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let (name, version) = (&args.task.task, args.version);
    let change = async || tasks.rollback(name, version, &Expected::default()).await;
    carry_out(tasks, name, args.output, change, |before, after| rolled_back(before, after, version)).await
}

/// Runs the present context once more.
pub async fn rerun(args: RerunArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let (name, expected) = (&args.task.task, Expected { version: args.if_version, uid: None });
    carry_out(tasks, name, args.output, async || tasks.rerun(name, &expected).await, run_again).await
}

/// Ends the present run for good.
pub async fn cancel(args: CancelArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let name = &args.task.task;
    carry_out(tasks, name, args.output, async || tasks.cancel(name, &Expected::default()).await, cancelled).await
}

/// Pauses.
pub async fn suspend(args: SuspendArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let name = &args.task.task;
    carry_out(tasks, name, args.output, async || tasks.suspend(name, true, &Expected::default()).await, suspended).await
}

/// Lets it go on.
pub async fn resume(args: ResumeArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let name = &args.task.task;
    carry_out(tasks, name, args.output, async || tasks.suspend(name, false, &Expected::default()).await, resumed).await
}

/// Changes a task and says what comes of it, from the task as it was before and as it is now.
async fn carry_out(
    tasks: &Tasks,
    name: &str,
    output: OutputArg,
    change: impl AsyncFnOnce() -> Result<TaskRun, task::Error>,
    sentence: impl Fn(&TaskRun, &TaskRun) -> String,
) -> Result<ExitCode, Error> {
    let both = async { Ok((tasks.get(name).await?, change().await?)) };
    match both.await {
        Ok((before, after)) => print_changed(&after, &sentence(&before, &after), output.output)?,
        Err(error) => return Err(in_namespace(tasks, error).await),
    }
    Ok(ExitCode::SUCCESS)
}

fn rolled_back(before: &TaskRun, after: &TaskRun, version: u32) -> String {
    let present = after.spec.context_version;
    match is_unchanged(before, after) {
        true => format!("unchanged: version {present} has the files of version {version} already"),
        false => format!("rolled back: version {present} has the files of version {version}{}", held(after)),
    }
}

fn run_again(_: &TaskRun, after: &TaskRun) -> String {
    let present = after.spec.context_version;
    format!("run again: version {present} has the files of version {}{}", present.saturating_sub(1), held(after))
}

fn cancelled(before: &TaskRun, after: &TaskRun) -> String {
    let present = after.spec.context_version;
    match after.spec.cancel == Some(true) {
        true if is_unchanged(before, after) => "unchanged: it is cancelled already".to_owned(),
        true => format!("cancelled: version {present} ends for good"),
        false => format!("unchanged: version {present} has ended"),
    }
}

fn suspended(before: &TaskRun, after: &TaskRun) -> String {
    let present = after.spec.context_version;
    match phase(after) {
        _ if is_unchanged(before, after) => "unchanged: it is suspended already".to_owned(),
        _ if follows_adopted(after) => {
            "suspended, but the Job that was adopted goes on: `cancel` ends it; no other version starts until resumed"
                .to_owned()
        }
        Some(Phase::Running) => format!("suspended: the pod of version {present} ends, and it goes on when resumed"),
        Some(Phase::Succeeded | Phase::Failed) => {
            format!("suspended: version {present} had ended before, and the next one starts when resumed")
        }
        _ => format!("suspended: version {present} starts when resumed"),
    }
}

fn resumed(before: &TaskRun, after: &TaskRun) -> String {
    let (present, name) = (after.spec.context_version, after.name_any());
    match phase(after) {
        _ if is_unchanged(before, after) => "unchanged: it is not suspended".to_owned(),
        _ if after.spec.cancel == Some(true) => {
            format!("resumed, but it is cancelled: \"kubectl taskrun rerun {name}\" runs it again")
        }
        Some(Phase::Succeeded | Phase::Failed) => format!("resumed: version {present} had ended before"),
        _ => format!("resumed: version {present} goes on"),
    }
}

/// Whether the change found everything as it was to be: the API server counts changes of the spec.
fn is_unchanged(before: &TaskRun, after: &TaskRun) -> bool {
    before.metadata.generation == after.metadata.generation && before.metadata.uid == after.metadata.uid
}

/// The phase of the present version, if it was looked at.
fn phase(task_run: &TaskRun) -> Option<Phase> {
    let status = task_run.status.as_ref()?;
    status.phase.filter(|_| status.context_version == Some(task_run.spec.context_version))
}

/// Whether what goes on is somebody else's Job, which `suspend` leaves alone.
fn follows_adopted(task_run: &TaskRun) -> bool {
    task_run.adoption().is_some() || task_run.runs().iter().any(|run| run.outcome.is_none() && task_run.is_adopted(run))
}

fn held(task_run: &TaskRun) -> &'static str {
    if task_run.spec.suspend == Some(true) { "; it is suspended, and starts when resumed" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task_run(generation: u32, phase: &str) -> TaskRun {
        serde_json::from_value(json!({"apiVersion": "orchestrator.io/v1", "kind": "TaskRun",
            "metadata": {"name": "task-7", "generation": generation},
            "spec": {"taskId": 7, "serviceName": "auth", "agentName": "a", "contextVersion": 4},
            "status": {"phase": phase, "contextVersion": 4}}))
        .expect("a TaskRun")
    }

    #[test]
    fn what_was_so_already_is_unchanged() {
        let task = task_run(3, "Running");
        for sentence in
            [rolled_back(&task, &task, 1), cancelled(&task, &task), suspended(&task, &task), resumed(&task, &task)]
        {
            assert!(sentence.starts_with("unchanged: "), "{sentence}");
        }
    }

    #[test]
    fn what_happens_now_depends_on_what_goes_on() {
        let before = task_run(3, "Running");
        for (phase, words) in [
            ("Running", ["the pod of version 4 ends", "version 4 goes on"]),
            ("Pending", ["version 4 starts when resumed", "version 4 goes on"]),
            ("Failed", ["the next one starts", "had ended before"]),
        ] {
            let after = task_run(4, phase);
            let sentences = [suspended(&before, &after), resumed(&before, &after)];
            for (sentence, words) in sentences.iter().zip(words) {
                assert!(sentence.contains(words), "{phase}: {sentence}");
            }
        }
        assert_eq!(cancelled(&before, &task_run(3, "Running")), "unchanged: version 4 has ended");
        let mut cancel = task_run(4, "Running");
        cancel.spec.cancel = Some(true);
        assert_eq!(cancelled(&before, &cancel), "cancelled: version 4 ends for good");
        assert_eq!(cancelled(&cancel, &cancel), "unchanged: it is cancelled already");
        let mut adopted = task_run(4, "Running");
        let run = json!({"contextVersion": 1, "jobName": "auth-task-7-claude-code"});
        adopted.status.as_mut().expect("a status").runs = vec![serde_json::from_value(run).expect("a run")];
        assert!(suspended(&before, &adopted).contains("adopted goes on"));
        let mut held = task_run(4, "Pending");
        held.spec.suspend = Some(true);
        assert!(run_again(&before, &held).ends_with("it is suspended, and starts when resumed"));
        held.spec.cancel = Some(true);
        assert!(resumed(&before, &held).contains("kubectl taskrun rerun task-7"));
    }
}
