//! Every metric, with its bounded label values.
//!
//! Nothing that a user wrote is ever a label: values come from fixed words in this file.

use crate::admission::{Decision, Operation, Webhook};
use k8s_openapi::jiff::Timestamp;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_with_registry,
};
use std::time::Duration;

/// Buckets of admission, in seconds: a review takes well under a millisecond.
const REVIEW_BUCKETS: [f64; 11] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0];

/// Why a request to the webhook was not reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Neither `/mutate` nor `/validate`.
    Path,
    /// Not posted.
    Method,
    /// Not JSON, by its head.
    ContentType,
    /// More bytes than a review has.
    TooLarge,
    /// Its body did not come in time.
    Slow,
    /// Its body ended too early.
    CutOff,
    /// Shed: there was no room for its body.
    Memory,
    /// Shed: it would have waited too long.
    Time,
}

/// A review that is being read or judged, until dropped.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reviews: IntCounterVec,
    review_seconds: HistogramVec,
    refused: IntCounterVec,
    in_flight: IntGauge,
    body_bytes: IntGauge,
    closed: IntCounter,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    leader: IntGauge,
    certificate: Certificate,
}

/// Of the certificate that is served.
struct Certificate {
    end: IntGauge,
    loads: IntCounterVec,
    loaded: IntGauge,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// If two have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reviews = counters(
            &registry,
            "taskrun_admission_reviews_total",
            "Admission reviews answered. The API server asks again for every retry of a contended write.",
            &["webhook", "operation", "decision"],
        )?;
        let review_seconds = register_histogram_vec_with_registry!(
            HistogramOpts::new(
                "taskrun_admission_review_duration_seconds",
                "Time to answer an admission review, once its body was read."
            )
            .buckets(REVIEW_BUCKETS.to_vec()),
            &["webhook"],
            registry
        )?;
        let refused = counters(
            &registry,
            "taskrun_admission_refused_total",
            "Requests to the webhook that were not reviewed. Those for memory and time are shed with a 429, and the API \
             server asks again.",
            &["reason"],
        )?;
        let in_flight =
            gauge(&registry, "taskrun_admission_in_flight", "Admission reviews that are being read or judged.")?;
        let body_bytes =
            gauge(&registry, "taskrun_admission_body_bytes", "Bytes held for bodies of admission reviews.")?;
        let closed = register_int_counter_with_registry!(
            Opts::new(
                "taskrun_admission_connections_closed_total",
                "Connections to the webhook that were closed, the most silent first, for new ones."
            ),
            registry
        )?;
        let reconciles = counters(&registry, "taskrun_reconciles_total", "Reconciles by result.", &["result"])?;
        let reconcile_seconds = register_histogram_vec_with_registry!(
            HistogramOpts::new("taskrun_reconcile_duration_seconds", "Time of one reconcile."),
            &["result"],
            registry
        )?;
        let leader = gauge(
            &registry,
            "taskrun_leader",
            "1 in the process that holds the Lease and reconciles, 0 in a standby.",
        )?;
        let certificate = Certificate::new(&registry)?;
        Ok(Self {
            registry,
            reviews,
            review_seconds,
            refused,
            in_flight,
            body_bytes,
            closed,
            reconciles,
            reconcile_seconds,
            leader,
            certificate,
        })
    }

    /// An admission review was answered.
    pub fn reviewed(&self, webhook: Webhook, operation: Operation, decision: Decision, took: Duration) {
        let webhook = match webhook {
            Webhook::Mutate => "mutate",
            Webhook::Validate => "validate",
        };
        let operation = match operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Other => "other",
        };
        let decision = match decision {
            Decision::Allowed => "allowed",
            Decision::Patched => "patched",
            Decision::Denied => "denied",
            Decision::Malformed => "malformed",
        };
        self.reviews.with_label_values(&[webhook, operation, decision]).inc();
        self.review_seconds.with_label_values(&[webhook]).observe(took.as_secs_f64());
    }

    /// A request to the webhook was not reviewed.
    pub fn refused(&self, why: Refused) {
        let reason = match why {
            Refused::Path => "path",
            Refused::Method => "method",
            Refused::ContentType => "content_type",
            Refused::TooLarge => "too_large",
            Refused::Slow => "slow",
            Refused::CutOff => "cut_off",
            Refused::Memory => "memory",
            Refused::Time => "time",
        };
        self.refused.with_label_values(&[reason]).inc();
    }

    /// An admission review is in flight until what this returns is dropped.
    pub fn review_begins(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// So many bytes more are held for bodies of reviews.
    pub fn holds(&self, more: isize) {
        self.body_bytes.add(i64::try_from(more).unwrap_or_default());
    }

    /// A connection to the webhook was closed for another.
    pub fn connection_closed(&self) {
        self.closed.inc();
    }

    /// A reconcile has ended.
    pub fn reconciled(&self, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.reconciles.with_label_values(&[result]).inc();
        self.reconcile_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// This process reconciles from now on, or no longer.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// A certificate with this end is served from now on.
    pub fn certificate_served(&self, not_after: Timestamp) {
        self.certificate.end.set(not_after.as_second());
    }

    /// A certificate was read, or could not be.
    pub fn certificate_loaded(&self, ok: bool) {
        self.certificate.loads.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        self.certificate.loaded.set(ok.into());
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // writing to memory cannot fail
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

impl Certificate {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            end: gauge(
                registry,
                "taskrun_certificate_expiry_timestamp_seconds",
                "When the certificate that is served ends, in seconds since 1970; 0 while there is none.",
            )?,
            loads: counters(
                registry,
                "taskrun_certificate_loads_total",
                "Certificates read anew, by result.",
                &["result"],
            )?,
            loaded: gauge(
                registry,
                "taskrun_certificate_last_load_successful",
                "0 where the newest certificate could not be read: a former one goes on being served.",
            )?,
        })
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    register_int_counter_vec_with_registry!(Opts::new(name, help), labels, registry)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register_int_gauge_with_registry!(Opts::new(name, help), registry)
}
