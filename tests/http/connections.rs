//! Connections that take too long or too much, and the end of all of them.

use std::{
    cell::OnceCell,
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agentpmt_proxy::{
    config::SocketConfig,
    http::{self, Guard, Instance, Limits, Listener, Live, Peer, SocketFile, Workers},
    sandbox::{Sandbox, Settings},
};
use axum::{Extension, Router, body::Bytes, http::StatusCode, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::yield_now,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::common::{self, TestProxy, serve_sandbox};

/// As short as a test wants it.
const SOON: Duration = Duration::from_millis(50);

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// A proxy that waits no longer than [`SOON`].
async fn impatient() -> TestProxy {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    TestProxy::in_front_of(sandbox, upstream, |options| {
        (options.limits.head, options.limits.body) = (SOON, SOON);
    })
    .await
}

/// What a server sees of whoever asks over a unix socket.
async fn seen_over_a_socket(folder: &Path, behind_proxy: bool) -> Peer {
    let path = folder.join("p.sock");
    let config = SocketConfig { mode: 0o600, group: None };
    let (listener, file) = SocketFile::bind(&path, &config).unwrap();
    let listeners = vec![Listener::unix(listener, Some(file)).unwrap()];
    let (tell, mut told) = mpsc::channel(1);
    let see = move |Extension(peer): Extension<Peer>| async move { tell.send(peer).await.unwrap() };
    let router = Router::new().route("/", get(see));
    let read = || Err("there is nothing to reload".to_owned());
    let instance = Instance::new(Vec::new(), behind_proxy, Live::new(None, Guard::default()), read);
    let stop = CancellationToken::new();
    let server = http::serve(
        listeners,
        router,
        Limits::default(),
        instance,
        Workers::current(),
        stop.clone(),
    );
    let server = tokio::spawn(server);
    let client = common::client_of_socket(&path);
    assert_eq!(client.get("http://localhost/").send().await.unwrap().status(), StatusCode::OK);
    stop.cancel();
    server.await.unwrap();
    assert!(!path.exists());
    told.recv().await.unwrap()
}

#[tokio::test]
async fn over_a_unix_socket_the_user_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::fs::metadata(folder.path()).unwrap().uid();
    let peer = seen_over_a_socket(folder.path(), false).await;
    assert_eq!((peer.uid, peer.address, peer.certificate), (Some(own), None, None));
    assert!(peer.is_local());
    let peer = seen_over_a_socket(folder.path(), true).await;
    assert!(!peer.is_local(), "what passes on for others is nobody here");
}

/// Sends these bytes and reads until the other side closes.
async fn told(proxy: &TestProxy, bytes: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_connection_that_does_not_ask_in_time_is_closed() {
    let proxy = impatient().await;
    for beginning in ["", "P", "POST /api/external/jobs/list HTTP/1.1\r\nhost: localhost\r\n"] {
        assert_eq!(told(&proxy, beginning).await, "", "{beginning:?}");
    }
    let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = told(&proxy, head).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n"),
        "and one that has asked, after that: {answer}"
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_refused_and_nothing_is_sent() {
    let proxy = impatient().await;
    let head = format!("POST /api/external/jobs/list HTTP/1.1\r\nhost: {}\r\n", proxy.address);
    for body in
        ["content-length: 20\r\n\r\n{\"limit\":", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"]
    {
        let answer = told(&proxy, &format!("{head}{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("x-agentpmt-proxy-error: body_slow\r\n"), "{answer}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let proxy = impatient().await;
    let request =
        |lines: String| format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
    let many: String = (0..100).map(|number| format!("x-{number}: 1\r\n")).collect();
    for lines in [many, format!("x: {}\r\n", "a".repeat(17_000))] {
        let answer = told(&proxy, &request(lines)).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

/// The head of a call with more to come, which asks for nothing else over its connection.
fn head(proxy: &TestProxy, line: &str, lines: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: {}\r\n{lines}\r\n\r\n", proxy.address)
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_first_reads_why_it_was_refused() {
    let proxy = TestProxy::start().await;
    // More than the buffers of the system take.
    let body = vec![b'a'; 12 * 1024 * 1024];
    let (length, chunks) =
        (format!("content-length: {}", body.len()), "transfer-encoding: chunked");
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body].concat();
    let list = "POST /api/external/jobs/list";
    for (line, lines, body, status) in [
        (list, &*length, &body, 413),
        (list, chunks, &chunk, 413),
        ("POST /api/external/jobs", &length, &body, 404),
        ("DELETE /api/external/jobs/list", chunks, &chunk, 405),
        (list, &format!("{length}\r\ntransfer-encoding: gzip, chunked"), &chunk, 501),
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(head(&proxy, line, lines).as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {lines}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{line} {lines}: {answer}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_not_asked_for() {
    let proxy = TestProxy::start().await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let lines = "content-length: 300000\r\nexpect: 100-continue";
    let head = head(&proxy, "POST /api/external/jobs/list", lines);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 13];
    timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413 ");
}

#[tokio::test]
async fn a_session_that_is_begun_with_a_body_leaves_the_connection_open() {
    let proxy = TestProxy::start().await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let begun = head(&proxy, "POST /api/external/auth/session", "content-length: 2") + "{}";
    let last = head(&proxy, "GET /healthz", "connection: close");
    stream.write_all(format!("{begun}{last}").as_bytes()).await.unwrap();
    let mut answers = String::new();
    timeout(LONG, stream.read_to_string(&mut answers)).await.unwrap().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

#[tokio::test]
async fn a_request_that_comes_before_the_last_is_answered_is_answered_too() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        move || async move {
            begun.notify_one();
            go_on.notified().await;
        }
    };
    let router = Router::new().route("/", get(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (listeners, stop) = (vec![Listener::Tcp(listener)], CancellationToken::new());
    let instance = common::instance(Live::new(None, Guard::default()));
    let server =
        http::serve(listeners, router, Limits::default(), instance, Workers::current(), stop);
    tokio::spawn(server);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = |line: &str| format!("GET / HTTP/1.1\r\nhost: localhost\r\n{line}\r\n");
    stream.write_all(request("").as_bytes()).await.unwrap();
    begun.notified().await;
    stream.write_all(request("connection: close\r\n").as_bytes()).await.unwrap();
    // So that the server has seen it.
    for _ in 0..1000 {
        yield_now().await;
    }
    go_on.notify_one();
    timeout(LONG, begun.notified()).await.unwrap();
    go_on.notify_one();
    let mut answers = String::new();
    timeout(LONG, stream.read_to_string(&mut answers)).await.unwrap().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

/// A body that tells when it is gone.
struct Told(Vec<u8>, Option<oneshot::Sender<()>>);

impl AsRef<[u8]> for Told {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.1.take().unwrap().send(());
    }
}

#[tokio::test]
async fn an_answer_that_its_client_does_not_take_is_not_kept() {
    let (tell, gone) = oneshot::channel();
    let body = Bytes::from_owner(Told(vec![0; 64 * 1024 * 1024], Some(tell)));
    let router = Router::new().route("/", get(move || async move { body.clone() }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (listeners, stop) = (vec![Listener::Tcp(listener)], CancellationToken::new());
    let instance = common::instance(Live::new(None, Guard::default()));
    let limits = Limits { write: SOON, ..Limits::default() };
    let server = http::serve(listeners, router, limits, instance, Workers::current(), stop.clone());
    let server = tokio::spawn(server);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    stop.cancel();
    timeout(LONG, server).await.unwrap().unwrap();
    timeout(LONG, gone).await.unwrap().unwrap();
}

thread_local! {
    /// Dropped when its thread ends.
    static ALIVE: OnceCell<mpsc::Sender<()>> = const { OnceCell::new() };
}

/// The thread that serves a connection.
async fn thread_of(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with(')') {
        answer.push(stream.read_u8().await.unwrap().into());
    }
    answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn connections_are_spread_over_threads_that_end_with_the_server() {
    let (alive, mut ended) = mpsc::channel(1);
    let see = move || async move {
        ALIVE.with(|cell| {
            cell.get_or_init(|| alive);
        });
        format!("{:?}", thread::current().id())
    };
    let router = Router::new().route("/", get(see));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (listeners, stop) = (vec![Listener::Tcp(listener)], CancellationToken::new());
    let instance = common::instance(Live::new(None, Guard::default()));
    let (limits, workers) = (Limits::default(), Workers::start().unwrap());
    let server = http::serve(listeners, router, limits, instance, workers, stop.clone());
    let server = tokio::spawn(server);

    let cores = thread::available_parallelism().unwrap().get();
    let mut streams = HashMap::<String, Vec<TcpStream>>::new();
    for _ in 0..2 * cores {
        let mut stream = TcpStream::connect(address).await.unwrap();
        streams.entry(thread_of(&mut stream).await).or_default().push(stream);
    }
    assert_eq!(streams.len(), cores);
    assert!(streams.values().all(|streams| streams.len() == 2), "{streams:?}");
    // Whoever has the fewest is next. Nothing tells when a thread has seen the end of its connections.
    let idle = streams.keys().next().unwrap().clone();
    streams.remove(&idle);
    let next =
        async { while thread_of(&mut TcpStream::connect(address).await.unwrap()).await != idle {} };
    timeout(LONG, next).await.unwrap();

    stop.cancel();
    timeout(LONG, server).await.unwrap().unwrap();
    assert!(timeout(LONG, ended.recv()).await.unwrap().is_none(), "no thread is left");
}

#[tokio::test]
async fn once_the_end_has_begun_the_proxy_is_alive_but_not_ready() {
    let proxy = TestProxy::start().await;
    let status =
        async |path: &str| proxy.client.get(proxy.url(path)).send().await.unwrap().status();
    assert_eq!(status("/readyz").await, StatusCode::OK);
    proxy.proxy.end();
    assert_eq!(status("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("/healthz").await, StatusCode::OK);
}

#[tokio::test]
async fn those_who_ask_whether_it_is_ready_do_not_use_up_the_disk() {
    let proxy = TestProxy::start().await;
    let written = || std::fs::metadata(proxy.folder().path().join("proxy.db-wal")).unwrap().len();
    let (before, begun) = (written(), Instant::now());
    for _ in 0..200 {
        let ready = proxy.client.get(proxy.url("/readyz")).send().await.unwrap();
        assert_eq!(ready.status(), StatusCode::OK);
    }
    // A page with its head each.
    let writes = (written() - before) / 4120;
    assert!(u128::from(writes) <= begun.elapsed().as_millis() / 250 + 1, "{writes}");
}

#[tokio::test]
async fn a_peer_has_its_connections_and_not_one_more() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
        (options.limits.connections_per_peer, options.limits.limits_loopback) = (1, true);
    })
    .await;
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    let mut answer = [0; 12];
    let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    first.write_all(request.as_bytes()).await.unwrap();
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    let _ = second.write_all(request.as_bytes()).await;
    assert_eq!(second.read(&mut answer).await.unwrap_or(0), 0, "it is closed without an answer");
    drop(first);
    // Nothing tells when the proxy has seen the end.
    loop {
        let mut third = TcpStream::connect(proxy.address).await.unwrap();
        let _ = third.write_all(request.as_bytes()).await;
        if third.read_exact(&mut answer).await.is_ok() {
            break;
        }
    }
}
