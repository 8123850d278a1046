//! The operator's image on a real node, installed from what ships: kubelet, containerd and runc, and processes that live.
//!
//! `run.sh` runs it, in namespaces of its own, as process 1. Its tests share one node, one after the other; each says
//! how it wants the operator to be installed.

mod agents;
mod installed;
mod operator;
mod runs;
#[path = "../cluster/support.rs"]
#[expect(dead_code, reason = "the tests in tests/cluster use all of it")]
mod support;
