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

/// How long a connection that nobody uses stays open.
const IDLE: Duration = Duration::from_secs(30);

/// A change takes no connection that was idle for longer: an upstream that closes it meanwhile leaves
/// in doubt whether it was processed.
const IDLE_FOR_CHANGES: Duration = Duration::from_secs(1);

/// After a sleep of this length, no connection is taken for one that still leads anywhere.
const SLEEP: Duration = Duration::from_secs(1);

/// A connection that is silent is asked after this time whether it is alive, and again after the
/// same time.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How often it is asked until it is given up.
const KEEPALIVE_TRIES: u32 = 3;

/// A path may be silent for so long, however short connecting may take.
#[cfg(target_os = "linux")]
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(5);

type Connector<S> = BoxCloneSyncService<Uri, MaybeHttpsStream<S>, BoxError>;
type Tcp = TokioIo<TcpStream>;

/// The connections to one upstream. Every thread has its own, so that no call waits for another
/// thread.
#[derive(Debug)]
pub(super) struct Connections {
    way: Way,
    pools: ThreadLocal<RefCell<Pools>>,
}

/// How a connection is made.
#[derive(Debug)]
enum Way {
    Direct(Connector<Tcp>),
    Tunnel(Connector<MaybeHttpsStream<Tcp>>),
}

/// The connections of one thread.
#[derive(Debug)]
struct Pools {
    reads: Pool,
    changes: Pool,
    /// For how long the machine had slept before the first of them was made.
    slept: Duration,
}

#[derive(Debug)]
enum Pool {
    Direct(Client<Connector<Tcp>, Full<Bytes>>),
    Tunnel(Client<Connector<MaybeHttpsStream<Tcp>>, Full<Bytes>>),
}

impl Connections {
    /// To `upstream`, each made within `time`. The proxy variables hold for all but loopback.
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
        let way = match proxy {
            None => Way::Direct(in_time(time, https(tcp(time), tls, is_loopback))),
            Some(proxy) => {
                let to_proxy = HttpsConnector::from((tcp(time), tls.clone()));
                let tunnel = tunnel(&proxy, to_proxy);
                Way::Tunnel(in_time(time, https(tunnel, tls, is_loopback)))
            }
        };
        Ok(Self { way, pools: ThreadLocal::new() })
    }

    /// Sends a request over a connection of this thread, an open one if there is any that may be used.
    pub(super) fn send(&self, request: Request<Full<Bytes>>, changes: bool) -> ResponseFuture {
        self.send_after(slept(), request, changes)
    }

    /// Takes no connection again that this thread has used.
    pub(super) fn forget(&self) {
        if let Some(pools) = self.pools.get() {
            *pools.borrow_mut() = self.way.pools(slept());
        }
    }

    fn send_after(
        &self,
        slept: Duration,
        request: Request<Full<Bytes>>,
        changes: bool,
    ) -> ResponseFuture {
        let pools = self.pools.get_or(|| RefCell::new(self.way.pools(slept)));
        let mut pools = pools.borrow_mut();
        if slept.abs_diff(pools.slept) >= SLEEP {
            *pools = self.way.pools(slept);
        }
        match if changes { &pools.changes } else { &pools.reads } {
            Pool::Direct(client) => client.request(request),
            Pool::Tunnel(client) => client.request(request),
        }
    }
}

impl Way {
    fn pools(&self, slept: Duration) -> Pools {
        Pools { reads: self.pool(IDLE), changes: self.pool(IDLE_FOR_CHANGES), slept }
    }

    fn pool(&self, idle: Duration) -> Pool {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(idle).set_host(false);
        match self {
            Self::Direct(connector) => Pool::Direct(builder.build(connector.clone())),
            Self::Tunnel(connector) => Pool::Tunnel(builder.build(connector.clone())),
        }
    }
}

/// Root certificates take some milliseconds to read, and not every machine has them: for an upstream
/// without TLS they are left where they are.
fn tls(upstream: &Uri) -> Result<ClientConfig, rustls::Error> {
    // The first provider stays; another caller in this process may have installed it.
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
    // It is not asked for HTTP alone.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Shared among the addresses of a name: one that is silent leaves time for the next.
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

/// The time holds for all of it: name, connection, proxy, TLS.
fn in_time<S, C>(time: Duration, connector: C) -> Connector<S>
where
    C: Service<Uri, Response = MaybeHttpsStream<S>> + Clone + Send + Sync + 'static,
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
