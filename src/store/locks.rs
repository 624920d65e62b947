//! Locks of this process: of the calls with one idempotency key, or of the completions of one job, one is
//! made at a time.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::{Instant, timeout_at},
};

/// The locks that calls hold or wait for, by name.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

/// Held locks. Dropping it, also in a panic, frees them.
pub(super) struct Locked(#[expect(dead_code, reason = "it is held")] Vec<OwnedMutexGuard<()>>);

impl Locks {
    /// Waits for all of these locks, in this order; `None` if that takes until the deadline. To prevent
    /// deadlocks, all callers give names in the same order of their kinds.
    pub(super) async fn lock(&self, names: Vec<String>, deadline: Instant) -> Option<Locked> {
        let mut locked = Vec::with_capacity(names.len());
        for name in names {
            locked.push(timeout_at(deadline, self.named(name).lock_owned()).await.ok()?);
        }
        Some(Locked(locked))
    }

    fn named(&self, name: String) -> Arc<AsyncMutex<()>> {
        // Nothing panics while it holds the mutex.
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&name).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(name, Arc::downgrade(&lock));
        lock
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").finish_non_exhaustive()
    }
}
