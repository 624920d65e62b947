//! The state of a connection: what it is used for, and what of it is unread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

/// The state of a connection while it is open.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    has_begun: AtomicBool,
    is_busy: AtomicBool,
    lingers: AtomicBool,
    is_evicted: AtomicBool,
    evicted: Notify,
    /// Whether the body of the last request is not at its end.
    has_unread_body: AtomicBool,
    /// Whether bytes have come since the last request or its body.
    has_more: AtomicBool,
}

impl ConnectionState {
    /// A request has come.
    pub(super) fn begin_request(&self) {
        self.has_begun.store(true, Relaxed);
        self.is_busy.store(true, Relaxed);
    }

    /// The request has its answer.
    pub(super) fn end_request(&self) {
        self.is_busy.store(false, Relaxed);
    }

    /// Whether a request has come so far.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Relaxed)
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Relaxed)
    }

    /// The last answer is written, and only the rest of its request is still read.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Relaxed);
    }

    /// Whether only the rest of a request is still read.
    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Relaxed)
    }

    /// Has the connection closed as soon as may be, to make room for another.
    pub(super) fn evict(&self) {
        self.is_evicted.store(true, Relaxed);
        self.evicted.notify_one();
    }

    /// Whether it is to be closed as soon as may be.
    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Relaxed)
    }

    /// Waits until it is to be closed.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// A request was taken, or its body was read to the end.
    pub(super) fn take(&self, has_body: bool) {
        self.has_unread_body.store(has_body, Relaxed);
        self.has_more.store(false, Relaxed);
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        self.has_more.store(true, Relaxed);
    }

    /// Whether the body of the last request is not at its end.
    pub(super) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Relaxed)
    }

    /// Whether bytes of the client are still unread: closing the connection then would cut the client off
    /// before it has read its answer.
    pub(super) fn has_unread(&self) -> bool {
        self.has_unread_body() || self.has_more.load(Relaxed)
    }
}
