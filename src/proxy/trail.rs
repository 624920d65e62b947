//! What a request came to, for its log event.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::Incoming;
use crate::types::{ClientName, Slug};

/// What is known of a request by its end.
#[derive(Debug, Default)]
pub struct Trail {
    call: OnceLock<Call>,
    tries: AtomicU32,
    upstream: AtomicU64,
    /// Whether nobody waits for the answer any more.
    pub(super) is_abandoned: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Call {
    client: ClientName,
    action: &'static str,
    product: Option<Slug>,
}

impl Trail {
    /// The name of the client, once it is known.
    pub fn client(&self) -> Option<&str> {
        self.call.get().map(|call| call.client.as_str())
    }

    /// The name of the action, once it is known.
    pub fn action(&self) -> Option<&'static str> {
        self.call.get().map(|call| call.action)
    }

    /// What the action is done to, once it is known.
    pub fn product(&self) -> Option<&str> {
        self.call.get().and_then(|call| call.product.as_ref()).map(Slug::as_str)
    }

    /// How often the call was sent.
    pub fn tries(&self) -> u32 {
        self.tries.load(Relaxed)
    }

    /// How long the tries took, in microseconds.
    pub fn upstream_microseconds(&self) -> u64 {
        self.upstream.load(Relaxed)
    }

    /// The client has gone away: what was not sent yet need not be.
    pub fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
    }

    pub(super) fn begin(&self, incoming: &Incoming) {
        let Incoming { call, client, .. } = incoming;
        let client = client.name.clone();
        let (action, product) = (call.action().name, call.id().cloned());
        // A request is one call, so nothing is there yet.
        let _ = self.call.set(Call { client, action, product });
    }

    pub(super) fn tried(&self, time: Duration) {
        self.tries.fetch_add(1, Relaxed);
        self.upstream.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
