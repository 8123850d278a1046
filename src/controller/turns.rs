//! Whose turn it is to call the API server: so many at a time, in the order in which they came; those that only tell how a
//! run goes after the others, which start and end runs. In a burst of short runs most have ended by then, and are told once.
//!
//! A reconcile that finds no turn does not wait for one. kube-runtime (5.0) looks at each that has begun whenever anything
//! happens, so that in a burst those that wait would be most of the work. It ends, and its object is called when its turn has
//! come. A turn is never lost: whoever holds one gives it back by dropping it, and it goes to the next.

use super::cache::Kept;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::reflector::ObjectRef;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Of as many turns one goes to those of low priority, so that some always do.
const LOW_EACH: usize = 32;

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// What starts and ends runs.
    Normal,
    /// What only tells how one goes.
    Low,
}

/// All turns.
#[derive(Clone)]
pub struct Turns(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    calls: UnboundedSender<ObjectRef<Kept>>,
}

#[derive(Default)]
struct Queue {
    free: usize,
    waiting: VecDeque<Waiting>,
    /// Some of them may have got another priority since.
    low: VecDeque<ObjectRef<Kept>>,
    /// The objects that wait.
    objects: HashMap<ObjectRef<Kept>, Priority>,
    /// Turns that were given to somebody who waited.
    given: usize,
    /// Objects whose turn has come, and who have not taken it yet.
    called: HashSet<ObjectRef<Kept>>,
    is_closed: bool,
}

enum Waiting {
    Object(ObjectRef<Kept>),
    Other(oneshot::Sender<Turn>),
}

/// A turn. The next has it when this is dropped.
pub struct Turn(Arc<Shared>);

impl Turns {
    /// So many at a time; and the objects whose turn has come, which are then to be reconciled.
    pub fn new(many: usize) -> (Self, UnboundedReceiver<ObjectRef<Kept>>) {
        let (calls, called) = unbounded();
        let queue = Mutex::new(Queue { free: many, ..Queue::default() });
        (Self(Arc::new(Shared { queue, calls })), called)
    }

    /// The turn that this object was called for, if it was.
    pub fn of(&self, object: &ObjectRef<Kept>) -> Option<Turn> {
        let was_called = self.0.queue().called.remove(object);
        was_called.then(|| Turn(self.0.clone()))
    }

    /// A turn for this object; where none is free it is called once its turn has come.
    pub fn take(&self, object: &ObjectRef<Kept>, priority: Priority) -> Option<Turn> {
        let mut queue = self.0.queue();
        if queue.called.remove(object) || queue.take() {
            return Some(Turn(self.0.clone()));
        }
        let waits = queue.objects.get(object).copied();
        if queue.is_closed || waits == Some(Priority::Normal) || waits == Some(priority) {
            return None;
        }
        queue.objects.insert(object.clone(), priority);
        match priority {
            Priority::Normal => queue.waiting.push_back(Waiting::Object(object.clone())),
            Priority::Low => queue.low.push_back(object.clone()),
        }
        None
    }

    /// Waits for a turn, as the objects do; there is none where the turns are over.
    pub async fn wait(&self) -> Option<Turn> {
        let given = {
            let mut queue = self.0.queue();
            if queue.take() {
                return Some(Turn(self.0.clone()));
            }
            if queue.is_closed {
                return None;
            }
            let (give, given) = oneshot::channel();
            queue.waiting.push_back(Waiting::Other(give));
            given
        };
        given.await.ok()
    }

    /// Nobody begins any more.
    pub fn close(&self) {
        let mut queue = self.0.queue();
        *queue = Queue { is_closed: true, ..Queue::default() };
    }
}

impl Queue {
    /// Takes a turn that is free, if nobody waits for it.
    fn take(&mut self) -> bool {
        let is_free = self.free > 0 && !self.is_closed;
        self.free -= usize::from(is_free);
        is_free
    }

    /// Who is next of those that wait.
    fn next(&mut self) -> Option<Waiting> {
        self.given = self.given.wrapping_add(1);
        if self.given.is_multiple_of(LOW_EACH) {
            self.next_low().or_else(|| self.waiting.pop_front())
        } else {
            self.waiting.pop_front().or_else(|| self.next_low())
        }
    }

    fn next_low(&mut self) -> Option<Waiting> {
        while let Some(object) = self.low.pop_front() {
            if self.objects.get(&object) == Some(&Priority::Low) {
                return Some(Waiting::Object(object));
            }
        }
        None
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who comes next; nobody, and the turn is free then.
    fn next(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let next = queue.next();
        match &next {
            Some(Waiting::Object(object)) => {
                queue.objects.remove(object);
                queue.called.insert(object.clone());
            }
            Some(Waiting::Other(_)) => {}
            None => queue.free += 1,
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match self.0.next() {
            // one that nobody can be called to any more is where the reconciler has ended
            Some(Waiting::Object(object)) => drop(self.0.calls.unbounded_send(object)),
            // who has gone gives it back
            Some(Waiting::Other(give)) => drop(give.send(Turn(self.0.clone()))),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectRef<Kept> {
        ObjectRef::new(name).within("ns")
    }

    #[test]
    fn turns_are_given_in_the_order_in_which_objects_came_and_each_waits_once() {
        let (turns, mut called) = Turns::new(1);
        let first = turns.take(&object("first"), Priority::Normal).expect("it is free");
        for name in ["second", "third", "second"] {
            assert!(turns.take(&object(name), Priority::Normal).is_none(), "one at a time");
        }
        assert!(turns.of(&object("second")).is_none(), "not yet");
        drop(first);
        assert_eq!(called.try_recv().ok(), Some(object("second")));
        assert!(
            turns.take(&object("fourth"), Priority::Normal).is_none(),
            "the turn is the second's, who was only called so far"
        );
        drop(turns.of(&object("second")).expect("it was called"));
        assert_eq!(called.try_recv().ok(), Some(object("third")));
        // it has changed or is gone, and needs none
        drop(turns.of(&object("third")));
        assert_eq!(called.try_recv().ok(), Some(object("fourth")));
        drop(turns.of(&object("fourth")));
        assert!(called.try_recv().is_err(), "nobody waits twice");
        assert!(turns.take(&object("second"), Priority::Normal).is_some(), "and it is free again");
    }

    #[test]
    fn what_only_tells_comes_last_but_does_come() {
        let (turns, mut called) = Turns::new(1);
        let first = turns.take(&object("first"), Priority::Normal).expect("it is free");
        for name in ["told", "ended", "told too"] {
            assert!(turns.take(&object(name), Priority::Low).is_none());
        }
        assert!(turns.take(&object("new"), Priority::Normal).is_none());
        assert!(turns.take(&object("ended"), Priority::Normal).is_none(), "it has more to do now");
        assert!(turns.take(&object("ended"), Priority::Low).is_none(), "and that stays so");
        drop(first);
        for name in ["new", "ended", "told", "told too"] {
            assert_eq!(called.try_recv().ok(), Some(object(name)));
            drop(turns.of(&object(name)));
        }
        assert!(called.try_recv().is_err(), "each once");
        // where there is always more to do
        let mut turn = turns.take(&object("0"), Priority::Normal);
        assert!(turns.take(&object("told"), Priority::Low).is_none());
        let came = (1..=2 * LOW_EACH).find(|next| {
            assert!(turns.take(&object(&next.to_string()), Priority::Normal).is_none());
            drop(turn.take());
            let next = called.try_recv().expect("one that waits");
            turn = turns.of(&next);
            next == object("told")
        });
        assert!(came.is_some_and(|turns| turns <= LOW_EACH), "{came:?}");
    }

    #[tokio::test]
    async fn what_else_waits_has_its_turn_between_the_objects() {
        let (turns, mut called) = Turns::new(1);
        let first = turns.take(&object("first"), Priority::Normal).expect("it is free");
        let mut gone = Box::pin(turns.wait());
        assert!(futures::poll!(&mut gone).is_pending());
        let mut other = Box::pin(turns.wait());
        assert!(futures::poll!(&mut other).is_pending());
        assert!(turns.take(&object("second"), Priority::Normal).is_none());
        drop(gone);
        drop(first);
        let turn = other.await.expect("its turn: the one before it has gone");
        assert!(called.try_recv().is_err());
        drop(turn);
        assert_eq!(called.try_recv().ok(), Some(object("second")));
    }

    #[tokio::test]
    async fn nobody_begins_once_the_turns_are_over() {
        let (turns, mut called) = Turns::new(1);
        let first = turns.take(&object("first"), Priority::Normal).expect("it is free");
        assert!(turns.take(&object("second"), Priority::Normal).is_none());
        let mut other = Box::pin(turns.wait());
        assert!(futures::poll!(&mut other).is_pending());
        turns.close();
        assert!(other.await.is_none() && turns.wait().await.is_none());
        drop(first);
        assert!(called.try_recv().is_err() && turns.take(&object("third"), Priority::Normal).is_none());
    }
}
