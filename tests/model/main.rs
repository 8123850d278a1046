//! The run protocol, in every interleaving of two operators that may crash at any time, the people who
//! use and abuse a task, and a cluster that may be late.
//!
//! Nothing of the protocol is written down here a second time: what decides is `plan` and `admission`
//! as they ship. What is small is the world around them, and how
//! often people act (`Budget`). The larger budgets run with `make model`.
//!
//! Not modelled: what wakes an operator (it may act at any time, and at rest it does), Agents, refusals
//! by the API server, nodes that fail, and a pod that the Job controller is just creating while it
//! already knows better.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: whatever panics fails it")]
#![allow(clippy::struct_excessive_bools, clippy::trivially_copy_pass_by_ref, reason = "states are many and small")]

mod cluster;
mod mutation;
mod objects;
mod operator;
mod people;
mod protections;
mod rest;
mod system;
mod world;

use operator::Planner;
use people::Budget;
use stateright::{Checker, HasDiscoveries, Model};
use std::time::Instant;
use system::{Action, System};
use taskrun_operator::crd::ContextUpdatePolicy;

/// The shortest way to break each property, if there is one.
fn check(what: &str, system: System) -> Vec<(&'static str, Vec<Action>)> {
    let start = Instant::now();
    let checker = system.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, observations) = (checker.unique_state_count(), checker.model().planner.observations());
    let seconds = start.elapsed().as_secs_f32();
    println!("{what}: {states} states, {observations} observations, depth {}, {seconds:.1} s", checker.max_depth());
    checker.discoveries().into_iter().map(|(property, path)| (property, path.into_actions())).collect()
}

fn holds(what: &str, system: System) {
    let found = check(what, system);
    for (property, way) in &found {
        println!("{what}: \"{property}\" is broken after {} steps:", way.len());
        for action in way {
            println!("  {action:?}");
        }
    }
    assert!(found.is_empty(), "{what}: see the way above");
}

/// One operator, and a Job controller that may be late.
fn one(uses: u8, lives: u8, meddles: u8) -> System {
    System { budget: Budget { uses, lives, meddles }, is_late: true, ..System::default() }
}

/// Two operators that may both act at any time.
fn two(uses: u8, lives: u8, meddles: u8) -> System {
    System { more_operators: 1, ..one(uses, lives, meddles) }
}

fn after_completion(system: System) -> System {
    let planner = Planner { policy: Some(ContextUpdatePolicy::AfterCompletion), ..Planner::default() };
    System { planner, ..system }
}

#[test]
fn holds_whoever_uses_a_task() {
    holds("used", one(2, 0, 0));
    holds("used, two operators", two(1, 0, 0));
}

#[test]
fn holds_whoever_meddles() {
    holds("meddled with", one(0, 0, 3));
    holds("meddled with, two operators", two(0, 0, 1));
    holds("used and meddled with", one(1, 0, 1));
}

#[test]
fn holds_whoever_deletes_and_restores() {
    holds("deleted and restored", one(0, 4, 0));
    holds("deleted and restored, two operators", two(0, 2, 0));
    holds("deleted and restored, used", one(1, 2, 0));
    holds("deleted and restored, meddled with", one(0, 2, 1));
}

#[test]
fn holds_whoever_does_all_this() {
    holds("used, deleted and meddled with", one(1, 1, 1));
}

#[test]
fn holds_where_pods_fail() {
    holds("with retries", System { retries: true, ..one(1, 0, 1) });
}

#[test]
fn holds_where_new_context_waits() {
    holds("after completion", after_completion(one(2, 0, 0)));
    holds("after completion, meddled with", after_completion(one(1, 0, 1)));
}

#[test]
fn holds_beside_another_task_run_of_the_task() {
    holds("with a twin", System { has_twin: true, ..one(1, 0, 1) });
}

#[test]
fn holds_where_a_job_is_adopted() {
    holds("adopted, used", System { adopts: true, ..one(2, 0, 0) });
    holds("adopted, used, two operators", System { adopts: true, ..two(1, 0, 0) });
    holds("adopted, used and meddled with, retries", System { adopts: true, retries: true, ..one(1, 0, 1) });
    holds("adopted, deleted and restored, meddled with", System { adopts: true, ..one(0, 2, 1) });
}

#[test]
#[ignore = "takes minutes: make model"]
fn large_holds_where_a_job_is_adopted() {
    holds("adopted, used much and meddled with", System { adopts: true, retries: true, ..one(2, 0, 1) });
    holds("adopted, used, meddled with much", System { adopts: true, retries: true, ..one(1, 0, 2) });
    holds("adopted, used, deleted and restored, meddled with", System { adopts: true, ..one(1, 2, 1) });
}

#[test]
#[ignore = "takes minutes: make model"]
fn large_holds_whoever_uses_a_task_much() {
    holds("used much", one(3, 0, 0));
    holds("used much, deleted", one(2, 1, 0));
    holds("used much, meddled with", one(2, 0, 1));
    holds("used much, meddled with, after completion", after_completion(one(2, 0, 1)));
}

#[test]
#[ignore = "takes minutes: make model"]
fn large_holds_whoever_meddles_much() {
    holds("used, meddled with much", one(1, 0, 2));
    holds("used, meddled with much, retries", System { retries: true, ..one(1, 0, 2) });
    holds("used, deleted and restored, meddled with", one(1, 2, 1));
}

#[test]
#[ignore = "takes minutes: make model"]
fn large_holds_with_two_operators() {
    holds("used and deleted, two operators", two(1, 1, 0));
    holds("used and meddled with, two operators", System { is_late: false, ..two(1, 0, 1) });
}

#[test]
#[ignore = "takes minutes: make model"]
fn large_holds_whoever_uses_what_two_operators_have() {
    holds("used much, two operators", System { is_late: false, ..two(2, 0, 0) });
}
