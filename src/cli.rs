//! The command line: one file a subcommand.

mod check;
mod crds;
mod metrics;
mod migrate_helm;
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
    /// Make TaskRuns of the predecessor's Helm releases: without options a plan, and nothing is written
    MigrateHelm(migrate_helm::MigrateHelmArgs),
    /// See whether the API server asks the webhook and goes by what it says, by two dry runs
    Check(check::CheckArgs),
    /// Print the CRDs as YAML
    Crds(crds::CrdsArgs),
    /// Print the table of all metrics as Markdown
    Metrics(metrics::MetricsArgs),
}

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(*args).map(|()| ExitCode::SUCCESS),
        Command::Uninstall(args) => uninstall::run(&args).map(|()| ExitCode::SUCCESS),
        Command::MigrateHelm(args) => migrate_helm::run(&args),
        Command::Check(args) => check::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Crds(args) => crds::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Metrics(args) => metrics::run(&args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("taskrun-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
