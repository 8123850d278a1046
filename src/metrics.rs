//! Every metric, a file a subject, with its bounded label values.
//!
//! Nothing that a user wrote is ever a label: values come from fixed words. What is a state, such as how many TaskRuns
//! are in which phase, is looked at anew with each scrape, so that it cannot drift.

mod admission;
mod calls;
mod certificate;
mod declare;
mod process;
mod reconciler;
mod runs;

#[cfg(test)]
mod tests;

pub use admission::{Admission, InFlight, Refused};
pub use calls::{Call, Calls};
pub use certificate::Certificate;
pub use reconciler::{Failure, Reconciler, Seen};
pub use runs::Runs;

use declare::Declare;
use process::Process;
use prometheus::{Encoder, Error, TextEncoder};

/// The operator's metrics.
pub struct Metrics {
    /// Of the webhook.
    pub admission: Admission,
    /// Of the certificate.
    pub certificate: Certificate,
    /// Of the reconciler.
    pub reconciler: Reconciler,
    /// Of versions and runs.
    pub runs: Runs,
    /// Of calls to the API server.
    pub calls: Calls,
    process: Process,
    declared: Declare,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// If two have one name.
    pub fn new() -> Result<Self, Error> {
        let mut declared = Declare::default();
        Ok(Self {
            admission: Admission::new(&mut declared)?,
            certificate: Certificate::new(&mut declared)?,
            reconciler: Reconciler::new(&mut declared)?,
            runs: Runs::new(&mut declared)?,
            calls: Calls::new(&mut declared)?,
            process: Process::new(&mut declared)?,
            declared,
        })
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        self.reconciler.look();
        self.calls.look();
        self.process.look();
        let mut text = Vec::new();
        // writing to memory cannot fail
        let _ = TextEncoder::new().encode(&self.declared.registry.gather(), &mut text);
        text
    }

    /// What there is, for people: `docs/metrics.md`.
    #[must_use]
    pub fn document(&self) -> String {
        format!("{ABOUT}\n{}", self.declared.table())
    }
}

const ABOUT: &str = "# Metrics

<!-- Generated from src/metrics/ by `make generate`. -->

Each replica serves its own at `/metrics` of `--admin-addr`, in Prometheus' text format. Counters and histograms of few
label values are there from the start, with 0. What is told of the reconciler is told by the one that leads: sum it over
the replicas. Nothing that a user wrote is ever a label.
";
