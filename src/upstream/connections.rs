//! Connections to one upstream: over TLS, through a proxy if there is one, and kept open for the
//! next call.

use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header, uri::Scheme};
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::{
            Client, ResponseFuture,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use thread_local::ThreadLocal;
use tokio::net::TcpStream;
use tower::{
    BoxError, Service, ServiceExt,
    timeout::{Timeout, error::Elapsed},
    util::BoxCloneSyncService,
};

use crate::clock::slept;

pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("agentpmt-proxy/", env!("CARGO_PKG_VERSION")));

/// How long an idle connection stays open.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection for changes stays open while idle. If the upstream closes it just as a change
/// is sent, it is in doubt whether the change was processed.
const IDLE_FOR_CHANGES: Duration = Duration::from_secs(1);

/// After the machine has slept this long, open connections are taken for dead.
const SLEEP: Duration = Duration::from_secs(1);

/// The time of silence before the first keep-alive probe of TCP, and between further ones.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// After how many probes without an answer a connection is dropped.
const KEEPALIVE_TRIES: u32 = 3;

/// The least time for which the peer may acknowledge nothing, however short `connect_timeout` is.
#[cfg(target_os = "linux")]
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream to the upstream or to a proxy, with or without TLS.
type MaybeTlsStream = MaybeHttpsStream<TokioIo<TcpStream>>;

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<MaybeTlsStream>, BoxError>;
type Pool = Client<Connector, Full<Bytes>>;

/// The connections to one upstream. Every thread has its own pools, so that no call waits for another
/// thread.
#[derive(Debug)]
pub(super) struct Connections {
    connector: Connector,
    pools: ThreadLocal<RefCell<Pools>>,
}

/// The connections of one thread.
#[derive(Debug)]
struct Pools {
    reads: Pool,
    changes: Pool,
    /// How long the machine had slept in all when these pools were made.
    slept: Duration,
}

impl Connections {
    /// Connections to `upstream`, each made within `time`. The proxy variables apply unless it is on
    /// loopback.
    ///
    /// # Errors
    /// When the machine has no root certificates, and `upstream` needs them.
    pub(super) fn new(
        upstream: &Uri,
        is_loopback: bool,
        time: Duration,
    ) -> Result<Self, rustls::Error> {
        let tls = tls(upstream)?;
        let proxy = if is_loopback { None } else { Matcher::from_env().intercept(upstream) };
        let connector = match proxy {
            None => {
                let direct = tcp(time).map_response(MaybeTlsStream::Http);
                in_time(time, https(direct, tls, is_loopback))
            }
            Some(proxy) => {
                let to_proxy = HttpsConnector::from((tcp(time), tls.clone()));
                in_time(time, https(tunnel(&proxy, to_proxy), tls, is_loopback))
            }
        };
        Ok(Self { connector, pools: ThreadLocal::new() })
    }

    /// Sends a request over a connection of this thread: an open one if it can, else a new one.
    pub(super) fn send(&self, request: Request<Full<Bytes>>, changes: bool) -> ResponseFuture {
        self.send_after(slept(), request, changes)
    }

    /// Drops the connections of this thread.
    pub(super) fn forget(&self) {
        if let Some(pools) = self.pools.get() {
            *pools.borrow_mut() = self.new_pools(slept());
        }
    }

    fn send_after(
        &self,
        slept: Duration,
        request: Request<Full<Bytes>>,
        changes: bool,
    ) -> ResponseFuture {
        let pools = self.pools.get_or(|| RefCell::new(self.new_pools(slept)));
        let mut pools = pools.borrow_mut();
        if slept.abs_diff(pools.slept) >= SLEEP {
            *pools = self.new_pools(slept);
        }
        let pool = if changes { &pools.changes } else { &pools.reads };
        pool.request(request)
    }

    fn new_pools(&self, slept: Duration) -> Pools {
        let pool = |idle| {
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(idle).set_host(false);
            builder.build(self.connector.clone())
        };
        Pools { reads: pool(IDLE), changes: pool(IDLE_FOR_CHANGES), slept }
    }
}

/// The TLS settings. Root certificates take some milliseconds to read, and some machines have none, so
/// they are read only for an upstream with TLS.
fn tls(upstream: &Uri) -> Result<ClientConfig, rustls::Error> {
    // This fails if another caller in this process has installed a provider, which then stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig::builder();
    let config = match upstream.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => {
            config.with_root_certificates(RootCertStore::empty())
        }
        _ => config.try_with_platform_verifier()?,
    };
    Ok(config.with_no_client_auth())
}

/// HTTP/1.1 over TLS; without TLS only if the upstream is this machine.
fn https<C>(connector: C, mut tls: ClientConfig, is_loopback: bool) -> HttpsConnector<C> {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut https = HttpsConnector::from((connector, tls));
    if !is_loopback {
        https.enforce_https();
    }
    https
}

fn tcp(time: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // TLS is made over it, so it must take `https` as well.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // The addresses of a name share this time, so a silent one leaves some to the next.
    tcp.set_connect_timeout(Some(time));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    // Data that the peer does not acknowledge breaks the connection after the time that connecting may
    // take, so a path that went silent is noticed as soon as an address that does not answer.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(time.max(LEAST_USER_TIMEOUT)));
    tcp
}

fn tunnel<C>(proxy: &Intercept, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(proxy.uri().clone(), connector)
        .with_headers(HeaderMap::from_iter([(header::USER_AGENT, USER_AGENT)]));
    match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    }
}

/// Limits the time for all of it: name, connection, proxy and TLS.
fn in_time<C>(time: Duration, connector: C) -> Connector
where
    C: Service<Uri, Response = MaybeHttpsStream<MaybeTlsStream>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    let in_time = Timeout::new(connector, time);
    BoxCloneSyncService::new(in_time.map_err(move |error: BoxError| match error.is::<Elapsed>() {
        true => format!("there was no connection within {time:?}").into(),
        false => error,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn after_a_sleep_of_the_machine_connections_are_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut lines = BufReader::new(stream).lines();
                    while let Some(line) = lines.next_line().await.unwrap() {
                        if line.is_empty() {
                            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                            lines.get_mut().write_all(answer).await.unwrap();
                        }
                    }
                });
            }
        });
        let minute = Duration::from_secs(60);
        let connections = Connections::new(&upstream, true, minute).unwrap();
        // Reads and changes have a connection each.
        for (slept, expected) in [(0, 2), (0, 2), (999, 2), (1000, 4), (1999, 4), (0, 6)] {
            for changes in [false, true] {
                let mut request = Request::new(Full::default());
                *request.uri_mut() = upstream.clone();
                let slept = minute + Duration::from_millis(slept);
                connections.send_after(slept, request, changes).await.unwrap();
                // The connection goes back into its pool.
                tokio::task::yield_now().await;
            }
            assert_eq!(made.load(SeqCst), expected, "{slept}");
        }
    }
}
