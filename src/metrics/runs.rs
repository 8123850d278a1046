//! Versions and their runs.

use super::declare::Declare;
use crate::crd::Outcome;
use prometheus::{Error, Histogram, IntCounter, IntCounterVec};
use std::time::Duration;

/// From a version to its Job, or to a pod that runs: with images and nodes to be waited for.
const START_SECONDS: [f64; 14] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];
const OUTCOMES: [&str; 5] = [
    Outcome::Succeeded.as_str(),
    Outcome::Failed.as_str(),
    Outcome::Superseded.as_str(),
    Outcome::Cancelled.as_str(),
    Outcome::Unknown.as_str(),
];

/// Of versions and runs.
pub struct Runs {
    bumps: IntCounter,
    outcomes: IntCounterVec,
    to_job: Histogram,
    to_running: Histogram,
}

impl Runs {
    pub(super) fn new(declare: &mut Declare) -> Result<Self, Error> {
        Ok(Self {
            bumps: declare.counter(
                "taskrun_context_version_bumps_total",
                "By how much context versions were raised, as the leader's watch tells; a creation is not counted.",
            )?,
            outcomes: declare.counters(
                "taskrun_runs_total",
                "Runs whose outcome was written to a status, once each; versions that were passed over are Superseded. \
                 Not counted: those that end with their TaskRun's deletion, and a write whose answer was lost.",
                &[("outcome", &OUTCOMES)],
            )?,
            to_job: declare.histogram(
                "taskrun_version_to_job_seconds",
                "Time from the watch's word of a new version to the API server's answer that its Job is created, in \
                 the leader and by its own clock. Not of versions that were there when this process began to watch, \
                 nor of those told to wait by suspend or AfterCompletion.",
                &START_SECONDS,
            )?,
            to_running: declare.histogram(
                "taskrun_version_to_running_seconds",
                "The same to the watch's word of a status that says Running: the pod's start and a Kueue queue are in \
                 it.",
                &START_SECONDS,
            )?,
        })
    }

    /// A version was raised by so much.
    pub fn bumped(&self, by: u32) {
        self.bumps.inc_by(by.into());
    }

    /// The outcome of a run was written.
    pub fn ended(&self, outcome: Outcome) {
        self.outcomes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// A version has its Job so long after it came.
    pub fn has_job(&self, after: Duration) {
        self.to_job.observe(after.as_secs_f64());
    }

    /// A version runs so long after it came.
    pub fn running(&self, after: Duration) {
        self.to_running.observe(after.as_secs_f64());
    }
}
