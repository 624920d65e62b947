//! Turns: of the requests with one client and idempotency key, one runs at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Who is at work on which key.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<ClientKey, Weak<AsyncMutex<()>>>>);

/// A client and its key.
type ClientKey = (String, String);

impl Turns {
    /// Waits until nobody else works on this key. The turn ends when the guard is dropped.
    pub(crate) async fn take(&self, client: &str, key: &str) -> OwnedMutexGuard<()> {
        self.queue((client.to_owned(), key.to_owned())).lock_owned().await
    }

    fn queue(&self, key: ClientKey) -> Arc<AsyncMutex<()>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&key).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::default();
        queues.insert(key, Arc::downgrade(&queue));
        queue
    }
}
