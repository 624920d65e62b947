//! What becomes of a request, from its arrival to its log event.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    action::Action,
    types::{ClientName, Slug},
};

/// What is known of a request, more and more until its end.
#[derive(Debug, Default)]
pub struct Trail {
    begun: OnceLock<Begun>,
    tries: AtomicU32,
    upstream: AtomicU64,
    abandoned: Notify,
}

#[derive(Debug)]
struct Begun {
    client: ClientName,
    action: &'static str,
    product: Option<Slug>,
}

impl Trail {
    /// The name of the client, once it is known.
    pub fn client(&self) -> Option<&str> {
        self.begun.get().map(|begun| begun.client.as_str())
    }

    /// The name of the action, once it is known.
    pub fn action(&self) -> Option<&'static str> {
        self.begun.get().map(|begun| begun.action)
    }

    /// What the action is done to, once it is known.
    pub fn product(&self) -> Option<&str> {
        self.begun.get().and_then(|begun| begun.product.as_ref()).map(Slug::as_str)
    }

    /// How often the call was sent, also to where nobody was reached.
    pub fn tries(&self) -> u32 {
        self.tries.load(Relaxed)
    }

    /// How long the tries took, in microseconds.
    pub fn upstream_microseconds(&self) -> u64 {
        self.upstream.load(Relaxed)
    }

    /// The client has gone away: what was not sent yet need not be.
    pub fn abandon(&self) {
        self.abandoned.notify_one();
    }

    /// Waits until nobody waits for the answer any more. Of several that wait, one is told.
    pub(crate) async fn abandoned(&self) {
        self.abandoned.notified().await;
    }

    /// It is known now who makes which call.
    pub(crate) fn begin(&self, client: &ClientName, action: &Action, product: Option<Slug>) {
        // A request is one call, so nothing is there yet.
        let _ = self.begun.set(Begun { client: client.clone(), action: action.name, product });
    }

    /// One more try was made, which took so long.
    pub(crate) fn tried(&self, time: Duration) {
        self.tries.fetch_add(1, Relaxed);
        self.upstream.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
