//! The bytes of a review, held within a budget that all of them share.
//!
//! The first bytes of each are free of it: what is large or slow never keeps out the small, which most reviews are.

use crate::admission::MAX_REVIEW_BYTES;
use crate::metrics::{Metrics, Refused};
use actix_web::web::Payload;
use futures::StreamExt;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

const KIB: usize = 1024;
/// What a body holds for nothing: 64 KiB of objects, and what is around them.
const FREE: usize = 72 * KIB;
/// What all of them may hold beyond it, in KiB.
static BUDGET: Semaphore = Semaphore::const_new(64 * KIB);

/// A body, as far as it was read.
pub struct Body {
    bytes: Vec<u8>,
    /// What it holds of the budget.
    taken: Vec<SemaphorePermit<'static>>,
    metrics: Arc<Metrics>,
}

impl Body {
    /// Reads one whose head says this length. Beyond what is free, it holds room for what has come, not for what was
    /// announced.
    pub async fn read(mut payload: Payload, length: Option<usize>, metrics: Arc<Metrics>) -> Result<Self, Refused> {
        let mut body = Self { bytes: Vec::new(), taken: Vec::new(), metrics };
        let most = length.unwrap_or(MAX_REVIEW_BYTES);
        if most > MAX_REVIEW_BYTES {
            return Err(Refused::TooLarge);
        }
        while let Some(chunk) = payload.next().await {
            body.push(&chunk.map_err(|_| Refused::CutOff)?, most, &BUDGET)?;
            if body.len() > FREE {
                // one that comes fast would keep its worker for milliseconds
                tokio::task::yield_now().await;
            }
        }
        Ok(body)
    }

    fn push(&mut self, chunk: &[u8], most: usize, budget: &'static Semaphore) -> Result<(), Refused> {
        let (held, length) = (self.bytes.capacity(), self.bytes.len() + chunk.len());
        if length > most {
            return Err(Refused::TooLarge);
        }
        if length > held {
            let capacity = (2 * held).max(FREE).clamp(length, most);
            let more = beyond_free(capacity) - beyond_free(held);
            if more > 0 {
                self.taken.push(budget.try_acquire_many(more).map_err(|_| Refused::Memory)?);
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
            self.metrics.admission.holds(self.bytes.capacity().cast_signed() - held.cast_signed());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// What so many bytes take of the budget, in KiB.
fn beyond_free(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_sub(FREE).div_ceil(KIB)).unwrap_or(u32::MAX)
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.metrics.admission.holds(-self.bytes.capacity().cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_take_of_the_budget_and_small_ones_do_not() {
        static BUDGET: Semaphore = Semaphore::const_new(100);
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let body = || Body { bytes: Vec::new(), taken: Vec::new(), metrics: metrics.clone() };
        let kib = [b'a'; KIB];
        let fill = |kibs: usize| {
            let mut body = body();
            (0..kibs).try_for_each(|_| body.push(&kib, MAX_REVIEW_BYTES, &BUDGET)).map(|()| body)
        };
        let Ok(small) = fill(72) else { panic!("a small one is free") };
        assert_eq!((small.len(), BUDGET.available_permits()), (72 * KIB, 100), "a small one takes nothing");
        let Ok(large) = fill(73) else { panic!("there is room for a large one") };
        assert_eq!(BUDGET.available_permits(), 28, "a large one takes what it holds, twice as much at a time");
        assert_eq!(fill(200).err(), Some(Refused::Memory), "there is no room for a second");
        assert_eq!(BUDGET.available_permits(), 28, "and it gave back what it had");
        assert!(fill(72).is_ok(), "a small one has room beside it");
        drop(large);
        assert_eq!(BUDGET.available_permits(), 100);
        drop(small);
        let text = String::from_utf8(metrics.render()).expect("text");
        assert!(text.contains("taskrun_admission_body_bytes 0\n"), "all was given back: {text}");
    }

    #[test]
    fn a_body_holds_at_most_what_its_head_says() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let mut body = Body { bytes: Vec::new(), taken: Vec::new(), metrics };
        assert_eq!(body.push(b"1234", 6, &BUDGET), Ok(()));
        assert_eq!(body.push(b"56", 6, &BUDGET), Ok(()));
        assert_eq!((body.len(), body.bytes.capacity()), (6, 6));
        assert_eq!(body.push(b"7", 6, &BUDGET), Err(Refused::TooLarge));
    }
}
