//! The upstream misbehaving: down, slow, redirecting, too talkative.

mod answers;
mod connections;

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
};

use crate::{
    binary::{Home, PASSWORD},
    common::{
        GENERAL_JOB, Options, TestProxy, WORKFLOW, WORKFLOW_JOB, json, problem, serve,
        serve_sandbox,
    },
};

/// Little patience.
fn short(options: &mut Options) {
    options.upstream.timeout = Duration::from_secs(2);
    options.upstream.change_timeout = Duration::from_secs(2);
}

/// Lets sessions through to the sandbox and answers every other call itself.
fn answering(
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> impl FnOnce(Router) -> Router {
    move |router| {
        router.layer(from_fn(move |request: Request, next: Next| {
            let answer = answer.clone();
            async move {
                let session = request.uri().path().ends_with("/auth/session");
                if session { next.run(request).await } else { answer() }
            }
        }))
    }
}

async fn proxy_before(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> TestProxy {
    proxy_with(short, answer).await
}

async fn proxy_with(
    options: fn(&mut Options),
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> TestProxy {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(answering(answer)(sandbox.router())).await;
    TestProxy::in_front_of(sandbox, upstream, options).await
}

/// The problems of a read and of a change.
async fn problems(proxy: &TestProxy) -> [Value; 2] {
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    [
        problem(proxy.post("/jobs/list", "").await).await,
        problem(proxy.post(&reserve, "").await).await,
    ]
}

/// A port that refuses connections until its socket listens.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn an_upstream_that_is_down_leaves_the_proxy_ready_and_calls_safe_to_repeat() {
    let (_refusing, address) = refusing();
    let port = address.port();
    let sandbox = Sandbox::new(Settings::default());
    let proxy = TestProxy::in_front_of(sandbox, address, short).await;
    let get = proxy.client.get(proxy.url("/readyz")).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::OK);

    let path = format!("/jobs/{GENERAL_JOB}/complete");
    let problem = problem(proxy.post(&path, "").await).await;
    assert_eq!(problem["code"], "upstream_unreachable");
    assert_eq!(problem["status"], 502);
    assert_eq!(problem["retry"], "safe");
    assert!(problem["detail"].as_str().unwrap().contains(&port.to_string()));
}

#[tokio::test]
async fn an_outage_is_told_soon_and_shown_and_its_end_too() {
    let (socket, address) = refusing();
    let sandbox = Sandbox::new(Settings::default());
    let router = sandbox.router();
    // Its calls may take minutes, and so may this test if they wait for their deadline.
    let soon = |options: &mut Options| {
        options.upstream.connect_timeout = Duration::from_millis(300);
        options.upstream.timeout = Duration::from_secs(3600);
        options.upstream.change_timeout = Duration::from_secs(3600);
    };
    let proxy = TestProxy::in_front_of(sandbox, address, soon).await;
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    for path in ["/jobs/list", &reserve, &format!("/jobs/{GENERAL_JOB}/complete")] {
        let response = proxy.post(path, "").await;
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::BAD_GATEWAY, &"1".parse().unwrap())
        );
        let problem = problem(response).await;
        assert_eq!(
            (&problem["code"], &problem["retry"]),
            (&"upstream_unreachable".into(), &"safe".into())
        );
    }
    let ready = async |path| proxy.client.get(proxy.url(path)).send().await.unwrap().status();
    assert_eq!(ready("/readyz?upstream").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready("/readyz").await, StatusCode::OK);
    let seen = async || -> Value {
        let text = proxy.client.get(proxy.url("/proxy/status")).send().await.unwrap().text().await;
        serde_json::from_str::<Value>(&text.unwrap()).unwrap()["upstream"].clone()
    };
    let outage = seen().await;
    assert!(
        outage["unreachable_since"].is_string() && outage["last_success"].is_null(),
        "{outage}"
    );
    assert!(outage["last_failure"]["why"].as_str().unwrap().contains("refused"), "{outage}");

    let listener = socket.listen(16).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let answered = async { while proxy.post("/jobs/list", "").await.status() != StatusCode::OK {} };
    tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap();
    let reached = async { while ready("/readyz?upstream").await != StatusCode::OK {} };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
    let over = seen().await;
    assert!(over["unreachable_since"].is_null() && over["last_success"].is_string(), "{over}");
}

/// An upstream that reads each request, gives this answer, and closes.
async fn saying(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    address
}

/// Little patience for an outage, and much for all else.
fn soon(options: &mut Options) {
    options.upstream.connect_timeout = Duration::from_millis(300);
    options.upstream.timeout = Duration::from_secs(3600);
    options.upstream.change_timeout = Duration::from_secs(3600);
}

#[tokio::test]
async fn an_outage_behind_a_gateway_is_told_soon_and_shown_and_calls_share_an_attempt() {
    let page =
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    for answer in [&page[..], b""] {
        let upstream = saying(answer).await;
        let proxy = TestProxy::in_front_of(Sandbox::new(Settings::default()), upstream, soon).await;
        let told = tokio::time::timeout(Duration::from_secs(60), problems(&proxy)).await.unwrap();
        assert!(told.iter().all(|problem| problem["retry"] == "safe"), "{told:?}");
        let status = proxy.client.get(proxy.url("/proxy/status")).send().await.unwrap();
        let status: Value = serde_json::from_str(&status.text().await.unwrap()).unwrap();
        assert!(status["upstream"]["unreachable_since"].is_string(), "{status}");
        let ready = proxy.client.get(proxy.url("/readyz?upstream")).send().await.unwrap();
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let proxy = proxy_with(soon, move || {
        count.fetch_add(1, SeqCst);
        (StatusCode::BAD_GATEWAY, "<html>").into_response()
    });
    let proxy = proxy.await;
    let known = async {
        loop {
            let response = proxy.post("/jobs/list", "").await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
            if response.headers().contains_key("retry-after") {
                break problem(response).await;
            }
        }
    };
    let known = tokio::time::timeout(Duration::from_secs(60), known).await.unwrap();
    assert_eq!(known["code"], "upstream_unreachable", "{known}");
    assert!(known["detail"].as_str().unwrap().contains("502"), "{known}");
    let (before, begun) = (asked.load(SeqCst), Instant::now());
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    futures_util::future::join_all((0..50).map(|_| proxy.post("/jobs/list", ""))).await;
    proxy.post(&reserve, "").await;
    let most = 2 + begun.elapsed().as_secs() as usize;
    assert!(asked.load(SeqCst) - before <= most, "{before} {asked:?}");
}

#[tokio::test]
async fn what_does_not_speak_http_is_foreign_at_once() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
    ] {
        let upstream = saying(answer).await;
        let proxy = TestProxy::in_front_of(Sandbox::new(Settings::default()), upstream, soon).await;
        for problem in problems(&proxy).await {
            let told = (&problem["code"], &problem["retry"]);
            assert_eq!(told, (&"upstream_foreign".into(), &"never".into()), "{problem}");
        }
    }
}

#[tokio::test]
async fn who_asks_for_the_upstream_shares_one_probe() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let page = move || {
        count.fetch_add(1, SeqCst);
        async { StatusCode::METHOD_NOT_ALLOWED }
    };
    let upstream = serve(Router::new().fallback(page)).await;
    let proxy = TestProxy::in_front_of(Sandbox::new(Settings::default()), upstream, short).await;
    let ready = async || {
        let get = proxy.client.get(proxy.url("/readyz?upstream")).send().await.unwrap();
        assert_eq!(get.status(), StatusCode::OK, "whatever it says, it answers");
    };
    let begun = Instant::now();
    futures_util::future::join_all((0..50).map(|_| ready())).await;
    let most = 1 + begun.elapsed().as_secs() as usize;
    assert!((1..=most).contains(&asked.load(SeqCst)), "{asked:?}");
}

#[tokio::test]
async fn a_change_that_was_lost_before_an_outage_is_told_soon() {
    let sandbox = Sandbox::new(Settings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, end) = tokio::sync::oneshot::channel();
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    // It goes down while it makes the change.
    let goes_down = from_fn(move |request: Request, next: Next| {
        let reserve = request.uri().path().ends_with("/reserve");
        let ended = ended.lock().unwrap().take_if(|_| reserve);
        async move {
            if let Some(ended) = ended {
                ended.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            next.run(request).await
        }
    });
    let router = sandbox.router().layer(goes_down);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::spawn(async move { axum::serve(listener, router).await });
            end.await.unwrap();
        });
    });
    let long = |options: &mut Options| {
        options.upstream.connect_timeout = Duration::from_millis(300);
        options.upstream.timeout = Duration::from_secs(3600);
        options.upstream.change_timeout = Duration::from_secs(3600);
    };
    let proxy = TestProxy::in_front_of(sandbox, address, long).await;
    let path = format!("/jobs/{GENERAL_JOB}/reserve");
    let reserve = proxy.post(&path, "");
    let told = tokio::time::timeout(Duration::from_secs(60), reserve).await.unwrap();
    let told = problem(told).await;
    assert_eq!(
        (&told["code"], &told["retry"]),
        (&"outcome_unknown".into(), &"check_first".into()),
        "{told}"
    );
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_a_change_must_be_checked() {
    let sandbox = Sandbox::new(Settings::default());
    let hang = from_fn(|request: Request, next: Next| async move {
        if !request.uri().path().ends_with("/auth/session") {
            std::future::pending::<()>().await;
        }
        next.run(request).await
    });
    let upstream = serve(sandbox.router().layer(hang)).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, short).await;
    let [read, change] = problems(&proxy).await;
    assert_eq!((&read["status"], &read["code"]), (&504.into(), &"upstream_timeout".into()));
    assert_eq!(read["retry"], "safe");
    assert_eq!((&change["status"], &change["code"]), (&504.into(), &"outcome_unknown".into()));
    assert_eq!(change["retry"], "check_first");
}

#[tokio::test]
async fn a_change_runs_to_its_end_though_its_client_has_gone_away() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let hold = gate.clone();
    let slow = from_fn(move |request: Request, next: Next| {
        let (arrived, hold) = (arrived.clone(), hold.clone());
        async move {
            if request.uri().path().ends_with("/complete") {
                arrived.send(()).unwrap();
                hold.acquire().await.unwrap().forget();
            }
            next.run(request).await
        }
    });
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(sandbox.router().layer(slow)).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;

    let reserved = proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let reservation = &reserved["job"]["reservation_id"];
    let proof = serde_json::json!({ "proof_text": "done", "reservation_id": reservation });
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    tokio::select! {
        answer = proxy.post(&path, proof.to_string()) => panic!("{answer:?}"),
        arrival = arrivals.recv() => arrival.unwrap(),
    }
    gate.add_permits(1);
    proxy.proxy.drained().await;
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
    let status = proxy.ok(&format!("/jobs/{GENERAL_JOB}/status"), "").await;
    assert_eq!(status["submission"]["status"], "submitted");
}
