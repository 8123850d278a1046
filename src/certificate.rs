//! Certificates: what is served, who trusts it, and when the next one is due.
//!
//! Each rotation makes a CA and one leaf, and forgets the CA's key at once: nobody can sign anything else with it, and
//! what has to be stored, protected and rotated is one thing. The next leaf is served only once the API server has
//! been told to trust its CA for a while, beside the former one (`docs/adr/0007-certificates.md`).

mod issue;
mod pair;
mod rotation;
mod trust;

#[cfg(test)]
mod tests;

pub use issue::{CLOCK_SKEW, Issued, issue};
pub use pair::{Pair, common_name};
pub use rotation::{Observed, Rotation, Step, Stored};
pub use trust::check;

/// Why a certificate does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file, or key of a Secret, is not what it should be.
    #[error("{place} {problem}")]
    Unreadable {
        /// Which.
        place: &'static str,
        /// What is wrong with it. Never what it holds.
        problem: String,
    },
    /// It is not yet, or no longer, valid; is not for this name; or no CA of the bundle has signed it.
    #[error("the certificate served is not accepted as {name}: {problem}")]
    Untrusted {
        /// The name that a client asks for.
        name: String,
        /// What a client says.
        problem: String,
    },
}

impl Error {
    fn unreadable(place: &'static str, problem: impl Into<String>) -> Self {
        Self::Unreadable { place, problem: problem.into() }
    }
}
