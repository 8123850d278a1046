//! Who adds to a task waits here for those of this process that add to it just now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The adds that wait for each other in this process, by task: otherwise all but one of them would be in vain.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<HashMap<(String, String), Place>>>);

pub(super) type Place = Arc<tokio::sync::Mutex<()>>;

impl Queues {
    /// The place of a task. It is forgotten when nobody waits there any more.
    pub(super) fn of(&self, namespace: &str, name: &str) -> Place {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        queues.entry((namespace.to_owned(), name.to_owned())).or_default().clone()
    }
}
