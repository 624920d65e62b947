//! Bodies of requests while they arrive.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Whether bytes of the client are still unread on a connection: closing it then would cut the client
/// off before it has read its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether the body of the last request is not at its end.
    body: AtomicBool,
    /// Whether something has come since the last request or its body.
    more: AtomicBool,
}

impl Unread {
    /// Something has come.
    pub(super) fn come(&self) {
        self.0.more.store(true, Relaxed);
    }

    /// Whether the body of the last request is not at its end.
    pub(super) fn has_body(&self) -> bool {
        self.0.body.load(Relaxed)
    }

    /// Whether there is anything that its sender may not have got rid of.
    pub(super) fn has_any(&self) -> bool {
        self.has_body() || self.0.more.load(Relaxed)
    }

    /// A request was taken, or its body was read to the end.
    fn take(&self, body: bool) {
        self.0.body.store(body, Relaxed);
        self.0.more.store(false, Relaxed);
    }
}

/// A body that tells its connection when it was read to its end.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    unread: Unread,
}

impl Arriving {
    pub(super) fn new(body: Incoming, unread: Unread) -> Self {
        unread.take(!body.is_end_stream());
        Self { body, unread }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.unread.take(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
