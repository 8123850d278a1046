//! `taskrun-operator metrics`: what `/metrics` serves, as it stands in `docs/metrics.md`.

use crate::metrics::Metrics;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

/// Where the Markdown goes.
#[derive(clap::Args)]
pub struct MetricsArgs {
    /// File to write it into, instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints it, or writes it.
pub fn run(args: &MetricsArgs) -> Result<(), Box<dyn Error>> {
    let document = Metrics::new()?.document();
    match &args.output {
        None => print!("{document}"),
        Some(file) => fs::write(file, document)?,
    }
    Ok(())
}
