//! `taskrun-operator migrate-helm`: the releases of a namespace become TaskRuns.

use crate::client::ApiServer;
use crate::crd::TaskNames;
use crate::helm::{Action, Mapping, table};
use crate::migration::{Migration, Report, Step};
use crate::telemetry;
use clap::{Args, ValueEnum};
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit codes beside 0 (done), 1 (failed) and 2 (the arguments are wrong).
const NOTHING_TO_DO: u8 = 3;
const SKIPPED: u8 = 4;

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done, or there is something to do; 1 something failed; 2 wrong arguments; 3 nothing to do; 4 something was skipped, see its reason."
)]
pub struct MigrateHelmArgs {
    /// Namespace of the releases. Default: that of the kubeconfig's context, or of the pod
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    #[command(flatten)]
    step: StepArgs,

    /// What is read where: a YAML file like the one that --print-mapping prints
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,

    /// Print the mapping that is used, and nothing else
    #[arg(long)]
    print_mapping: bool,

    /// How TaskRuns are named, as with `run`
    #[arg(long, value_enum, default_value_t, env = "TASKRUN_TASK_NAMES")]
    task_names: TaskNames,

    /// How to print the report. Default: a table on a terminal, JSON elsewhere
    #[arg(long, short, value_enum)]
    output: Option<Output>,

    /// Exit with 0 unless something failed, such as in a `CronJob`
    #[arg(long)]
    exit_zero: bool,
}

/// One of them, or none.
#[derive(Args)]
#[group(multiple = false)]
struct StepArgs {
    /// Make the TaskRuns that are not there yet; each is read again and compared with its release, file by file. Without
    /// this and the next two options: only say what would be done
    #[arg(long)]
    apply: bool,

    /// Compare the TaskRuns that were made with their releases; nothing is written
    #[arg(long)]
    verify: bool,

    /// Delete the releases whose TaskRuns are there and equal and whose Jobs have ended, as `helm uninstall` would,
    /// with the files' ConfigMap; volume claims stay
    #[arg(long)]
    delete_releases: bool,
}

impl StepArgs {
    fn step(&self) -> Step {
        match (self.apply, self.verify, self.delete_releases) {
            (true, ..) => Step::Apply,
            (_, true, _) => Step::Verify,
            (.., true) => Step::Delete,
            _ => Step::Plan,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Output {
    Table,
    Json,
}

/// Does one step.
#[tokio::main(flavor = "current_thread")]
pub async fn run(args: &MigrateHelmArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mapping = match &args.mapping {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Mapping::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Mapping::default(),
    };
    if args.print_mapping {
        print!("{}", serde_saphyr::to_string(&mapping)?);
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init("error");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (api_server, namespace) = ApiServer::connect_in(args.namespace.clone()).await?;
    let migration = Migration { api_server, namespace, mapping, names: args.task_names };
    let report = migration.run(args.step.step()).await?;
    let is_table = args.output.map_or_else(|| std::io::stdout().is_terminal(), |output| output == Output::Table);
    let text = if is_table { tabulate(&report) } else { serde_json::to_string_pretty(&report)? + "\n" };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(exit_code(&report, args.exit_zero))
}

fn tabulate(report: &Report) -> String {
    let mut lines = vec![];
    if report.releases.is_empty() {
        lines.push(format!("no Helm releases in namespace {}", report.namespace));
    }
    let left = "belongs to no release: it may be all that is left of a task; delete it if nobody needs it";
    lines.extend(report.orphan_config_maps.iter().map(|name| format!("ConfigMap {name} {left}")));
    if report.step == Step::Plan && report.releases.iter().any(|entry| entry.action == Action::Create) {
        lines.push("nothing was written: --apply makes the TaskRuns".to_owned());
    }
    lines.into_iter().fold(table(&report.releases), |text, line| text + &line + "\n")
}

fn exit_code(report: &Report, exit_zero: bool) -> ExitCode {
    let has = |actions: &[Action]| report.releases.iter().any(|entry| actions.contains(&entry.action));
    match () {
        () if has(&[Action::Failed]) => ExitCode::FAILURE,
        () if exit_zero => ExitCode::SUCCESS,
        () if has(&[Action::Skipped]) => ExitCode::from(SKIPPED),
        () if has(&[Action::Create, Action::Created, Action::Verified, Action::Deleted]) => ExitCode::SUCCESS,
        () => ExitCode::from(NOTHING_TO_DO),
    }
}
