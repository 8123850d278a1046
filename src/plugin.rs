//! `kubectl taskrun`: what people do with tasks, in a terminal or a script. One file a verb, or a few alike.
//!
//! A verb reads its arguments, calls `client::Tasks` and says what came of it. What is decided is decided in
//! `task`; whatever came from the cluster goes through `text::harmless` before it reaches a terminal.

mod add_context;
mod board;
mod change;
mod completion;
mod diff;
mod error;
mod history;
mod list;
mod logs;
mod object;
mod submit;
mod table;
mod text;
mod watch;

use crate::client::{Tasks, User};
use crate::crd::TaskNames;
use crate::task;
use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Submit tasks for agents, add to their context, and see what becomes of them.
///
/// A task is a TaskRun: markdown files, of which each version is run once, as one Job. New context makes a new
/// version, which takes the place of the one that runs.
#[derive(Parser)]
#[command(name = "kubectl-taskrun", bin_name = "kubectl taskrun", version, max_term_width = 100)]
#[command(after_help = "TASK is 7, task-7, taskrun/task-7 or, where services number their tasks apart, \
SERVICE-task-7.")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    user: UserArgs,
}

/// As with kubectl.
#[derive(Args)]
#[command(next_help_heading = "Cluster")]
struct UserArgs {
    /// Namespace, otherwise the context's
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig, otherwise its present one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// File to use as kubeconfig, otherwise KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a task from markdown
    Submit(submit::SubmitArgs),
    /// Add to a task's context: makes a new version
    AddContext(add_context::AddContextArgs),
    /// List tasks
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Watch tasks live
    Watch(watch::WatchArgs),
    /// Print what a task's agent says
    Logs(logs::LogsArgs),
    /// List a task's versions, and what each changed
    History(history::HistoryArgs),
    /// Compare the files of two versions
    Diff(diff::DiffArgs),
    /// Go back to the files of an older version, as a new one
    Rollback(change::RollbackArgs),
    /// Run the present context once more, as a new version
    Rerun(change::RerunArgs),
    /// End a task's run for good
    Cancel(change::CancelArgs),
    /// Pause a task: its pod ends, and the run goes on when resumed
    Suspend(change::SuspendArgs),
    /// Let a suspended task go on
    Resume(change::ResumeArgs),
    /// Print a script that completes these commands in a shell
    Completion(completion::CompletionArgs),
}

/// The task that a verb is about.
#[derive(Args)]
struct TaskArg {
    /// The task: 7, task-7, taskrun/task-7 or SERVICE-task-7
    #[arg(value_name = "TASK", value_parser = task::parse_name, add = ArgValueCompleter::new(completion::tasks))]
    task: String,
}

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    // ring is the one provider that is built in; a second call finds it set
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Some(code) = completion::answer() {
        return code;
    }
    let cli = Cli::parse();
    let ends_with = if matches!(cli.verb, Verb::Diff(_)) { diff::TROUBLE } else { 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(run(cli)));
    result.unwrap_or_else(|error| error.tell(ends_with))
}

async fn run(cli: Cli) -> Result<ExitCode, Error> {
    let user = cli.user.user();
    let tasks = user.tasks(TaskNames::ById);
    match cli.verb {
        Verb::Submit(args) => submit::run(args, &user).await,
        Verb::AddContext(args) => add_context::run(args, &tasks.await?).await,
        Verb::List(args) => list::run(args, &user).await,
        Verb::Watch(args) => watch::run(args, &tasks.await?).await,
        Verb::Logs(args) => logs::run(args, &tasks.await?).await,
        Verb::History(args) => history::run(args, &tasks.await?).await,
        Verb::Diff(args) => diff::run(args, &tasks.await?).await,
        Verb::Rollback(args) => change::rollback(args, &tasks.await?).await,
        Verb::Rerun(args) => change::rerun(args, &tasks.await?).await,
        Verb::Cancel(args) => change::cancel(args, &tasks.await?).await,
        Verb::Suspend(args) => change::suspend(args, &tasks.await?).await,
        Verb::Resume(args) => change::resume(args, &tasks.await?).await,
        Verb::Completion(args) => completion::print(&args),
    }
}

impl UserArgs {
    fn user(self) -> User {
        User { kubeconfig: self.kubeconfig, context: self.context, namespace: self.namespace }
    }
}

/// Puts the place of an error into words: the namespace may not be there, which a list does not tell.
async fn in_namespace(tasks: &Tasks, error: task::Error) -> Error {
    match error.code == task::Code::NotFound && tasks.lacks_namespace().await {
        true => Error::NoNamespace(tasks.namespace.clone()),
        false => Error::at(tasks, error),
    }
}
