//! Our last write to each TaskRun and Job: a cached copy from before it is not worth a look.
//!
//! It saves the reads with which a pass would find out that nothing is left to do. It decides nothing:
//! after ten seconds the pass goes on, whatever the copy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a copy is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// By uid: the resourceVersion that the write was made under, which every copy with it exceeds, and when.
/// These are numbers that grow (Kubernetes 1.35 promises it); what is no number is not waited for.
#[derive(Default)]
pub struct Written(Mutex<HashMap<String, (u64, Instant)>>);

impl Written {
    /// Takes note of a write to this object that was made under this resourceVersion.
    pub fn note(&self, uid: Option<&str>, version: Option<&str>) {
        let (Some(uid), Some(Ok(version))) = (uid, version.map(str::parse)) else { return };
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, (_, at)| at.elapsed() < PATIENCE);
        written.insert(uid.to_owned(), (version, Instant::now()));
    }

    /// How long to wait for a newer copy than this one, if our last write is not in it.
    pub fn wait_for(&self, cached: &ObjectMeta) -> Option<Duration> {
        let (uid, cached) = (cached.uid.as_ref()?, cached.resource_version.as_ref()?.parse::<u64>().ok()?);
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, at) = written.get(uid)?;
        let rest = PATIENCE.checked_sub(at.elapsed()).filter(|_| cached <= *version);
        if rest.is_none() {
            written.remove(uid);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> ObjectMeta {
        let uid = Some("a".to_owned());
        ObjectMeta { uid, resource_version: Some(version.to_owned()), ..ObjectMeta::default() }
    }

    #[test]
    fn only_copies_from_before_the_last_write_are_waited_for() {
        let written = Written::default();
        assert_eq!(written.wait_for(&object("9")), None);
        written.note(Some("a"), Some("10"));
        assert!(written.wait_for(&object("9")).is_some());
        assert!(written.wait_for(&object("10")).is_some_and(|rest| rest <= PATIENCE));
        assert_eq!(written.wait_for(&object("not a number")), None);
        assert_eq!(written.wait_for(&ObjectMeta { uid: Some("b".to_owned()), ..object("9") }), None);
        assert_eq!(written.wait_for(&object("11")), None);
        assert!(written.0.lock().expect("no panic").is_empty(), "forgotten");
    }
}
