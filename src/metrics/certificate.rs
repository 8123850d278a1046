//! The certificate that is served.

use super::declare::Declare;
use k8s_openapi::jiff::Timestamp;
use prometheus::{Error, IntCounterVec, IntGauge};

/// Of the certificate.
pub struct Certificate {
    end: IntGauge,
    loads: IntCounterVec,
    loaded: IntGauge,
}

impl Certificate {
    pub(super) fn new(declare: &mut Declare) -> Result<Self, Error> {
        Ok(Self {
            end: declare.gauge(
                "taskrun_certificate_expiry_timestamp_seconds",
                "When the certificate that is served ends, in seconds since 1970; 0 while there is none.",
            )?,
            loads: declare.counters(
                "taskrun_certificate_loads_total",
                "Certificates read anew.",
                &[("result", &["ok", "error"])],
            )?,
            loaded: declare.gauge(
                "taskrun_certificate_last_load_successful",
                "0 where the newest certificate could not be read: a former one goes on being served.",
            )?,
        })
    }

    /// A certificate with this end is served from now on.
    pub fn served(&self, not_after: Timestamp) {
        self.end.set(not_after.as_second());
    }

    /// A certificate was read, or could not be.
    pub fn loaded(&self, ok: bool) {
        self.loads.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        self.loaded.set(ok.into());
    }
}
