//! `kubectl taskrun logs`: what a task's pods write, as it is.

use super::error::{Error, note};
use super::text::harmless;
use super::{TaskArg, in_namespace};
use crate::client::{LogItem, LogOptions, Tasks};
use crate::task::LogSource;
use clap::Args;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use tokio::sync::mpsc::channel;

/// Parts that are read ahead.
const AHEAD: usize = 16;

/// What `logs` takes.
#[derive(Args)]
#[command(after_help = "With -f it goes on over all the runs that come, until the task is at rest.

Examples:
  kubectl taskrun logs 7 -f
  kubectl taskrun logs 7 --version 2 --tail 100")]
pub struct LogsArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Of this version, otherwise of the newest run
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Begin with so many last lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    tail: Option<i64>,
    /// Container, otherwise the pod's default one
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
}

/// Prints the log.
pub async fn run(args: LogsArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let LogsArgs { task, follow, version, tail, container } = args;
    let options = LogOptions { version, follow, tail, container };
    let (sink, mut items) = channel(AHEAD);
    let (tasks, name) = (tasks.clone(), task.task);
    let reader = tasks.clone();
    tokio::spawn(async move { reader.logs(&name, &options, &sink).await });
    let mut out = stdout();
    let (mut is_first, mut last) = (true, b'\n');
    while let Some(item) = items.recv().await {
        match item {
            Ok(LogItem::Begins(source)) => {
                // one log alone needs no title
                if follow || !is_first {
                    begin(&mut out, &source, last)?;
                }
                (is_first, last) = (false, b'\n');
            }
            Ok(LogItem::Bytes(bytes)) => {
                last = bytes.last().copied().unwrap_or(last);
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Ok(LogItem::Waits(why)) => note(&format!("waiting: {}", harmless(&why))),
            Err(error) => return Err(in_namespace(&tasks, error).await),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error whose log follows. What comes begins a line, also where the log before it broke off.
fn begin(out: &mut impl Write, source: &LogSource, last: u8) -> Result<(), Error> {
    if last != b'\n' {
        writeln!(out)?;
    }
    Ok(writeln!(stderr(), "==> version {}, pod {} <==", source.version, source.pod)?)
}
