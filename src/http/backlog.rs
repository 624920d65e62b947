//! Large answers that clients have not taken yet.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::body::Bytes;

/// Answers from this size on are counted, in bytes. Smaller ones fit into the buffers of the system.
const LARGE: usize = 64 * 1024;

/// From so many bytes on, a client that does not take its answer is not waited for.
const TOO_MUCH: usize = 64 * 1024 * 1024;

/// How many bytes of large answers wait to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsent(Arc<AtomicUsize>);

/// A body that is counted until it is dropped.
struct Counted {
    body: Bytes,
    unsent: Unsent,
}

impl Unsent {
    /// The same body, counted until it is written.
    pub(super) fn count(&self, body: Bytes) -> Bytes {
        if body.len() < LARGE {
            return body;
        }
        self.0.fetch_add(body.len(), Relaxed);
        Bytes::from_owner(Counted { body, unsent: self.clone() })
    }

    pub(super) fn is_too_much(&self) -> bool {
        self.0.load(Relaxed) > TOO_MUCH
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unsent.0.fetch_sub(self.body.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_are_counted_until_they_are_gone() {
        let unsent = Unsent::default();
        let body = || Bytes::from(vec![0; 16 * 1024 * 1024]);
        let held: Vec<_> = (0..5).map(|_| unsent.count(body())).collect();
        assert!(unsent.is_too_much());
        let part = held[0].slice(1..);
        drop(held);
        assert_eq!((part.len(), unsent.is_too_much()), (16 * 1024 * 1024 - 1, false));
        drop(part);
        assert_eq!(unsent.0.load(Relaxed), 0);
        let _small = unsent.count(Bytes::from_static(b"{}"));
        assert_eq!(unsent.0.load(Relaxed), 0);
    }
}
