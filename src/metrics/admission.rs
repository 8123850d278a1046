//! What the webhook does.

use super::declare::Declare;
use crate::admission::{Decision, Operation, Reason, Reviewed, Webhook};
use prometheus::{Error, Histogram, IntCounter, IntCounterVec, IntGauge};
use std::time::Duration;

/// In seconds: a review takes well under a millisecond.
const SECONDS: [f64; 13] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0];
/// In bytes: up to the largest review that is read.
const BYTES: [f64; 9] =
    [1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 2_097_152.0, 4_194_304.0, 7_340_032.0];
const WEBHOOKS: [&str; 2] = ["mutate", "validate"];
const OPERATIONS: [&str; 3] = ["create", "update", "other"];
const DECISIONS: [&str; 4] = ["allowed", "patched", "denied", "malformed"];
/// Of a review that was not refused.
const NO_REASON: &str = "none";

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

impl Refused {
    /// One each, in their order.
    const WORDS: [&str; 8] = ["path", "method", "content_type", "too_large", "slow", "cut_off", "memory", "time"];
}

/// A review that is being read or judged, until dropped.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Of admission.
pub struct Admission {
    reviews: IntCounterVec,
    /// By webhook, as those of bytes.
    seconds: [Histogram; 2],
    bytes: [Histogram; 2],
    refused: IntCounterVec,
    in_flight: IntGauge,
    body_bytes: IntGauge,
    closed: IntCounter,
}

impl Admission {
    pub(super) fn new(declare: &mut Declare) -> Result<Self, Error> {
        let reviews = declare.counters(
            "taskrun_admission_reviews_total",
            "Admission reviews answered. The API server asks again for every retry of a contended write. The reason is \
             the first rule that was broken, of a denied one; or why it could not be judged; none else.",
            &[
                ("webhook", &WEBHOOKS),
                ("operation", &OPERATIONS),
                ("decision", &DECISIONS),
                ("reason", &REASONS_AND_NONE),
            ],
        )?;
        expect_reviews(&reviews);
        let seconds = declare.histograms(
            "taskrun_admission_review_duration_seconds",
            "Time to judge an admission review, once its body was read.",
            &[("webhook", &WEBHOOKS)],
            &SECONDS,
        )?;
        let bytes = declare.histograms(
            "taskrun_admission_review_size_bytes",
            "Size of the bodies of admission reviews that were judged.",
            &[("webhook", &WEBHOOKS)],
            &BYTES,
        )?;
        Ok(Self {
            reviews,
            seconds: WEBHOOKS.map(|webhook| seconds.with_label_values(&[webhook])),
            bytes: WEBHOOKS.map(|webhook| bytes.with_label_values(&[webhook])),
            refused: declare.counters(
                "taskrun_admission_refused_total",
                "Requests to the webhook that were not reviewed. Those for memory and time are shed with a 429, and \
                 the API server asks again.",
                &[("reason", &Refused::WORDS)],
            )?,
            in_flight: declare
                .gauge("taskrun_admission_in_flight", "Admission reviews that are being read or judged.")?,
            body_bytes: declare.gauge("taskrun_admission_body_bytes", "Bytes held for bodies of admission reviews.")?,
            closed: declare.counter(
                "taskrun_admission_connections_closed_total",
                "Connections to the webhook that were closed, the most silent first, for new ones.",
            )?,
        })
    }

    /// An admission review of so many bytes was judged.
    pub fn reviewed(&self, webhook: Webhook, reviewed: &Reviewed, bytes: usize, took: Duration) {
        let (operation, decision) = (OPERATIONS[reviewed.operation as usize], DECISIONS[reviewed.decision as usize]);
        let reason = reviewed.reason.map_or(NO_REASON, Reason::as_str);
        self.reviews.with_label_values(&[WEBHOOKS[webhook as usize], operation, decision, reason]).inc();
        self.seconds[webhook as usize].observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a review has some millions of bytes")]
        self.bytes[webhook as usize].observe(bytes as f64);
    }

    /// A request to the webhook was not reviewed.
    pub fn refused(&self, why: Refused) {
        self.refused.with_label_values(&[Refused::WORDS[why as usize]]).inc();
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
}

/// The words of `reason`.
const REASONS_AND_NONE: [&str; Reason::WORDS.len() + 1] = {
    let mut words = [NO_REASON; Reason::WORDS.len() + 1];
    let mut i = 0;
    while i < Reason::WORDS.len() {
        words[i + 1] = Reason::WORDS[i];
        i += 1;
    }
    words
};

/// What is to be expected is there from the start, with 0: a rate needs it.
fn expect_reviews(reviews: &IntCounterVec) {
    let expect = |webhook: Webhook, operation: Operation, decision: Decision, reason: &str| {
        let (webhook, operation) = (WEBHOOKS[webhook as usize], OPERATIONS[operation as usize]);
        drop(reviews.with_label_values(&[webhook, operation, DECISIONS[decision as usize], reason]));
    };
    for operation in [Operation::Create, Operation::Update] {
        expect(Webhook::Mutate, operation, Decision::Patched, NO_REASON);
        expect(Webhook::Mutate, operation, Decision::Allowed, NO_REASON);
        expect(Webhook::Validate, operation, Decision::Allowed, NO_REASON);
        for rule in Reason::RULES {
            expect(Webhook::Validate, operation, Decision::Denied, rule.as_str());
        }
    }
    for webhook in [Webhook::Mutate, Webhook::Validate] {
        for why in [Reason::Unreadable, Reason::Panic] {
            expect(webhook, Operation::Other, Decision::Malformed, why.as_str());
        }
    }
}
