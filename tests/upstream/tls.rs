//! The upstream over TLS, as the real program reaches it: directly, and through the proxy of its
//! environment.

use std::{
    collections::HashSet,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use futures_util::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Response;
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    binary::{Home, PASSWORD, Server},
    common::{self, problem, serve_sandbox},
};

/// A name that no name server knows.
const NAME: &str = "upstream.test";

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A sandbox that is spoken to over TLS.
#[derive(Clone)]
struct Upstream {
    sandbox: SocketAddr,
    tls: TlsAcceptor,
    /// Whom one has to trust to trust its certificate, in PEM.
    issuer: String,
}

impl Upstream {
    /// One with a certificate for this name.
    async fn start(name: &str) -> Self {
        let sandbox = serve_sandbox(&Sandbox::new(Settings::default())).await;
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self { sandbox, tls: Arc::new(config).into(), issuer: issuer.pem() }
    }

    /// Speaks TLS over a connection and hands to the sandbox what it is told.
    async fn talk(&self, stream: TcpStream) {
        let Ok(mut stream) = self.tls.accept(stream).await else { return };
        let mut sandbox = TcpStream::connect(self.sandbox).await.unwrap();
        // Whoever has heard enough goes without a word.
        let _ = copy_bidirectional(&mut stream, &mut sandbox).await;
    }

    /// Listens on a free port.
    async fn listen(&self) -> SocketAddr {
        let upstream = self.clone();
        serve(move |stream| {
            let upstream = upstream.clone();
            async move { upstream.talk(stream).await }
        })
        .await
    }

    /// A program that trusts this upstream and reaches it at this URL, with more in its environment.
    fn home(&self, environment: &[(&'static str, &str)]) -> Home {
        let home = Home::with_wallet().with_password(PASSWORD);
        home.write("ca.pem", &self.issuer);
        let ca = home.path("ca.pem").display().to_string();
        let home = home.with("SSL_CERT_FILE", &ca);
        environment.iter().fold(home, |home, (name, value)| home.with(name, value))
    }
}

/// The only one who knows where [`NAME`] is.
struct Proxy {
    address: SocketAddr,
    /// The heads of the requests to it.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that answers this to whoever wants to connect, and then lets the upstream speak.
    async fn start(upstream: &Upstream, answer: &'static str) -> Self {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (upstream, seen) = (upstream.clone(), heads.clone());
        let address = serve(move |mut stream| {
            let (upstream, seen) = (upstream.clone(), seen.clone());
            async move {
                let head = read_head(&mut stream).await;
                seen.lock().unwrap().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
                upstream.talk(stream).await;
            }
        })
        .await;
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Does this with every connection to a free port, until the test's runtime ends.
async fn serve<F>(talk: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream));
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn start(home: &Home, upstream: &str) -> Server {
    // Shorter than usual, so that nobody tries for long what does not work.
    home.write("proxy.toml", "[upstream]\ntimeout = '3s'");
    home.serve(&["serve", "--upstream", upstream])
}

async fn list(server: &Server) -> Response {
    let url = format!("{}/api/external/jobs/list", server.place);
    common::client().post(url).send().await.unwrap()
}

/// Asserts that the upstream was not reached, and that the reason is told once. Returns the reason.
async fn unreachable(server: &Server) -> String {
    let problem = problem(list(server).await).await;
    assert_eq!(problem["code"], "upstream_unreachable", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    let parts: Vec<_> = detail.split(": ").collect();
    assert_eq!(parts.iter().collect::<HashSet<_>>().len(), parts.len(), "{detail}");
    detail.to_owned()
}

#[tokio::test]
async fn calls_go_through_the_proxy_of_the_environment() {
    let upstream = Upstream::start(NAME).await;
    for (variable, user, known) in [
        ("HTTPS_PROXY", "", None),
        ("https_proxy", "me:secret@", Some("Basic bWU6c2VjcmV0")),
        ("ALL_PROXY", "", None),
    ] {
        let proxy = Proxy::start(&upstream, ESTABLISHED).await;
        let home = upstream.home(&[(variable, &format!("http://{user}{}", proxy.address))]);
        let server = start(&home, &format!("https://{NAME}"));
        assert_eq!(list(&server).await.status(), 200, "{variable}");
        let heads = proxy.heads();
        let head = &heads[0];
        assert!(head.starts_with(&format!("CONNECT {NAME}:443 HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("user-agent: agentpmt-proxy/"), "{head}");
        let shown = head.lines().find_map(|line| line.strip_prefix("proxy-authorization: "));
        assert_eq!(shown, known, "{head}");
        assert!(!server.log().contains("secret"), "{}", server.log());
        // The connection stays open for the next call, whichever thread makes it.
        let connections = heads.len();
        assert_eq!(list(&server).await.status(), 200);
        assert!(proxy.heads().len() <= connections + 1);
    }
}

#[tokio::test]
async fn what_needs_no_proxy_goes_past_it() {
    let upstream = Upstream::start(NAME).await;
    let proxy = Proxy::start(&upstream, ESTABLISHED).await;
    let url = format!("http://{}", proxy.address);
    let variables = [("HTTPS_PROXY", &*url), ("ALL_PROXY", &*url), ("HTTP_PROXY", &*url)];
    let home = upstream.home(&variables);
    // This machine itself.
    let server = start(&home, &format!("http://{}", upstream.sandbox));
    assert_eq!(list(&server).await.status(), 200);
    // Also if the environment names a proxy that could not be used.
    let home_behind_socks = upstream.home(&[("ALL_PROXY", "socks5h://127.0.0.1:9")]);
    let server = start(&home_behind_socks, &format!("http://{}", upstream.sandbox));
    assert_eq!(list(&server).await.status(), 200);
    // Whom the environment excepts. Without the proxy nobody knows the name.
    let home = home.with("NO_PROXY", NAME);
    let server = start(&home, &format!("https://{NAME}"));
    assert_ne!(list(&server).await.status(), 200);
    assert_eq!(proxy.heads(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_as_the_cause() {
    let upstream = Upstream::start(NAME).await;
    for (answer, words) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy authorization required"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "tunnel error: unsuccessful"),
    ] {
        let proxy = Proxy::start(&upstream, answer).await;
        let home = upstream.home(&[("HTTPS_PROXY", &format!("http://{}", proxy.address))]);
        let detail = unreachable(&start(&home, &format!("https://{NAME}"))).await;
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_for_this_name() {
    let upstream = Upstream::start("127.0.0.1").await;
    let url = format!("https://{}", upstream.listen().await);
    let home = upstream.home(&[]);
    let server = start(&home, &url);
    assert_eq!(list(&server).await.status(), 200);

    let [other, misnamed] = [Upstream::start("127.0.0.1").await, Upstream::start(NAME).await];
    let proxy = Proxy::start(&other, ESTABLISHED).await;
    let behind_proxy = [("HTTPS_PROXY", &*format!("http://{}", proxy.address))];
    let wrong = [
        (other.home(&[]), url, ": invalid peer certificate: ".to_owned()),
        (
            misnamed.home(&[]),
            format!("https://{}", misnamed.listen().await),
            "not valid for name \"127.0.0.1\"".to_owned(),
        ),
        (
            other.home(&behind_proxy),
            format!("https://{NAME}"),
            format!("not valid for name \"{NAME}\""),
        ),
    ];
    // Each is tried for some seconds.
    join_all(wrong.iter().map(async |(home, url, expected)| {
        let detail = unreachable(&start(home, url)).await;
        assert!(detail.contains(expected), "{detail}");
    }))
    .await;
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let upstream = Upstream::start("127.0.0.1").await;
    // It is bound and does not listen, so it refuses.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("https://{}", refusing.local_addr().unwrap());
    let home = upstream.home(&[]);
    let detail = unreachable(&start(&home, &url)).await;
    assert!(detail.contains("onnection refused"), "{detail}");

    // It takes connections and says nothing, so that there is no TLS.
    let silent = serve(|stream| async move {
        pending::<()>().await;
        drop(stream);
    });
    let url = format!("https://{}", silent.await);
    let home = upstream.home(&[("AGENTPMT_PROXY_UPSTREAM__CONNECT_TIMEOUT", "100ms")]);
    let detail = unreachable(&start(&home, &url)).await;
    assert!(detail.contains("there was no connection within 100ms"), "{detail}");
}
