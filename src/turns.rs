//! Turns: of the requests with one idempotency key, one runs at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::types::IdempotencyKey;

/// Who is at work on which key.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<IdempotencyKey, Weak<AsyncMutex<()>>>>);

impl Turns {
    /// Waits until nobody else works on this key. The turn ends when the guard is dropped.
    pub(crate) async fn take(&self, key: &IdempotencyKey) -> OwnedMutexGuard<()> {
        self.queue(key).lock_owned().await
    }

    fn queue(&self, key: &IdempotencyKey) -> Arc<AsyncMutex<()>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(key).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::default();
        queues.insert(key.clone(), Arc::downgrade(&queue));
        queue
    }
}
