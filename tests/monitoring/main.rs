//! What is shipped for Prometheus and Grafana, with a real Prometheus: the rules by their unit tests, each alert by its
//! fault, and each query of the dashboard under load.

mod alerts;
mod dashboard;
mod plot;
mod prometheus;
mod rules;
#[path = "../cluster/support.rs"]
#[expect(dead_code, reason = "the tests in tests/cluster use all of it")]
mod support;

/// Reads a file of this project.
fn read(path: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}
