//! Connections: what one may cost, and how it ends.

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
};
use futures_util::future::join_all;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection_limiter::ConnectionLimiter,
    connection_state::ConnectionState,
    instance::Instance,
    listener::{DetachedStream, Listener, Stream},
    open_connections::OpenConnections,
    peer::Peer,
    request_body::RequestBody,
    tls::{self, Tls},
    wire::Wire,
    workers::Workers,
};

/// The largest head of a request, in bytes. It is also the most that is read ahead of a body.
const MAX_HEAD: usize = 16 * 1024;

/// The most header lines of a request.
const MAX_HEADERS: usize = 64;

/// How long nothing is accepted after descriptors ran out.
const PAUSE: Duration = Duration::from_millis(10);

/// Limits on the time and the connections that one client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time-out for the TLS handshake, and for the head of each request, counted from when the
    /// connection opens or the last answer ends. After it the connection is closed.
    pub head: Duration,
    /// The time-out for a body, counted from its head. After it the call is refused.
    pub body: Duration,
    /// The time-out for a client that reads nothing of its answer. After it the connection is closed.
    pub write: Duration,
    /// How many connections one address may have open. Further ones are closed at once.
    pub connections_per_peer: usize,
    /// Whether that holds for programs on this machine too.
    pub limits_loopback: bool,
}

impl Default for Limits {
    /// 60 seconds for the head, so an idle connection also stays open for 60 seconds; 30 seconds for
    /// the body, and for a client that does not read; 256 connections, except on loopback.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            connections_per_peer: 256,
            limits_loopback: false,
        }
    }
}

/// Serves until `stop` is cancelled, and then until every request that has begun is answered.
///
/// Ports speak TLS if `instance` has it. The limit of connections does not apply to a proxy in front,
/// which carries the connections of all clients.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    instance: Arc<Instance>,
    workers: Workers,
    stop: CancellationToken,
) {
    let most = if instance.is_behind_proxy() { usize::MAX } else { limits.connections_per_peer };
    let limiter = ConnectionLimiter::new(most, limits.limits_loopback);
    let (open, most_open) = (Arc::default(), most_open());
    let server =
        Arc::new(Server { router, limits, instance, limiter, open, most_open, workers, stop });
    let connections = TaskTracker::new();
    join_all(listeners.into_iter().map(|listener| server.listen(listener, &connections))).await;
    connections.close();
    connections.wait().await;
}

/// How many connections may be open, so that a quarter of the descriptors, or 128, is left for the
/// upstream and for files.
fn most_open() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit - (limit / 4).min(128)
}

/// The context of every connection.
struct Server {
    router: Router,
    limits: Limits,
    instance: Arc<Instance>,
    limiter: Arc<ConnectionLimiter>,
    open: Arc<OpenConnections>,
    most_open: usize,
    workers: Workers,
    stop: CancellationToken,
}

impl Server {
    /// Takes connections until it is time to stop.
    async fn listen(self: &Arc<Self>, mut listener: Listener, connections: &TaskTracker) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                stream = listener.accept() => match stream.and_then(Stream::detach) {
                    Ok(stream) if self.has_room(connections) => self.hand_over(stream, connections),
                    Ok(_) => tracing::debug!("a connection beyond the descriptors was closed"),
                    // One that is gone already needs no answer.
                    Err(error) if is_gone(&error) => {}
                    Err(error) => {
                        tracing::debug!(%error, "no connection can be accepted");
                        self.open.evict_one();
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Whether there are descriptors for one more connection, if need be by evicting one that asks for
    /// nothing.
    fn has_room(&self, connections: &TaskTracker) -> bool {
        connections.len() < self.most_open || self.open.evict_one()
    }

    fn hand_over(self: &Arc<Self>, stream: DetachedStream, connections: &TaskTracker) {
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
        let permit = address.map(|address| self.limiter.permit(address));
        if let Some(None) = permit {
            let peer = address.map(tracing::field::display);
            return tracing::debug!(
                peer,
                "a connection beyond max_connections_per_peer was closed"
            );
        }
        let open = self.open.add();
        let state = &open.state;
        // Buffers are allocated after the first byte, so an idle connection costs almost no memory.
        let Some(Some(first)) = self.in_time(state, stream.first_byte()).await else { return };
        let passes_on = self.instance.is_behind_proxy();
        let local = stream.local();
        let peer = Peer { address, local, uid: None, certificate: None, passes_on };
        match stream {
            Stream::Tcp(stream, _) => self.tcp(stream, first, peer, state).await,
            Stream::Unix(stream) => {
                let uid = stream.peer_cred().ok().map(|process| process.uid());
                Box::pin(self.http(stream, Peer { uid, ..peer }, state)).await;
            }
        }
    }

    async fn tcp(&self, stream: TcpStream, first: u8, peer: Peer, state: &Arc<ConnectionState>) {
        // Without it, an answer in two parts waits for the client's word on the first. It fails on a
        // connection that is gone already, which shows soon enough.
        let _ = stream.set_nodelay(true);
        let tls = self.instance.live().tls.clone();
        match tls {
            // In boxes of their own, since one without TLS takes a third of the room.
            Some(_) if tls::is_plain(first) => Box::pin(self.plain(stream, peer, state)).await,
            Some(tls) => Box::pin(self.tls(&tls, stream, peer, state)).await,
            None => Box::pin(self.http(stream, peer, state)).await,
        }
    }

    /// Tells a client that speaks plain HTTP what is wrong with that.
    async fn plain(&self, stream: TcpStream, peer: Peer, state: &Arc<ConnectionState>) {
        state.received();
        let mut wire = self.wire(stream, state);
        // A caller that does not wait for it need not be told.
        let _ = self.in_time(state, tls::refuse_plain(&mut wire)).await;
        let peer = peer.address.map(tracing::field::display);
        tracing::debug!(peer, "plain HTTP on a port with TLS was refused");
    }

    async fn tls(&self, tls: &Tls, stream: TcpStream, peer: Peer, state: &Arc<ConnectionState>) {
        match self.in_time(state, tls.accept(stream)).await {
            Some(Ok((stream, certificate))) => {
                self.http(stream, Peer { certificate, ..peer }, state).await;
            }
            Some(Err(error)) => {
                let peer = peer.address.map(tracing::field::display);
                tracing::debug!(peer, %error, "a connection without a good TLS handshake was closed");
            }
            None => {}
        }
    }

    fn wire<S>(&self, stream: S, state: &Arc<ConnectionState>) -> Wire<S> {
        let backlog = self.instance.backlog().clone();
        Wire::new(stream, state.clone(), backlog, self.limits.write)
    }

    async fn http<S>(&self, stream: S, peer: Peer, state: &Arc<ConnectionState>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|request: Request<Incoming>| {
            state.begin_request();
            let mut request = request.map(|body| RequestBody::new(body, state.clone()));
            request.extensions_mut().insert(peer.clone());
            let answer = router.call(request);
            async move {
                let mut answer = answer.await?;
                // A stream of events is not idle.
                if answer.body().size_hint().exact().is_some() {
                    state.end_request();
                }
                // The next request cannot be told from an unread body before it.
                if state.has_unread_body() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.head);
        http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        let wire = self.wire(stream, state);
        let mut served = pin!(http.serve_connection(TokioIo::new(wire), service));
        // Its errors are the client's, which has gone.
        tokio::select! {
            // Bytes that have arrived by then are read first.
            biased;
            _ = served.as_mut() => return,
            () = self.stop.cancelled() => {}
            () = state.evicted() => {
                tracing::debug!("a connection makes room for another");
                if state.lingers() {
                    return;
                }
            }
        }
        // hyper would wait for the rest of a first head.
        if !state.has_begun() {
            return;
        }
        served.as_mut().graceful_shutdown();
        let _ = served.await;
    }

    /// Awaits a future up to the head time-out. Returns `None` on the time-out, on shutdown, or if this
    /// connection is evicted.
    async fn in_time<T>(
        &self,
        state: &Arc<ConnectionState>,
        waiting: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            done = timeout(self.limits.head, waiting) => done.ok(),
            () = self.stop.cancelled() => None,
            () = state.evicted() => None,
        }
    }
}

/// Whether a connection failed that was not even accepted; the next may be well.
fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;
    use crate::http::{Guard, Live};

    /// How long a connection takes to make room for another once its request was answered: one whose
    /// client has announced a body of which nothing is read, and sends it no further.
    async fn makes_room(size: usize) -> Duration {
        let live = Live::new(None, Guard::default());
        let read = || Err("there is nothing to reload".to_owned());
        let server = Server {
            router: Router::new().route("/", get(|| async { "x".repeat(100) })),
            limits: Limits::default(),
            instance: Instance::new(Vec::new(), false, live, read),
            limiter: ConnectionLimiter::new(1, false),
            open: Arc::default(),
            most_open: 1,
            workers: Workers::current(),
            stop: CancellationToken::new(),
        };
        let open = server.open.add();
        let peer =
            Peer { address: None, local: None, uid: None, certificate: None, passes_on: false };
        let (near, mut far) = duplex(size);
        far.write_all(b"GET / HTTP/1.1\r\ncontent-length: 200000\r\n\r\n{").await.unwrap();
        let begun = async {
            far.read_exact(&mut [0; 12]).await.unwrap();
            // The clock stands still until nothing else is left to do.
            sleep(Duration::from_millis(1)).await;
            assert!(server.open.evict_one());
            Instant::now()
        };
        let (begun, ()) = tokio::join!(begun, server.http(near, peer, &open.state));
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_only_lingers_makes_room_at_once() {
        let took = makes_room(4096).await;
        assert_eq!(took, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_answer_is_not_taken_makes_room_soon() {
        let took = makes_room(60).await;
        assert!(took <= Duration::from_secs(1), "{took:?}");
    }
}
