//! The backlog of answers: large ones that clients have not taken yet.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::body::Bytes;

/// Answers from this size on are counted, in bytes. Smaller ones fit into the buffers of the system.
const LARGE: usize = 64 * 1024;

/// The most bytes of the backlog. Beyond it, slow clients lose their connections.
const MOST: usize = 64 * 1024 * 1024;

/// How many bytes of large answers wait to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<AtomicUsize>);

/// A body that counts until it is dropped.
struct CountedBody {
    body: Bytes,
    backlog: Backlog,
}

impl Backlog {
    /// The same body, counted until it is written.
    pub(super) fn count(&self, body: Bytes) -> Bytes {
        if body.len() < LARGE {
            return body;
        }
        self.0.fetch_add(body.len(), Relaxed);
        Bytes::from_owner(CountedBody { body, backlog: self.clone() })
    }

    /// Whether it is more than may wait.
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Relaxed) > MOST
    }
}

impl AsRef<[u8]> for CountedBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.body.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_are_counted_until_they_are_gone() {
        let backlog = Backlog::default();
        let body = || Bytes::from(vec![0; 16 * 1024 * 1024]);
        let held: Vec<_> = (0..5).map(|_| backlog.count(body())).collect();
        assert!(backlog.is_full());
        let part = held[0].slice(1..);
        drop(held);
        assert_eq!((part.len(), backlog.is_full()), (16 * 1024 * 1024 - 1, false));
        drop(part);
        assert_eq!(backlog.0.load(Relaxed), 0);
        let _small = backlog.count(Bytes::from_static(b"{}"));
        assert_eq!(backlog.0.load(Relaxed), 0);
    }
}
