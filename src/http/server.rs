//! Connections: what one may cost, and how it ends.

use std::{pin::pin, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The largest head of a request, in bytes. It is also the most that is read ahead of a body.
const MAX_HEAD: usize = 16 * 1024;

/// The most header lines of a request.
const MAX_HEADERS: usize = 64;

/// What clients may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many calls run at once; more are refused at once.
    pub in_flight: usize,
    /// How long a client may take until the head of its first or its next request is there; then the
    /// connection is closed.
    pub head: Duration,
    /// How long a client may take for a body, counted from the head; then the call is refused.
    pub body: Duration,
}

impl Default for Limits {
    /// 1024 calls; a minute for the head, which is also how long an idle connection stays open; half
    /// a minute for the body.
    fn default() -> Self {
        Self { in_flight: 1024, head: Duration::from_secs(60), body: Duration::from_secs(30) }
    }
}

/// Serves until `stop` is cancelled, and then until every request that has begun is answered.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            // It waits by itself when the descriptors have run out.
            (stream, _) = Listener::accept(&mut listener) => {
                let served = connection(stream, router.clone(), limits, stop.clone());
                connections.spawn(served);
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, stop: CancellationToken) {
    // Without it, an answer in two parts waits for the client's word on the first. It fails on a
    // connection that is gone already, which shows soon enough.
    let _ = stream.set_nodelay(true);
    // A connection that says nothing costs next to nothing: its buffers come with its first byte.
    let begins = tokio::select! {
        begins = timeout(limits.head, begins(&stream)) => begins.unwrap_or(false),
        () = stop.cancelled() => false,
    };
    if !begins {
        return;
    }
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    // Its errors are the client's, and nobody is left to be told.
    tokio::select! {
        _ = served.as_mut() => return,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

/// Waits for the first byte; false if there will be none.
async fn begins(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).await, Ok(1))
}
