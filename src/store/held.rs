//! The idempotency keys that calls of this run work on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A client's key for one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CallKey {
    pub(super) client: String,
    pub(super) key: String,
}

/// Who holds which key. A row of the database that is marked as running by this run, while nobody
/// holds its key, was left behind.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    holders: HashMap<CallKey, Holder>,
    last: u64,
}

/// One hold of one key. Two of the same key differ, so that who ends late ends only its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder(u64);

impl Held {
    /// A holder that holds nothing yet.
    pub(super) fn holder(&self) -> Holder {
        let mut state = self.state();
        state.last += 1;
        Holder(state.last)
    }

    /// Who holds the key.
    pub(super) fn holder_of(&self, call: &CallKey) -> Option<Holder> {
        self.state().holders.get(call).copied()
    }

    /// From now on, `holder` holds the key.
    pub(super) fn hold(&self, call: &CallKey, holder: Holder) {
        self.state().holders.insert(call.clone(), holder);
    }

    /// Ends the hold, if it is still that one.
    pub(super) fn end(&self, call: &CallKey, holder: Option<Holder>) {
        let mut state = self.state();
        if state.holders.get(call).copied() == holder {
            state.holders.remove(call);
        }
    }

    /// Nothing here panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_late_does_not_end_the_hold_of_another() {
        let held = Held::default();
        let call = CallKey { client: "a".into(), key: "b".into() };
        let (first, second) = (held.holder(), held.holder());
        held.hold(&call, first);
        held.hold(&call, second);
        held.end(&call, Some(first));
        assert_eq!(held.holder_of(&call), Some(second));
        held.end(&call, Some(second));
        assert_eq!(held.holder_of(&call), None);
    }
}
