//! What the reconciler does, and what it sees: the latter only while this process leads, or each replica would tell it.

use super::declare::Declare;
use crate::crd::Phase;
use prometheus::{Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of a reconcile, and of its wait: some calls of some milliseconds each.
const SECONDS: [f64; 14] = [0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const RESULTS: [&str; 2] = ["ok", "error"];
const UNREADABLE: &str = "Unreadable";
const PHASES: [&str; 5] =
    [Phase::Pending.as_str(), Phase::Running.as_str(), Phase::Succeeded.as_str(), Phase::Failed.as_str(), UNREADABLE];

/// Why a reconcile failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Others wrote again and again in between.
    Conflict,
    /// The API server refuses what we make.
    Refused,
    /// No answer in time.
    Timeout,
    /// Another answer of the API server than was hoped for.
    Answer,
    /// No answer.
    Connection,
}

impl Failure {
    /// One each, in their order.
    const WORDS: [&str; 5] = ["conflict", "refused", "timeout", "answer", "connection"];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// What a scrape counts anew, so that it is never wrong for long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// TaskRuns by phase; those without one are pending.
    phases: [i64; PHASES.len()],
    /// TaskRuns that somebody has to see to.
    stalled: i64,
    /// Objects whose reconcile is due.
    waiting: i64,
}

impl Seen {
    /// Nothing yet but so many objects whose reconcile is due.
    #[must_use]
    pub fn waiting(waiting: usize) -> Self {
        Self { waiting: i64::try_from(waiting).unwrap_or(i64::MAX), ..Self::default() }
    }

    /// One more TaskRun in this phase; one that cannot be read has none.
    pub fn add(&mut self, phase: Option<Phase>, is_stalled: bool) {
        self.phases[phase.map_or(PHASES.len() - 1, |phase| phase as usize)] += 1;
        self.stalled += i64::from(is_stalled);
    }
}

type Look = Box<dyn Fn() -> Seen + Send>;

/// Of the reconciler.
pub struct Reconciler {
    results: IntCounterVec,
    seconds: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounter,
    waited: Histogram,
    waiting: IntGauge,
    task_runs: IntGaugeVec,
    stalled: IntGauge,
    leader: IntGauge,
    leads_since: Mutex<Option<Instant>>,
    looks: Mutex<Vec<Look>>,
}

impl Reconciler {
    pub(super) fn new(declare: &mut Declare) -> Result<Self, Error> {
        Ok(Self {
            leader: declare
                .gauge("taskrun_leader", "1 in the process that holds the Lease and reconciles, 0 in a standby.")?,
            results: declare.counters("taskrun_reconciles_total", "Reconciles.", &[("result", &RESULTS)])?,
            seconds: declare.histograms(
                "taskrun_reconcile_duration_seconds",
                "Time of one reconcile.",
                &[("result", &RESULTS)],
                &SECONDS,
            )?,
            errors: declare.counters(
                "taskrun_reconcile_errors_total",
                "Reconciles that failed: others wrote in between too often, the API server refuses what is to be made, \
                 it did not answer in time, it answered with an error, or it could not be reached. Each is tried \
                 again.",
                &[("reason", &Failure::WORDS)],
            )?,
            retries: declare
                .counter("taskrun_reconcile_retries_total", "Reconciles that followed a failed one of their object.")?,
            waiting: declare.gauge(
                "taskrun_reconcile_queue_depth",
                "Objects whose reconcile is due and has not begun; 0 in a standby.",
            )?,
            waited: declare.histogram(
                "taskrun_reconcile_queue_wait_seconds",
                "Time from the moment when a reconcile was due, or this process began to lead, to its beginning.",
                &SECONDS,
            )?,
            task_runs: declare.gauges(
                "taskrun_taskruns",
                "TaskRuns, counted in the leader's cache at each scrape; none in a standby.",
                &[("phase", &PHASES)],
            )?,
            stalled: declare.gauge(
                "taskrun_taskruns_stalled",
                "TaskRuns that have not ended and whose condition Stalled is true: somebody has to act. 0 in a \
                 standby.",
            )?,
            leads_since: Mutex::default(),
            looks: Mutex::default(),
        })
    }

    /// This process reconciles from now on, or no longer.
    pub fn leads(&self, leads: bool) {
        *self.leads_since.lock().unwrap_or_else(PoisonError::into_inner) = leads.then(Instant::now);
        self.leader.set(leads.into());
    }

    /// A reconcile that was due then begins; whether it follows a failed one.
    pub fn began(&self, due: Instant, is_retry: bool) {
        let since = *self.leads_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.waited.observe(since.map_or(due, |since| due.max(since)).elapsed().as_secs_f64());
        self.retries.inc_by(is_retry.into());
    }

    /// A reconcile has ended.
    pub fn reconciled(&self, result: Result<(), Failure>, took: Duration) {
        let word = RESULTS[usize::from(result.is_err())];
        self.results.with_label_values(&[word]).inc();
        self.seconds.with_label_values(&[word]).observe(took.as_secs_f64());
        if let Err(failure) = result {
            self.errors.with_label_values(&[failure.as_str()]).inc();
        }
    }

    /// What is looked at with each scrape while this process leads.
    pub fn look_at(&self, look: impl Fn() -> Seen + Send + 'static) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(look));
    }

    /// Counts anew.
    pub(super) fn look(&self) {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let leads = self.leader.get() == 1;
        let seen: Vec<Seen> = looks.iter().filter(|_| leads).map(|look| look()).collect();
        self.waiting.set(seen.iter().map(|seen| seen.waiting).sum());
        self.stalled.set(seen.iter().map(|seen| seen.stalled).sum());
        if !leads {
            return self.task_runs.reset();
        }
        for (i, phase) in PHASES.iter().enumerate() {
            self.task_runs.with_label_values(&[phase]).set(seen.iter().map(|seen| seen.phases[i]).sum());
        }
    }
}
