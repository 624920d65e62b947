//! A proxy in front of a sandbox, each on a port of its own, spoken to over real sockets.

#![allow(dead_code, clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use agentpmt_proxy::{
    action::{ACTIONS, Action},
    config::{UpstreamConfig, UpstreamUrl},
    http::{self, Guard, Instance, Limits, Listener, Live, Workers},
    payment::Spending,
    proxy::Proxy,
    sandbox::{Sandbox, Settings},
    signer::LocalKey,
    store::Store,
    upstream::Upstream,
};
use axum::Router;
use reqwest::{Body, Client, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// A general job of the sandbox, and one that asks for a workflow.
pub(crate) const GENERAL_JOB: &str = "68f0a1c27b3e4d5f60718201";
pub(crate) const WORKFLOW_JOB: &str = "68f0a1c27b3e4d5f60718202";

/// The path of a tool of the sandbox that is free, and the id of a published workflow.
pub(crate) const FREE_TOOL: &str = "/tools/word-count/actions/count-words/invoke";
pub(crate) const PUBLISHED_WORKFLOW: &str = "69b2d1e3f405162738495a01";

/// A workflow that every workflow job takes, and that can be published.
pub(crate) const WORKFLOW: &str = r#"{"name":"n","description":"d","nodes":[
    {"id":"a","type":"tool","label":"A","tool":{"product_id":"p","product_name":"P"}},
    {"id":"b","type":"prompt","label":"B","prompt":{}}],"edges":[{"id":"e","from":"a","to":"b"}]}"#;

/// What a test may choose about its proxy.
pub(crate) struct Options {
    pub(crate) actions: &'static [Action],
    pub(crate) upstream: UpstreamConfig,
    pub(crate) expose_workflow_token: bool,
    pub(crate) limits: Limits,
    /// How many calls may be in flight.
    pub(crate) in_flight: usize,
    pub(crate) guard: Guard,
    pub(crate) spending: Option<Spending>,
    /// A second wallet's private key, in hex.
    pub(crate) other_key: Option<String>,
    /// The private key, in hex.
    pub(crate) key: String,
    /// Where the store is.
    pub(crate) folder: Arc<TempDir>,
}

/// A running proxy and the sandbox behind it.
pub(crate) struct TestProxy {
    pub(crate) address: SocketAddr,
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Client,
    pub(crate) proxy: Arc<Proxy>,
    folder: Arc<TempDir>,
}

impl TestProxy {
    /// A proxy in front of a sandbox with its usual times.
    pub(crate) async fn start() -> Self {
        let sandbox = Sandbox::new(Settings::default());
        let upstream = serve_sandbox(&sandbox).await;
        Self::in_front_of(sandbox, upstream, |_| {}).await
    }

    /// A proxy in front of a sandbox that is served at `upstream`.
    pub(crate) async fn in_front_of(
        sandbox: Sandbox,
        upstream: SocketAddr,
        choose: impl FnOnce(&mut Options),
    ) -> Self {
        let mut options = Options {
            actions: ACTIONS,
            upstream: upstream_config(upstream.port()),
            expose_workflow_token: false,
            limits: Limits::default(),
            in_flight: 1024,
            guard: Guard::default(),
            spending: None,
            other_key: None,
            key: "42".repeat(32),
            folder: Arc::new(tempfile::tempdir().unwrap()),
        };
        choose(&mut options);
        let signer = LocalKey::from_hex(&options.key).unwrap();
        let database = options.folder.path().join("proxy.db");
        let store = Store::open(&database, &[signer.seal_key()]).unwrap();
        let upstream = Upstream::new(&options.upstream).unwrap();
        let proxy = Proxy::new(signer.into(), upstream, store, options.expose_workflow_token);
        let proxy = proxy.with_actions(options.actions).with_spending(options.spending);
        let other = options.other_key.map(|key| LocalKey::from_hex(&key).unwrap());
        let proxy = other.into_iter().fold(proxy, |proxy, key| proxy.and_wallet(key.into()));
        let proxy = Arc::new(proxy);
        proxy.set_max_in_flight(options.in_flight);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let instance = instance(Live::new(None, options.guard));
        let router = http::router(proxy.clone(), options.limits, instance.clone());
        let (listeners, stop) = (vec![Listener::Tcp(listener)], CancellationToken::new());
        tokio::spawn(http::serve(
            listeners,
            router,
            options.limits,
            instance,
            Workers::current(),
            stop,
        ));
        Self { address, sandbox, client: client(), proxy, folder: options.folder }
    }

    /// A proxy in front of a sandbox; `fault` may put something between the two.
    pub(crate) async fn start_with(
        settings: Settings,
        fault: impl FnOnce(Router) -> Router,
    ) -> Self {
        let sandbox = Sandbox::new(settings);
        let upstream = serve(fault(sandbox.router())).await;
        Self::in_front_of(sandbox, upstream, |_| {}).await
    }

    /// The folder of its store.
    pub(crate) fn folder(&self) -> Arc<TempDir> {
        self.folder.clone()
    }

    /// The URL of a path here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts a body to a path under `/api/external`.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Response {
        let url = self.url(&format!("/api/external{path}"));
        self.client.post(url).body(body).send().await.unwrap()
    }

    /// The same, for an answer that has to be good.
    pub(crate) async fn ok(&self, path: &str, body: impl Into<Body>) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let value = json(response).await;
        assert!(status.is_success(), "{path}: {status} {value}");
        value
    }
}

/// What a server needs besides, with nothing to reload.
pub(crate) fn instance(live: Live) -> Arc<Instance> {
    Instance::new(Vec::new(), false, live, || Err("there is nothing to reload".to_owned()))
}

/// The settings of an upstream at a port of this machine.
pub(crate) fn upstream_config(port: u16) -> UpstreamConfig {
    UpstreamConfig {
        url: UpstreamUrl::on_this_machine(port),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(30),
        change_timeout: Duration::from_secs(30),
        spend_timeout: Duration::from_secs(30),
        settle_time: Duration::from_millis(200),
        max_calls: 64,
    }
}

/// An address at which every connection is refused as long as the socket lives: it keeps the port from
/// others and does not listen.
pub(crate) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Serves on a free port until the test's runtime ends.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Serves a sandbox on a free port until the test's runtime ends.
pub(crate) async fn serve_sandbox(sandbox: &Sandbox) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sandbox = sandbox.clone();
    tokio::spawn(async move { sandbox.serve(listener).await });
    address
}

/// A client that goes nowhere but where it is sent, without TLS: to read the root certificates takes
/// longer than most tests.
pub(crate) fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

/// The same over a unix socket.
pub(crate) fn client_of_socket(path: &Path) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).unix_socket(path).build().unwrap()
}

/// The body of an answer.
pub(crate) async fn json(response: Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The problem document of an answer, checked for what every problem has.
pub(crate) async fn problem(response: Response) -> Value {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/problem+json");
    let (code, request_id) = (header("x-agentpmt-proxy-error"), header("x-request-id"));
    let problem = json(response).await;
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code);
    assert_eq!(problem["request_id"], request_id);
    for member in ["type", "title", "detail", "retry"] {
        assert!(problem[member].is_string(), "{member} in {problem}");
    }
    problem
}
