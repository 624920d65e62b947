//! Connections that have not asked for anything yet. When descriptors run short, they go first.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::oneshot;

/// The connections without a request so far, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Unasked {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
}

/// A connection's entry, until it has asked for something or is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    unasked: Arc<Unasked>,
    number: u64,
}

impl Unasked {
    /// Enters a connection, which is to be closed once the receiver gets its word.
    pub(super) fn enter(self: &Arc<Self>) -> (Entry, oneshot::Receiver<()>) {
        let number = self.next.fetch_add(1, Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(number, sender);
        (Entry { unasked: self.clone(), number }, receiver)
    }

    /// Has the oldest closed; false if there is none.
    pub(super) fn close_one(&self) -> bool {
        let oldest = self.waiting().pop_first();
        // It may be at its end already, which is as good.
        oldest.map(|(_, sender)| sender.send(())).is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The connection has asked for something.
    pub(super) fn leave(&self) {
        self.unasked.waiting().remove(&self.number);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_has_not_asked_is_closed_first() {
        let unasked = Arc::<Unasked>::default();
        let [mut first, mut second, mut third] = [(); 3].map(|()| unasked.enter());
        first.0.leave();
        assert!(unasked.close_one());
        assert!(second.1.try_recv().is_ok());
        assert!(first.1.try_recv().is_err() && third.1.try_recv().is_err());
        drop(third.0);
        assert!(!unasked.close_one(), "nobody is left");
    }
}
