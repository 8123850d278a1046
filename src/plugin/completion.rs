//! Completion: candidates for shells and for kubectl, names of tasks and services from the cluster among them.
//!
//! It is asked on each TAB: it never says why there is nothing, and never takes longer than people wait.

use super::error::Error;
use super::{Cli, UserArgs};
use crate::client::{Filter, PAGE, User};
use crate::crd::TaskNames;
use crate::task::Summary;
use clap::{Args, CommandFactory, FromArgMatches, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use clap_complete::env::Shells;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What kubectl looks for on PATH, to complete the arguments of `kubectl taskrun`.
const FOR_KUBECTL: &str = "kubectl_complete-taskrun";
/// What the script of a shell sets when it asks.
const VARIABLE: &str = "KUBECTL_TASKRUN_COMPLETE";
/// The longest that the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// cobra's directive: the shell's own candidates, which are files.
const FILES: u8 = 0;
/// And that there are no files among them.
const NO_FILES: u8 = 4;

/// What `completion` takes.
#[derive(Args)]
#[command(
    after_help = "It completes kubectl-taskrun. For `kubectl taskrun` put a link to it on your PATH instead, which \
kubectl finds:

  ln -s \"$(command -v kubectl-taskrun)\" ~/.local/bin/kubectl_complete-taskrun

Examples:
  source <(kubectl-taskrun completion bash)
  kubectl-taskrun completion fish > ~/.config/fish/completions/kubectl-taskrun.fish"
)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script for a shell.
pub fn print(args: &CompletionArgs) -> Result<ExitCode, Error> {
    let shell = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let (name, mut script) = ("kubectl-taskrun", vec![]);
    if let Some(shell) = Shells::builtins().completer(shell) {
        shell.write_registration(VARIABLE, name, name, name, &mut script)?;
    }
    stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell or kubectl, if it is one of them that asks.
pub fn answer() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    if Path::new(&program).file_name().is_some_and(|name| name == FOR_KUBECTL) {
        let told = stdout().write_all(for_kubectl(args.collect()).as_bytes());
        return Some(if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
    None
}

/// Candidates as kubectl reads them: one a line with its description, then what to do besides.
fn for_kubectl(words: Vec<OsString>) -> String {
    let index = words.len().max(1);
    let words: Vec<OsString> = std::iter::once("kubectl-taskrun".into()).chain(words).collect();
    let current = words.get(index).cloned().unwrap_or_default();
    let folder = std::env::current_dir().ok();
    let found = complete(&mut Cli::command(), words, index, folder.as_deref()).unwrap_or_default();
    // an option is offered when it is begun, as kubectl does
    let is_option = |candidate: &CompletionCandidate| candidate.get_value().to_string_lossy().starts_with('-');
    let mut found: Vec<CompletionCandidate> = found
        .into_iter()
        .filter(|candidate| {
            !candidate.is_hide_set() && (current.to_string_lossy().starts_with('-') || !is_option(candidate))
        })
        .collect();
    // the shell knows better how to complete paths
    let has_paths = found.iter().any(|candidate| Path::new(candidate.get_value()).exists());
    found.retain(|_| !has_paths);
    let directive = if has_paths { FILES } else { NO_FILES };
    found.iter().map(|candidate| line(candidate) + "\n").collect::<String>() + &format!(":{directive}\n")
}

fn line(candidate: &CompletionCandidate) -> String {
    let value = candidate.get_value().to_string_lossy();
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    match help.lines().next() {
        Some(help) => format!("{value}\t{help}"),
        None => value.into_owned(),
    }
}

/// Names of tasks that begin so.
pub fn tasks(current: &OsStr) -> Vec<CompletionCandidate> {
    let describe = |task: Summary| (task.name, format!("{} {} {}", task.service, task.phase, task.title));
    candidates(current, fetch().into_iter().map(describe).collect())
}

/// Completes names of services.
pub fn services() -> ArgValueCompleter {
    let services = |current: &OsStr| {
        let name = |task: Summary| (task.service, String::new());
        candidates(current, fetch().into_iter().map(name).collect())
    };
    ArgValueCompleter::new(services)
}

fn candidates(current: &OsStr, found: BTreeMap<String, String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let fits = found.into_iter().filter(|(name, _)| name.starts_with(&*current));
    let candidate = |(name, help): (String, String)| {
        let help = super::text::harmless(help.trim());
        CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into()))
    };
    fits.map(candidate).collect()
}

/// The tasks of the namespace that the command line speaks of; none if there is no answer in time.
fn fetch() -> Vec<Summary> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return vec![] };
    let user = user_of(std::env::args_os().skip(1));
    let list = async {
        let tasks = user.tasks(TaskNames::ById).await.ok()?;
        Some(tasks.list(&Filter { limit: Some(PAGE.1), ..Filter::default() }).await.ok()?.tasks)
    };
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, list).await });
    // a name that still resolves, or a credential plugin that still runs, is not waited for
    runtime.shutdown_background();
    found.ok().flatten().unwrap_or_default()
}

/// Whose rights, and where, in a command line that is not whole yet.
fn user_of(words: impl Iterator<Item = OsString>) -> User {
    let command = UserArgs::augment_args(clap::Command::new("words").no_binary_name(true).ignore_errors(true));
    let known = known_words(words);
    let matches = command.try_get_matches_from(known);
    let args = matches.ok().and_then(|matches| UserArgs::from_arg_matches(&matches).ok());
    args.map(UserArgs::user).unwrap_or_default()
}

/// The options among the words that name a cluster or a namespace, with their values.
fn known_words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let names = ["-n", "--namespace", "--context", "--kubeconfig"];
    let mut known = vec![];
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        if names.contains(&text.as_str()) {
            let value = words.next().filter(|value| !value.is_empty());
            known.extend(value.map(|value| [word, value]).into_iter().flatten());
        } else if names.iter().any(|name| text.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
            || (text.starts_with("-n") && text.len() > 2)
        {
            known.push(word);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(words: &[&str]) -> String {
        for_kubectl(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn verbs_options_and_phases_are_completed_as_kubectl_reads_them() {
        assert_eq!(answer(&["lo"]), "logs\tPrint what a task's agent says\n:4\n");
        let verbs = answer(&[""]);
        assert!(verbs.contains("submit\t") && verbs.contains("watch\t") && !verbs.contains("--"), "{verbs}");
        assert!(answer(&["watch", "--un"]).starts_with("--until-done\t"));
        assert_eq!(answer(&["list", "--phase", "S"]), "Succeeded\n:4\n");
    }

    #[test]
    fn paths_are_left_to_the_shell() {
        assert_eq!(answer(&["submit", "Cargo.to"]), ":0\n");
    }

    #[test]
    fn the_cluster_is_the_one_of_the_command_line() {
        let words = ["logs", "-n", "team", "--context=c", "--tail", "3", "--kubeconfig", "/k", "task-"];
        let user = user_of(words.iter().map(OsString::from));
        assert_eq!((user.namespace.as_deref(), user.context.as_deref()), (Some("team"), Some("c")));
        assert_eq!(user.kubeconfig.as_deref(), Some(Path::new("/k")));
        assert_eq!(user_of(["logs", "-nteam", "-n"].iter().map(OsString::from)).namespace.as_deref(), Some("team"));
    }
}
