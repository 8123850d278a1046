//! What a Helm release of the predecessor's chart says, and the `TaskRun` that takes its place.
//!
//! A release holds an API key in plain text: nothing in here may print or copy what a value or a manifest says, but
//! for the names that a `TaskRun` is made of. What is not known is said, never guessed; what contradicts itself is
//! reported, never resolved.

mod judge;
mod mapping;
mod release;
mod report;
mod task;
mod verify;

#[cfg(test)]
mod tests;

pub use judge::{Row, Seen, Verdict, judge};
pub use mapping::Mapping;
pub use release::{Chart, Object, Release, Status, decode, governing};
pub use report::{Action, Entry, table};
pub use task::{JobSeen, JobState, Needs, needs};
pub use verify::verify;
