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
pub(super) struct Usage {
    asked: AtomicBool,
    busy: AtomicBool,
    lingers: AtomicBool,
    /// Whether it was told to make room.
    ends: AtomicBool,
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

    /// Has the oldest closed that only lingers; or else the oldest that has not asked for anything yet,
    /// or that waits for its next request. False if there is none of them.
    pub(super) fn close_one(&self) -> bool {
        let mut all = self.all();
        let first = |is_free: fn(&Usage) -> bool| {
            all.iter().find(|(_, usage)| is_free(usage)).map(|(number, _)| *number)
        };
        let found = first(|usage| usage.lingers.load(Relaxed))
            .or_else(|| first(|usage| !usage.asked.load(Relaxed)))
            .or_else(|| first(|usage| !usage.busy.load(Relaxed)));
        let Some(usage) = found.and_then(|number| all.remove(&number)) else { return false };
        usage.ends.store(true, Relaxed);
        usage.close.notify_one();
        true
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Usage>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    /// Its last answer is written, and only the rest of its request is still read.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Relaxed);
    }

    /// Whether it was told to make room.
    pub(super) fn is_to_end(&self) -> bool {
        self.ends.load(Relaxed)
    }
}

impl Entry {
    pub(super) fn usage(&self) -> Arc<Usage> {
        self.usage.clone()
    }

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

    /// Whether nothing is left to do but to read what nobody needs.
    pub(super) fn lingers(&self) -> bool {
        self.usage.lingers.load(Relaxed)
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
        let [idle, busy, first, second, lingering, gone] = [(); 6].map(|()| open.enter());
        idle.begin();
        idle.end();
        busy.begin();
        lingering.usage().linger();
        drop(gone);
        let all = [&idle, &busy, &first, &second, &lingering];
        for expected in [4, 2, 3, 0] {
            assert!(open.close_one());
            let closed = all.map(|entry| entry.closed().now_or_never().is_some());
            assert_eq!(closed, [0, 1, 2, 3, 4].map(|number| number == expected));
        }
        assert!(!open.close_one(), "what is at work is not cut off");
    }
}
