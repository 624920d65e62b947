//! The body of a request while it arrives.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connection_state::ConnectionState;

/// A body that tells its connection when it was read to its end.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Incoming,
    connection: Arc<ConnectionState>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, connection: Arc<ConnectionState>) -> Self {
        connection.take(!body.is_end_stream());
        Self { body, connection }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.connection.take(false);
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
