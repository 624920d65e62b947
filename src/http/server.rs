//! Connections: what one may cost, and how it ends.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use futures_util::future::join_all;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    crowd::{Crowd, Exempt},
    instance::Instance,
    listener::{Detached, Listener, Stream},
    peer::Peer,
    tls::Tls,
    workers::Workers,
};

/// The largest head of a request, in bytes. It is also the most that is read ahead of a body.
const MAX_HEAD: usize = 16 * 1024;

/// The most header lines of a request.
const MAX_HEADERS: usize = 64;

/// What clients may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take until the head of its first or its next request is there, and for a
    /// TLS handshake; then the connection is closed.
    pub head: Duration,
    /// How long a client may take for a body, counted from the head; then the call is refused.
    pub body: Duration,
    /// How many connections one address may have; more are closed at once.
    pub connections_per_peer: usize,
    /// Whom that does not concern.
    pub exempt: Exempt,
}

impl Default for Limits {
    /// A minute for the head, which is also how long an idle connection stays open; half a minute for
    /// the body; 256 connections, for addresses other than loopback.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            body: Duration::from_secs(30),
            connections_per_peer: 256,
            exempt: Exempt::Loopback,
        }
    }
}

/// Serves until `stop` is cancelled, and then until every request that has begun is answered.
///
/// Ports speak TLS if `instance` has it. A proxy in front of it may have any number of connections,
/// since they are everybody's.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    instance: Arc<Instance>,
    workers: Workers,
    stop: CancellationToken,
) {
    let most = if instance.is_behind_proxy() { usize::MAX } else { limits.connections_per_peer };
    let crowd = Crowd::new(most, limits.exempt);
    let server = Arc::new(Server { router, limits, instance, crowd, workers, stop });
    let connections = TaskTracker::new();
    join_all(listeners.into_iter().map(|listener| server.listen(listener, &connections))).await;
    connections.close();
    connections.wait().await;
}

/// What every connection needs.
struct Server {
    router: Router,
    limits: Limits,
    instance: Arc<Instance>,
    crowd: Arc<Crowd>,
    workers: Workers,
    stop: CancellationToken,
}

impl Server {
    /// Takes connections until it is time to stop.
    async fn listen(self: &Arc<Self>, mut listener: Listener, connections: &TaskTracker) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                stream = listener.accept() => {
                    // One that is gone already needs no answer.
                    if let Ok(stream) = stream.detach() {
                        self.hand_over(stream, connections);
                    }
                }
            }
        }
    }

    fn hand_over(self: &Arc<Self>, stream: Detached, connections: &TaskTracker) {
        let (server, connection) = (self.clone(), connections.token());
        self.workers.serve(move || async move {
            if let Ok(stream) = stream.attach() {
                server.connection(stream).await;
            }
            drop(connection);
        });
    }

    async fn connection(self: Arc<Self>, stream: Stream) {
        let address = stream.address();
        let member = address.map(|address| self.crowd.admit(address));
        if let Some(None) = member {
            let peer = address.map(tracing::field::display);
            return tracing::debug!(
                peer,
                "a connection beyond max_connections_per_peer was closed"
            );
        }
        // A connection that says nothing costs next to nothing: its buffers come with its first byte.
        if self.in_time(stream.begins()).await != Some(true) {
            return;
        }
        let passes_on = self.instance.is_behind_proxy();
        let local = stream.local();
        let peer = Peer { address, local, uid: None, certificate: None, passes_on };
        match stream {
            Stream::Tcp(stream, _) => self.tcp(stream, peer).await,
            Stream::Unix(stream) => {
                let uid = stream.peer_cred().ok().map(|process| process.uid());
                Box::pin(self.http(stream, Peer { uid, ..peer })).await;
            }
        }
    }

    async fn tcp(&self, stream: TcpStream, peer: Peer) {
        // Without it, an answer in two parts waits for the client's word on the first. It fails on a
        // connection that is gone already, which shows soon enough.
        let _ = stream.set_nodelay(true);
        let tls = self.instance.live().tls.clone();
        match tls {
            // In boxes of their own, since one without TLS takes a third of the room.
            Some(tls) => Box::pin(self.tls(&tls, stream, peer)).await,
            None => Box::pin(self.http(stream, peer)).await,
        }
    }

    async fn tls(&self, tls: &Tls, stream: TcpStream, peer: Peer) {
        match self.in_time(tls.accept(stream)).await {
            Some(Ok((stream, certificate))) => {
                self.http(stream, Peer { certificate, ..peer }).await;
            }
            Some(Err(error)) => {
                let peer = peer.address.map(tracing::field::display);
                tracing::debug!(peer, %error, "a connection without a good TLS handshake was closed");
            }
            None => {}
        }
    }

    async fn http<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router.clone());
        let asked = AtomicBool::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            asked.store(true, Relaxed);
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.head);
        http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
        // Its errors are the client's, and nobody is left to be told.
        tokio::select! {
            // What has arrived by then is read first.
            biased;
            _ = served.as_mut() => return,
            () = self.stop.cancelled() => {}
        }
        // hyper would wait for the rest of a first head.
        if !asked.load(Relaxed) {
            return;
        }
        served.as_mut().graceful_shutdown();
        let _ = served.await;
    }

    /// What has the time of a head; `None` if it takes longer, or the end comes first.
    async fn in_time<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = timeout(self.limits.head, waiting) => done.ok(),
            () = self.stop.cancelled() => None,
        }
    }
}
