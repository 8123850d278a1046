//! Runs a task's markdown context as exactly one Kubernetes Job per context version.
pub mod admission;
pub mod crd;
pub mod plan;
