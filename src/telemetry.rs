//! Logs: for people on a terminal, JSON otherwise. No markdown, token or key is ever logged, nor told in a trace.

mod traces;

pub use traces::{Span, Task, Traces};

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error; `filter` as in `RUST_LOG` of the `tracing` crates.
pub fn init(filter: &str) {
    // below errors, kube logs whole answers that it cannot read, and what we tell ourselves; actix has an error for each
    // malformed request, and OpenTelemetry one for each batch that is not sent
    let quiet = "kube_client::client=error,kube_runtime=error,actix_http::h1=off,opentelemetry-otlp=off";
    let filter = EnvFilter::new(format!("{filter},{quiet}"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match std::io::stderr().is_terminal() {
        true => logs.init(),
        false => logs.json().flatten_event(true).with_span_list(false).init(),
    }
}
