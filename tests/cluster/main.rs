//! The operator on a real control plane, installed from the shipped YAML, under the shipped RBAC.
//!
//! One test binary: its tests share a control plane where they can, each in a namespace of its own.
//! Those that stop the webhook or kill the operator start their own. Nothing is skipped: without Go,
//! which builds the control plane, Python, which runs schemathesis, Node and Chromium, which open the page, or network
//! namespaces they fail.

mod admission;
mod adoption;
mod api;
mod certificates;
mod chart;
mod flood;
mod helm;
mod hostile;
mod kept;
mod leader;
mod life;
#[path = "../rollout/line.rs"]
#[expect(dead_code, reason = "tests/rollout uses all of it")]
mod line;
mod metrics;
mod migration;
mod migration_role;
mod outage;
mod page;
mod plugin;
mod queue;
mod reconcile;
mod restart;
mod rights;
mod schemathesis;
mod settings;
mod support;
mod terminal;
mod thousand;
mod traces;
mod uninstall;
mod writers;
