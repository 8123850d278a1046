//! `make bench`: the operator beside its peers and its limits, all in one run, the sides in turn.
//!
//! Machines are shared and noisy, so a figure says little by itself: what counts are ratios of one run.

#[path = "../tests/cluster/support.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod support;

mod bursts;
mod direct;
mod load;
mod machine;
mod memory;
mod plot;
mod report;
mod reviews;
mod serve;
mod through;

use clap::{Args, Parser, Subcommand, ValueEnum};
use plot::Plot;
use report::Table;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measures the operator beside its peers and its limits
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    wanted: Wanted,
}

#[derive(Args)]
struct Wanted {
    /// Minutes instead of an hour and a half
    #[arg(long)]
    quick: bool,

    /// What to measure; repeatable. Without it: all
    #[arg(long = "part", value_name = "PART")]
    parts: Vec<Part>,

    /// Only kinds of load with this in their name, such as "64 KiB"
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,

    /// Folder for tables and figures
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,

    /// Keep the tables that are in the folder, but for those that are measured now
    #[arg(long)]
    add: bool,

    // what cargo tells every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// One of the servers that are measured
    #[command(hide = true)]
    Serve { side: serve::Side, address: SocketAddr, file: PathBuf },
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The webhook, straight at its port
    Webhook,
    /// Writes through the API server
    Writes,
    /// Bursts of tasks
    Reconciler,
    /// Memory beside settled tasks, and starts
    Memory,
}

/// How much is measured.
pub struct Plan {
    is_quick: bool,
    rounds: usize,
    only: String,
    folder: PathBuf,
    peer: PathBuf,
}

impl Plan {
    /// Whether this is to be measured.
    fn wants(&self, what: &str) -> bool {
        what.contains(&self.only)
    }

    /// So long, or a third where it has to be quick.
    fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.is_quick { seconds / 3.0 } else { seconds })
    }
}

const PLOTS: [Plot; 4] = [
    Plot {
        file: "webhook.svg",
        title: "CPU of a review, by that of the same rules in Go",
        tables: "Webhook",
        column: "by Go's",
    },
    Plot { file: "added.svg", title: "Added to a write, ms", tables: "A write through", column: "added ms" },
    Plot { file: "writes.svg", title: "Writes a second", tables: "Writes through the API server", column: "writes/s" },
    Plot {
        file: "reconciler.svg",
        title: "TaskRuns a second, from creation to Job",
        tables: "Reconciler",
        column: "TaskRuns/s to Job created",
    },
];

fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("once");
    let Arguments { command, wanted } = Arguments::parse();
    if let Some(Command::Serve { side, address, file }) = command {
        return serve::serve(side, address, &file);
    }
    let plan = Plan {
        is_quick: wanted.quick,
        rounds: if wanted.quick { 3 } else { 5 },
        only: wanted.only,
        folder: std::env::temp_dir().join(format!("taskrun-bench-{}", std::process::id())),
        peer: support::build("peer").join("peer"),
    };
    let mut tables = vec![];
    if wanted.add {
        tables = kept(&wanted.out);
        keep(&wanted.out, &plan, &tables);
    }
    for part in Part::value_variants() {
        if wanted.parts.is_empty() || wanted.parts.contains(part) {
            for table in part.measure(&plan) {
                match tables.iter().position(|other| other.title == table.title) {
                    Some(place) => tables[place] = table,
                    None => tables.push(table),
                }
                keep(&wanted.out, &plan, &tables);
            }
        }
    }
    println!("{}", markdown(&tables));
    let _ = std::fs::remove_dir_all(&plan.folder);
}

/// Writes what there is so far: a run takes long, and may be ended before it is over.
fn keep(out: &Path, plan: &Plan, tables: &[Table]) {
    let json = json!({
        "machine": machine::describe(), "rounds": plan.rounds,
        "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    std::fs::create_dir_all(out).expect("a folder");
    std::fs::write(out.join("results.md"), markdown(tables)).expect("a file");
    std::fs::write(out.join("results.json"), format!("{json:#}\n")).expect("a file");
    for plot in &PLOTS {
        if let Some(svg) = plot::svg(plot, tables) {
            std::fs::write(out.join(plot.file), svg).expect("a file");
        }
    }
}

/// The tables that are in a folder.
fn kept(folder: &Path) -> Vec<Table> {
    let json = std::fs::read(folder.join("results.json")).expect("results");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let tables = json["tables"].as_array().expect("tables").iter();
    tables.map(|table| Table::of_json(table).expect("a table")).collect()
}

fn markdown(tables: &[Table]) -> String {
    tables.iter().map(Table::markdown).collect::<Vec<_>>().join("\n")
}

impl Part {
    fn measure(self, plan: &Plan) -> Box<dyn Iterator<Item = Table> + '_> {
        match self {
            Self::Webhook => Box::new(direct::run(plan).into_iter()),
            Self::Writes => Box::new(through::run(plan).into_iter()),
            Self::Reconciler => Box::new(bursts::run(plan)),
            Self::Memory => Box::new(memory::run(plan).into_iter()),
        }
    }
}
