//! The command line: one file a subcommand.

mod crds;
mod run;
mod uninstall;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs a task's markdown context as exactly one Kubernetes Job per context version.
#[derive(Parser)]
#[command(name = "taskrun-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the admission webhook and reconcile TaskRuns
    Run(Box<run::RunArgs>),
    /// Take out of the cluster what would be in the way without the operator: the webhook configurations, the
    /// finalizers of TaskRuns, its Secret and its Lease. TaskRuns, Jobs and CRDs stay. End the operator first
    Uninstall(uninstall::UninstallArgs),
    /// Print the CRDs as YAML
    Crds(crds::CrdsArgs),
}

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Crds(args) => crds::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("taskrun-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
