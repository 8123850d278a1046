//! What waits for its reconcile, for the metrics alone: kube-runtime (5.0) has such a queue, and tells nothing of it.

use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// When the next reconcile of each object is due, if one is.
#[derive(Default)]
pub struct Queue(Mutex<HashMap<ObjectRef<DynamicObject>, Instant>>);

impl Queue {
    /// A reconcile of this object is due then; one that is due earlier stays, as kube-runtime does it.
    pub fn add(&self, object: ObjectRef<DynamicObject>, due: Instant) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.entry(object).and_modify(|known| *known = due.min(*known)).or_insert(due);
    }

    /// Takes the object out: its reconcile begins, or it is gone. Returns since when it was due.
    pub fn take(&self, object: &ObjectRef<DynamicObject>) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object)
    }

    /// How many are due.
    pub fn len(&self) -> usize {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().filter(|due| **due <= now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::TaskRun;
    use std::time::Duration;

    #[test]
    fn only_what_is_due_waits_and_the_earliest_moment_counts() {
        let (queue, now, later) = (Queue::default(), Instant::now(), Instant::now() + Duration::from_hours(1));
        let object = |name: &str| ObjectRef::<TaskRun>::new(name).within("ns").erase();
        queue.add(object("task-1"), later);
        assert_eq!(queue.len(), 0, "what is to be done in an hour does not wait");
        queue.add(object("task-1"), now);
        queue.add(object("task-1"), later);
        queue.add(object("task-2"), now);
        assert_eq!(queue.len(), 2, "each object waits once");
        assert_eq!(queue.take(&object("task-1")), Some(now));
        assert_eq!((queue.take(&object("task-1")), queue.len()), (None, 1));
    }
}
