//! The open connections. When descriptors run short, those that ask for nothing are evicted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::connection_state::ConnectionState;

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
pub(super) struct OpenConnections {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<ConnectionState>>>,
}

/// An open connection. Dropping it takes it off the list.
#[derive(Debug)]
pub(super) struct OpenConnection {
    list: Arc<OpenConnections>,
    number: u64,
    pub(super) state: Arc<ConnectionState>,
}

impl OpenConnections {
    pub(super) fn add(self: &Arc<Self>) -> OpenConnection {
        let (number, state) = (self.next.fetch_add(1, Relaxed), Arc::<ConnectionState>::default());
        self.all().insert(number, state.clone());
        OpenConnection { list: self.clone(), number, state }
    }

    /// Evicts the oldest that only lingers; or else the oldest without a request so far, or the oldest
    /// between two requests. False if there is none of them.
    pub(super) fn evict_one(&self) -> bool {
        let mut all = self.all();
        let first = |is_free: fn(&ConnectionState) -> bool| {
            all.iter().find(|(_, state)| is_free(state)).map(|(number, _)| *number)
        };
        let found = first(ConnectionState::lingers)
            .or_else(|| first(|state| !state.has_begun()))
            .or_else(|| first(|state| !state.is_busy()));
        let evicted = found.and_then(|number| all.remove(&number));
        evicted.inspect(|state| state.evict()).is_some()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ConnectionState>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.list.all().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn those_that_ask_for_nothing_make_room_the_oldest_first() {
        let open = Arc::<OpenConnections>::default();
        let [idle, busy, first, second, lingering, gone] = [(); 6].map(|()| open.add());
        idle.state.begin_request();
        idle.state.end_request();
        busy.state.begin_request();
        lingering.state.linger();
        drop(gone);
        let all = [&idle, &busy, &first, &second, &lingering];
        for expected in [4, 2, 3, 0] {
            assert!(open.evict_one());
            let evicted = all.map(|one| one.state.evicted().now_or_never().is_some());
            assert_eq!(evicted, [0, 1, 2, 3, 4].map(|number| number == expected));
        }
        assert!(!open.evict_one(), "what is at work is not cut off");
    }
}
