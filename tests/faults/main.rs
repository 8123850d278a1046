//! The operator between people, the API server and all that can go wrong on the way: a matrix of scenarios and faults.
//!
//! Each plan plays one scenario with one fault, and is held against a clean run. `FAULTS=context-during-run/write-3/` runs
//! the plans with this in their names, `FAULTS=` (`make faults`) all; without it runs a random sample, of seed
//! `FAULTS_SEED` if that is set.

mod bench;
mod call;
mod oracle;
mod plan;
mod process;
mod proxy;
mod scenario;
#[path = "../cluster/support.rs"]
#[expect(dead_code, reason = "the tests in tests/cluster use all of it")]
mod support;
mod witness;

use bench::{Bench, Run};
use futures::StreamExt;
use futures::future::join_all;
use oracle::Reference;
use plan::{Fault, Plan, matrix};
use scenario::SCENARIOS;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Plans at the same time.
const PARALLEL: usize = 16;
/// Plans of a random sample.
const SAMPLE: usize = 40;
/// Plans that share one silence at the end, in which nobody may write.
const GROUP: usize = 150;
const SILENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_fault_ends_as_a_clean_run_does() {
    let started = Instant::now();
    let bench = Bench::start().await;
    let part = part();
    let references = learn(&bench, part.as_deref()).await;
    let all: Vec<Plan> = references.iter().flat_map(|(scenario, (_, writes))| plans(scenario, writes)).collect();
    let size = all.len();
    let chosen = choose(all, part.as_deref());
    println!("{} of {size} plans", chosen.len());
    let (mut violations, mut idle) = (vec![], vec![]);
    let mut done = 0;
    for group in chosen.chunks(GROUP) {
        done += group.len();
        let runs = group.iter().map(|plan| bench.run(plan.clone(), Some(&references[plan.scenario].0)));
        let runs = futures::stream::iter(runs).buffer_unordered(PARALLEL);
        let mut runs: Vec<Run> = runs.inspect(Run::tell).collect().await;
        tokio::time::sleep(SILENCE).await;
        bench.end(&mut runs);
        for run in runs {
            match run.violations.is_empty() {
                true if !run.proxy.has_fired() => idle.push(run.plan.to_string()),
                true => {}
                false => violations.push(run.plan.to_string()),
            }
        }
        println!("{} violations in {done} plans, {} s", violations.len(), started.elapsed().as_secs());
    }
    println!("faults that did not come to pass: {idle:?}");
    println!("{} of {size} plans, {} violations, {} s", chosen.len(), violations.len(), started.elapsed().as_secs());
    assert_eq!(violations, Vec::<String>::new(), "FAULTS=<name> runs one again");
    // a run may take a write less than the clean one that was learned from
    assert!(!chosen.is_empty() && idle.len() * 10 <= chosen.len(), "plans without a fault prove nothing: {idle:?}");
    bench.clear();
}

/// Two clean runs of each scenario: what they leave and do is the same, and is what all others are held against.
async fn learn(bench: &Bench, part: Option<&str>) -> BTreeMap<&'static str, (Reference, Vec<String>)> {
    // one plan needs only its own
    let only = SCENARIOS.into_iter().find(|scenario| part.is_some_and(|part| part.starts_with(scenario)));
    let scenarios = SCENARIOS.into_iter().filter(|scenario| only.is_none_or(|only| only == *scenario));
    let clean = scenarios.flat_map(|scenario| [scenario; 2]).map(|scenario| Plan { scenario, fault: Fault::None });
    let mut runs = join_all(clean.map(|plan| bench.run(plan, None))).await;
    bench.end(&mut runs);
    let mut references = BTreeMap::new();
    for pair in runs.chunks(2) {
        for run in pair {
            assert!(run.violations.is_empty(), "{}", run.report());
        }
        assert_eq!(pair[0].end, pair[1].end, "clean runs of {} are alike", pair[0].plan.scenario);
        let writes: Vec<String> = pair[0].proxy.record().iter().map(|write| write.call.masked()).collect();
        println!("{}: {}", pair[0].plan.scenario, writes.join(", "));
        references.insert(pair[0].plan.scenario, (pair[0].end.clone(), writes));
    }
    references
}

fn plans(scenario: &'static str, writes: &[String]) -> Vec<Plan> {
    matrix(scenario, writes.len(), scenario != "first-run")
}

/// The part of their names by which plans are chosen.
#[expect(clippy::disallowed_methods, reason = "cargo hands a test nothing else")]
fn part() -> Option<String> {
    std::env::var("FAULTS").ok()
}

#[expect(clippy::disallowed_methods, reason = "cargo hands a test nothing else")]
fn choose(all: Vec<Plan>, part: Option<&str>) -> Vec<Plan> {
    if let Some(part) = part {
        return all.into_iter().filter(|plan| plan.to_string().contains(part)).collect();
    }
    let seed =
        std::env::var("FAULTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("FAULTS_SEED={seed}");
    let mut places: Vec<usize> = (0..all.len()).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut places);
    places.truncate(SAMPLE);
    // what takes longest comes first
    places.sort_unstable();
    places.into_iter().map(|place| all[place].clone()).collect()
}
