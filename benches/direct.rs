//! The webhook, called straight at its port: ours, the same rules in Go, and the floor, which reads a review and answers
//! always the same. Each server has a core for itself, the load another one.

use crate::load::{self, Outcome, Target};
use crate::machine::{self, MIB, Process};
use crate::report::{Figures, Table, quantile};
use crate::reviews::{KINDS, Kind};
use crate::{Plan, support};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::SignedDuration;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use taskrun_operator::certificate::issue;
use taskrun_operator::clock::now;

/// Those that are compared.
const SIDES: [&str; 3] = ["ours", "Go", "floor"];

struct Side {
    name: &'static str,
    process: Process,
    target: Target,
}

/// Of one kind of review and one side, a figure a round.
#[derive(Default)]
struct Measured {
    cpu: Figures,
    rate: Figures,
    half: [Figures; 3],
    rss: Figures,
}

/// All of it.
pub fn run(plan: &Plan) -> Vec<Table> {
    let folder = plan.folder.join("certificate");
    let ca = certificate(&folder, "localhost").0;
    let mut tables = vec![];
    for kind in KINDS.iter().filter(|kind| plan.wants(kind.name)) {
        tables.push(of_kind(plan, *kind, &folder, &ca));
    }
    tables.push(over_many(plan, &folder, &ca));
    tables
}

fn side(plan: &Plan, name: &'static str, folder: &Path, ca: &[u8]) -> Side {
    let (process, address) = start(plan, name, Some(machine::SERVER), folder);
    Side { name, process, target: Target::new(address, ca) }
}

/// Starts one of them, on one core where that is given, and tells where it listens.
pub fn start(plan: &Plan, name: &str, core: Option<usize>, folder: &Path) -> (Process, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    let mut command = match name {
        "Go" => Command::new(&plan.peer),
        _ => Command::new(std::env::current_exe().expect("this program")),
    };
    match name {
        "Go" => command.args(["webhook", "--addr", &address.to_string(), "--cert-dir"]).arg(folder),
        _ => command.args(["serve", name, &address.to_string()]).arg(folder),
    };
    let process = Process::start(core, &command);
    process.wait_for(address);
    (process, address)
}

fn of_kind(plan: &Plan, kind: Kind, folder: &Path, ca: &[u8]) -> Table {
    let requests = kind.requests();
    let sides: Vec<Side> = SIDES.iter().map(|name| side(plan, name, folder, ca)).collect();
    let mut measured: Vec<Measured> = sides.iter().map(|_| Measured::default()).collect();
    for side in &sides {
        load::closed(&side.target, &requests, plan.seconds(1.0));
    }
    for round in 0..plan.rounds {
        for turn in 0..sides.len() {
            // each is first as often as the others
            let number = (round + turn) % sides.len();
            measure(plan, &sides[number], &requests, &mut measured[number]);
        }
    }
    let columns = [
        "CPU µs a review",
        "by Go's",
        "by the floor's",
        "reviews/s on one core",
        "p50 ms at half of that",
        "p99",
        "p99.9",
        "RSS MiB",
    ];
    let mut table = Table::new(&format!("Webhook, {} ({} bytes)", kind.name, requests[0].len()), "side", &columns);
    for (side, own) in sides.iter().zip(&measured) {
        let [p50, p99, p999] = own.half.clone();
        let [go, floor] = [1, 2].map(|other| own.cpu.by(&measured[other].cpu));
        table.row(side.name, vec![own.cpu.clone(), go, floor, own.rate.clone(), p50, p99, p999, own.rss.clone()]);
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "millions at most")]
fn measure(plan: &Plan, side: &Side, requests: &[Vec<u8>], measured: &mut Measured) {
    let before = side.process.usage();
    let full = load::closed(&side.target, requests, plan.seconds(3.0));
    let after = side.process.usage();
    measured.cpu.0.push((after.cpu - before.cpu) * 1e6 / full.seconds.len() as f64);
    measured.rate.0.push(full.rate());
    let Outcome { seconds, .. } = load::open(&side.target, requests, full.rate() / 2.0, plan.seconds(4.0));
    for (figures, part) in measured.half.iter_mut().zip([0.5, 0.99, 0.999]) {
        figures.0.push(quantile(&seconds, part) * 1e3);
    }
    measured.rss.0.push(side.process.usage().rss / MIB);
}

/// Looks at the memory of one that answers many.
const LOOKS: usize = 10;

/// Memory while it answers a million reviews.
fn over_many(plan: &Plan, folder: &Path, ca: &[u8]) -> Table {
    let kind = KINDS[1];
    let requests = kind.requests();
    let many = if plan.is_quick { 100_000 } else { 1_000_000 };
    let side = side(plan, "ours", folder, ca);
    let mut table =
        Table::new(&format!("Memory over {many} reviews ({})", kind.name), "reviews", &["RSS MiB", "peak MiB"]);
    let mut done = 0;
    for look in 1..=LOOKS {
        while done < many * look / LOOKS {
            done += load::closed(&side.target, &requests, Duration::from_millis(500)).seconds.len();
        }
        let usage = side.process.usage();
        table.row(&done.to_string(), vec![Figures(vec![usage.rss / MIB]), Figures(vec![usage.peak / MIB])]);
    }
    table
}

/// Makes a certificate for this host in this folder, and returns its CA.
pub fn certificate(folder: &Path, host: &str) -> ByteString {
    std::fs::create_dir_all(folder).expect("a folder");
    let issued = issue(&[host.to_owned()], SignedDuration::from_hours(24), now()).expect("a certificate");
    std::fs::write(folder.join("tls.crt"), issued.certificate).expect("a file");
    std::fs::write(folder.join("tls.key"), issued.key).expect("a file");
    ByteString(issued.ca.into_bytes())
}
