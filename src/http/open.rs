//! The open connections. When descriptors run short, those that ask for nothing make room.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Open {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Usage>>>,
}

/// What a connection is used for.
#[derive(Debug, Default)]
struct Usage {
    asked: AtomicBool,
    busy: AtomicBool,
    close: Notify,
}

/// A connection's entry, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    open: Arc<Open>,
    number: u64,
    usage: Arc<Usage>,
}

impl Open {
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let (number, usage) = (self.next.fetch_add(1, Relaxed), Arc::<Usage>::default());
        self.all().insert(number, usage.clone());
        Entry { open: self.clone(), number, usage }
    }

    /// Has the oldest closed that has not asked for anything yet, or else the oldest that waits for its
    /// next request; false if there is neither.
    pub(super) fn close_one(&self) -> bool {
        let mut all = self.all();
        let first = |state: fn(&Usage) -> &AtomicBool| {
            all.iter().find(|(_, usage)| !state(usage).load(Relaxed)).map(|(number, _)| *number)
        };
        let found = first(|usage| &usage.asked).or_else(|| first(|usage| &usage.busy));
        let usage = found.and_then(|number| all.remove(&number));
        usage.map(|usage| usage.close.notify_one()).is_some()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Usage>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// A request has come.
    pub(super) fn begin(&self) {
        self.usage.asked.store(true, Relaxed);
        self.usage.busy.store(true, Relaxed);
    }

    /// The request has its answer.
    pub(super) fn end(&self) {
        self.usage.busy.store(false, Relaxed);
    }

    /// Whether a request has come so far.
    pub(super) fn has_asked(&self) -> bool {
        self.usage.asked.load(Relaxed)
    }

    /// Waits until the connection is to make room.
    pub(super) async fn closed(&self) {
        self.usage.close.notified().await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.all().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn those_that_ask_for_nothing_make_room_the_oldest_first() {
        let open = Arc::<Open>::default();
        let [idle, busy, first, second, gone] = [(); 5].map(|()| open.enter());
        idle.begin();
        idle.end();
        busy.begin();
        drop(gone);
        let closed = || {
            let all = [&idle, &busy, &first, &second];
            all.map(|entry| entry.closed().now_or_never().is_some())
        };
        for expected in
            [[false, false, true, false], [false, false, false, true], [true, false, false, false]]
        {
            assert!(open.close_one());
            assert_eq!(closed(), expected);
        }
        assert!(!open.close_one(), "what is at work is not cut off");
    }
}
