//! Runs a task's markdown context as exactly one Kubernetes Job per context version.
//!
//! Rooms are wholly pure or wholly I/O; arrows go one way (`ARCHITECTURE.md`, and a test).

// pure: no async, client, clock, files or environment
/// Judges writes: the next version, and every rule that is broken.
pub mod admission;
/// What is served by TLS, who trusts it, and when the next one is due.
pub mod certificate;
/// The API: `TaskRun` and `Agent`.
pub mod crd;
/// Reads the predecessor's Helm releases, and makes `TaskRun`s of them.
pub mod helm;
/// Decides the next writes for one `TaskRun`.
pub mod plan;
/// What people do with tasks.
pub mod task;

// I/O: thin
/// The PM HTTP API.
pub mod api;
/// The command line.
pub mod cli;
/// Every call to the API server.
pub mod client;
/// The time of day.
pub mod clock;
/// Observe, plan, execute.
pub mod controller;
/// Of all replicas one acts.
pub mod leader;
/// Every metric.
pub mod metrics;
pub mod migration;
/// `kubectl taskrun`.
pub mod plugin;
/// The certificate and the webhook configurations.
pub mod rotator;
/// Listeners and TLS.
pub mod server;
/// Logs and traces.
pub mod telemetry;
/// Carries admission reviews.
pub mod webhook;
