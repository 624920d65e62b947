//! The upstream misbehaving: down, slow, redirecting, too talkative.

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
async fn a_token_is_withheld_from_the_answer_to_every_call_whatever_its_status() {
    const TOKEN: &str = "aaaabbbbccccddddeeee";
    for status in [200, 402, 409] {
        for body in [
            format!(r#"{{"workflow_access":{{"access_token":"{TOKEN}"}}}}"#),
            format!(r#"{{"job":{{"accessToken":"{TOKEN}"}}}}"#),
            format!(r#"{{"data":"{{\"access_token\":\"{TOKEN}\"}}"}}"#),
            format!(r#"{{"access\u005ftoken":"{TOKEN}",NaN}}"#),
        ] {
            let given = body.clone();
            let answer =
                move || (StatusCode::from_u16(status).unwrap(), given.clone()).into_response();
            let proxy = proxy_before(answer).await;
            for call in
                ["list", &format!("{GENERAL_JOB}/status"), &format!("{GENERAL_JOB}/reserve")]
            {
                let answered = proxy.post(&format!("/jobs/{call}"), "").await;
                assert_eq!(answered.status().as_u16(), status, "{call} {body}");
                let text = answered.text().await.unwrap();
                assert!(!text.contains(TOKEN) && text.contains("held-by-proxy"), "{call}: {text}");
            }
        }
    }
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
async fn an_answer_that_breaks_off_must_be_checked_if_it_was_a_change() {
    let broken = || {
        let body =
            futures_util::stream::iter([Ok("{\"jobs\":"), Err(std::io::Error::other("cut"))]);
        Body::from_stream(body).into_response()
    };
    let [read, change] = problems(&proxy_before(broken).await).await;
    assert_eq!((&read["code"], &read["retry"]), (&"upstream_broke_off".into(), &"safe".into()));
    assert_eq!(change["code"], "outcome_unknown");
    assert_eq!(change["retry"], "check_first");
}

#[tokio::test]
async fn an_answer_of_20_mib_is_refused_and_one_of_8_mib_is_passed_on() {
    let large = |size: usize| move || "x".repeat(size << 20).into_response();
    let in_parts = || {
        let parts = (0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(1 << 20)));
        Body::from_stream(futures_util::stream::iter(parts)).into_response()
    };
    let endless = || {
        let body = Body::from_stream(futures_util::stream::pending::<std::io::Result<String>>());
        ([("content-length", (20 << 20).to_string())], body).into_response()
    };
    let proxies =
        [proxy_before(large(20)).await, proxy_before(in_parts).await, proxy_before(endless).await];
    for proxy in proxies {
        let [read, change] = problems(&proxy).await;
        assert_eq!((&read["code"], &read["retry"]), (&"answer_too_large".into(), &"safe".into()));
        assert_eq!(change["retry"], "check_first");
    }
    let proxy = proxy_before(large(8)).await;
    assert_eq!(proxy.post("/jobs/list", "").await.bytes().await.unwrap().len(), 8 << 20);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_names_the_setting() {
    let elsewhere = TestProxy::start().await;
    let target = elsewhere.url("/secret?nonce=1");
    for status in [301, 302, 307, 308] {
        let (target, status) = (target.clone(), StatusCode::from_u16(status).unwrap());
        let redirect = move || (status, [("location", target.clone())]).into_response();
        // Of a call, and of the session that comes first.
        let sandbox = Sandbox::new(Settings::default());
        let all = redirect.clone();
        let upstream = serve(Router::new().fallback(move || async move { all() })).await;
        let session = TestProxy::in_front_of(sandbox, upstream, short).await;
        let [read, change] = problems(&proxy_before(redirect).await).await;
        // To a change, the older two may also say that it was made.
        let is_moved = [307, 308].contains(&status.as_u16());
        let code = if is_moved { "upstream_moved" } else { "upstream_foreign" };
        assert_eq!((&change["code"], &change["retry"]), (&code.into(), &"never".into()));
        let detail = change["detail"].as_str().unwrap();
        assert_eq!(detail.contains("had no effect"), is_moved, "{detail}");
        assert!(detail.contains(status.as_str()) && !detail.contains("secret"), "{detail}");
        for problem in problems(&session).await.into_iter().chain([read]) {
            let told = (&problem["code"], &problem["retry"], &problem["status"]);
            assert_eq!(told, (&"upstream_moved".into(), &"never".into(), &502.into()));
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains(status.as_str()) && detail.contains("upstream.url"),
                "{detail}"
            );
            assert!(detail.contains(&elsewhere.url("")) && !detail.contains("secret"), "{detail}");
        }
    }
    assert_eq!(elsewhere.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn an_upstream_that_knows_no_sessions_is_not_asked_again() {
    let cases =
        [(200, "<html>"), (303, ""), (303, "<html>"), (404, "<html>"), (403, "\n<!DOCTYPE")];
    let foreign = cases.map(|(status, body)| (status, body, "upstream_foreign"));
    let refused = [400, 403, 404, 405, 409].map(|status| (status, "{}", "session_failed"));
    for (status, body, code) in foreign.into_iter().chain(refused) {
        let page = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        let upstream = serve(Router::new().fallback(page)).await;
        let sandbox = Sandbox::new(Settings::default());
        let proxy = TestProxy::in_front_of(sandbox, upstream, short).await;
        for problem in problems(&proxy).await {
            let told = (&problem["code"], &problem["retry"]);
            assert_eq!(told, (&code.into(), &"never".into()), "{status} {body}");
            assert!(problem["detail"].as_str().unwrap().contains("upstream.url"), "{problem}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_another_proxy_is_told_and_not_asked_again() {
    let other = TestProxy::start().await;
    let sandbox = Sandbox::new(Settings::default());
    let other_key = |options: &mut Options| options.key = "43".repeat(32);
    let proxy = TestProxy::in_front_of(sandbox, other.address, other_key).await;
    for problem in problems(&proxy).await {
        let told = (&problem["code"], &problem["retry"]);
        assert_eq!(told, (&"session_failed".into(), &"never".into()), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("409") && detail.contains("check that upstream.url is"),
            "{detail}"
        );
        assert!(detail.ends_with("it looks like another agentpmt-proxy"), "{detail}");
    }
    assert_eq!(other.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_named_with_the_setting() {
    let answering = async |status: u16, body: &'static str| {
        let answer = move || (StatusCode::from_u16(status).unwrap(), body).into_response();
        proxy_before(answer).await
    };
    let is_foreign = |problem: &Value| {
        let told = (&problem["code"], &problem["retry"], &problem["status"]);
        assert_eq!(told, (&"upstream_foreign".into(), &"never".into(), &502.into()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("upstream.url"), "{problem}");
    };
    for (status, body) in [(200, "<html>"), (404, " <!DOCTYPE html>"), (403, "<html>")] {
        let proxy = answering(status, body).await;
        is_foreign(&problem(proxy.post("/jobs/list", "").await).await);
    }
    // Not even JSON says whether the change was made.
    for status in [301, 302] {
        let proxy = answering(status, r#"{"message":"moved"}"#).await;
        is_foreign(&problems(&proxy).await[1]);
    }
    for (status, body) in [(300, ""), (303, ""), (303, "<html>"), (304, ""), (305, "moved")] {
        problems(&answering(status, body).await).await.iter().for_each(is_foreign);
    }
    // The API's own form is passed on.
    for (status, body) in [(303, r#"{"detail":"see other"}"#), (404, "{}"), (200, "[]")] {
        let response = answering(status, body).await.post("/jobs/list", "").await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.text().await.unwrap(), body);
    }
}

#[tokio::test]
async fn only_harmless_headers_of_an_answer_are_passed_on() {
    let talkative = || {
        let headers = [
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1"),
            ("server", "x"),
            ("x-request-id", "theirs"),
            ("retry-after", "7"),
            ("x-ratelimit-remaining", "3"),
            ("content-type", "application/json; charset=utf-8"),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers, "{}").into_response()
    };
    let response = proxy_before(talkative).await.post("/jobs/list", "").await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let mut names: Vec<_> = response.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "content-length",
        "content-type",
        "date",
        "retry-after",
        "x-ratelimit-remaining",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    assert_ne!(response.headers()["x-request-id"], "theirs");
    assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
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

#[tokio::test]
async fn a_page_in_place_of_an_answer_is_not_taken_for_success() {
    let struck = Arc::new(AtomicBool::new(false));
    // Something between the two answers in place of the upstream, once.
    let layer = from_fn(move |request: Request, next: Next| {
        let strikes = request.uri().path().ends_with("/complete") && !struck.swap(true, SeqCst);
        async move {
            if strikes {
                "<html>Please sign in</html>".into_response()
            } else {
                next.run(request).await
            }
        }
    });
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let complete = format!("/jobs/{GENERAL_JOB}/complete");
    proxy.ok(&complete, r#"{"proof_text":"done"}"#).await;
    assert_eq!(
        proxy.sandbox.accepted(GENERAL_JOB),
        1,
        "it was made again, since it had not been made"
    );
}

#[tokio::test]
async fn a_page_that_comes_after_the_upstream_has_acted_makes_no_change_twice() {
    let pages = [(503, "<html>Busy</html>"), (503, ""), (409, "<html>Conflict</html>")];
    for (status, page) in pages {
        let struck = Arc::new(AtomicBool::new(false));
        let layer = from_fn(move |request: Request, next: Next| {
            let strikes = request.uri().path().ends_with("/complete") && !struck.swap(true, SeqCst);
            async move {
                let answer = next.run(request).await;
                let status = StatusCode::from_u16(status).unwrap();
                if strikes {
                    (status, [("retry-after", "0")], page).into_response()
                } else {
                    answer
                }
            }
        });
        let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        let complete = format!("/jobs/{GENERAL_JOB}/complete");
        proxy.ok(&complete, r#"{"proof_text":"done"}"#).await;
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1, "{status} {page:?}");
    }
}

#[tokio::test]
async fn an_answer_to_another_job_is_a_lost_answer() {
    let foreign = r#"{"job":{"job_id":"68f0a1c27b3e4d5f607182ff","reservation_id":"r-other",
        "job_instructions":"of another"},"workflow_access":{"access_token":"t-other"},
        "submission":{"status":"approved"},"has_active_reservation":true}"#;
    let strikes = Arc::new(AtomicUsize::new(0));
    let layer = {
        let strikes = strikes.clone();
        from_fn(move |request: Request, next: Next| {
            let about_a_job = !request.uri().path().ends_with("/auth/session");
            let strikes = about_a_job
                && strikes.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            async move {
                let answer = next.run(request).await;
                if strikes { foreign.into_response() } else { answer }
            }
        })
    };
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
    let job = format!("/jobs/{GENERAL_JOB}");
    let held = async || {
        let held = proxy.client.get(proxy.url("/proxy/reservations")).send().await.unwrap();
        json(held).await["reservations"].to_string()
    };

    // A read is made again, also the one that finds out what became of a change.
    strikes.store(2, SeqCst);
    let reserve = proxy.post(&format!("{job}/reserve"), "").await.text().await.unwrap();
    for text in [reserve, held().await] {
        assert!(!text.contains("other"), "{text}");
    }
    assert_eq!(strikes.load(SeqCst), 0);
    strikes.store(1, SeqCst);
    let status = proxy.ok(&format!("{job}/status"), "").await;
    assert_eq!(
        (&status["job"]["job_id"], &status["has_active_reservation"]),
        (&GENERAL_JOB.into(), &true.into())
    );
    // That answer says nothing of the proof, which was refused for want of a reservation id.
    strikes.store(1, SeqCst);
    let complete = format!("{job}/complete");
    let refused = proxy.post(&complete, r#"{"proof_text":"done"}"#).await;
    assert!(refused.status().is_client_error(), "{}", refused.status());
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 0);
}

/// Serves on a free port, but answers the second request for a status over a connection with the answer
/// to the first, and only then to itself.
async fn serve_a_late_answer(router: Router, over: Arc<AtomicUsize>) -> SocketAddr {
    let upstream = serve(router).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let over = over.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let mut first: Option<Vec<u8>> = None;
                // Both are small enough to come whole.
                let (mut request, mut answer) = ([0; 16384], [0; 16384]);
                while let Ok(length @ 1..) = client.read(&mut request).await {
                    let request = &request[..length];
                    server.write_all(request).await.unwrap();
                    let length = server.read(&mut answer).await.unwrap();
                    if request.windows(7).any(|word| word == b"/status") {
                        if let Some(late) = &first {
                            client.write_all(late).await.unwrap();
                        }
                        first.get_or_insert_with(|| answer[..length].to_vec());
                    }
                    let _ = client.write_all(&answer[..length]).await;
                }
                over.fetch_add(1, SeqCst);
            });
        }
    });
    address
}

#[tokio::test]
async fn a_second_answer_is_not_taken_for_that_of_the_next_call() {
    let (sandbox, over) = (Sandbox::new(Settings::default()), Arc::new(AtomicUsize::new(0)));
    let upstream = serve_a_late_answer(sandbox.router(), over.clone()).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    for job in [GENERAL_JOB, WORKFLOW_JOB, GENERAL_JOB, WORKFLOW_JOB] {
        let status = proxy.ok(&format!("/jobs/{job}/status"), "").await;
        assert_eq!(status["job"]["job_id"], job);
    }
    let closed = async {
        while over.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(60), closed).await;
    assert!(closed.is_ok(), "a connection that gave a wrong answer is closed");
}

/// Serves on a free port, but closes a connection that was idle for a second and a quarter when the
/// next request comes, without an answer.
async fn serve_impatiently(router: Router) -> SocketAddr {
    const PATIENCE: Duration = Duration::from_millis(1250);
    let upstream = serve(router).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let (mut buffer, mut idle_since) = ([0; 4096], Instant::now());
                let mut answer = [0; 4096];
                loop {
                    tokio::select! {
                        read = client.read(&mut buffer) => match read {
                            Ok(1..) if idle_since.elapsed() > PATIENCE => return,
                            Ok(length @ 1..) => server.write_all(&buffer[..length]).await.unwrap(),
                            _ => return,
                        },
                        read = server.read(&mut answer) => {
                            client.write_all(&answer[..read.unwrap()]).await.unwrap();
                            idle_since = Instant::now();
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_change_takes_no_connection_that_was_idle() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_impatiently(sandbox.router()).await;
    let no_settling =
        |options: &mut Options| options.upstream.settle_time = Duration::from_secs(3600);
    let proxy = TestProxy::in_front_of(sandbox, upstream, no_settling).await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    let idle = async || tokio::time::sleep(Duration::from_millis(1500)).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    proxy.ok("/jobs/list", "").await;
    idle().await;
    // Otherwise it would be settled for an hour, or in doubt.
    proxy.ok(&format!("{job}/reserve"), "").await;
    proxy.ok("/jobs/list", "").await;
    idle().await;
    proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
}

#[tokio::test]
async fn an_update_whose_connection_breaks_is_made_again() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    proxy.ok(&format!("{job}/reserve"), "").await;
    let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let id = created["workflow_id"].as_str().unwrap();
    let url = proxy.url(&format!("/api/external{job}/workflow/{id}"));
    for fault in ["cut_before", "cut_after"] {
        proxy.sandbox.inject(format!("{fault}:job_workflow_update:1").parse().unwrap());
        let updated = proxy.client.put(&url).body(WORKFLOW).send().await.unwrap();
        assert_eq!(updated.status(), StatusCode::OK, "{fault}");
    }
}

/// A request without a body, to a socket of the proxy.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> String {
    let head = format!("POST /api/external{path} HTTP/1.1\r\nhost: {host}\r\n");
    let rest = "content-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn an_answer_that_came_while_the_process_was_stopped_is_read() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let hold = gate.clone();
    let held = from_fn(move |request: Request, next: Next| {
        let (arrived, hold) = (arrived.clone(), hold.clone());
        async move {
            if !request.uri().path().ends_with("/auth/session") {
                arrived.send(()).unwrap();
                hold.acquire().await.unwrap().forget();
            }
            next.run(request).await
        }
    });
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve(sandbox.router().layer(held)).await);
    let home = Home::with_wallet().with_password(PASSWORD);
    let times = "[upstream]\ntimeout = '9s'\nchange_timeout = '4s'";
    home.write("proxy.toml", times);
    let server = home.serve(&["serve", "--upstream", &upstream]);
    // A try of either has three seconds.
    let paths = ["/jobs/list".to_owned(), format!("/jobs/{GENERAL_JOB}/reserve")];
    let answers = paths.map(|path| {
        let address = server.address;
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            ask(stream, &address.to_string(), &path).await
        })
    });
    for _ in &answers {
        let arrival = tokio::time::timeout(Duration::from_secs(60), arrivals.recv());
        arrival.await.unwrap().unwrap();
    }
    signal(server.id(), "STOP");
    gate.add_permits(answers.len());
    tokio::time::sleep(Duration::from_millis(4500)).await;
    signal(server.id(), "CONT");
    for answer in answers {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(arrivals.try_recv().is_err(), "neither was made again, and no status asked for");
}

fn signal(process: u32, name: &str) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[tokio::test]
async fn a_call_over_a_path_that_went_silent_ends_long_before_its_deadline() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", "[upstream]\ntimeout = '1h'\nconnect_timeout = '1s'");
    let in_network = |script: &str, last: &[&str]| {
        let mut command = home.wrapped("unshare");
        // All of its processes end with the first.
        command.args(["--net", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", script, "sh"]).args(last);
        command
    };
    let can = in_network("ip link set lo up", &[]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return println!("skipped: no network of its own can be made here");
    }
    let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
    // When the file is there, what is sent between the two is lost.
    let script = "ip link set lo up
        \"$1\" sandbox --listen 127.0.0.1:8410 > sandbox.log 2>&1 &
        \"$1\" serve --upstream http://127.0.0.1:8410 --listen unix:p.sock &
        until [ -e silent ]; do sleep 0.05; done; ip link set lo down; touch is-silent; wait";
    let _server = home.serve_as(&mut in_network(script, &[program]), Stdio::null());
    let list = async || {
        ask(UnixStream::connect(home.path("p.sock")).await.unwrap(), "localhost", "/jobs/list")
            .await
    };
    let answered = async { while !list().await.starts_with("HTTP/1.1 200 ") {} };
    tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap();
    home.write("silent", "");
    let is_silent = async {
        while !home.path("is-silent").exists() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_silent).await.unwrap();
    let answer = list().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream_unreachable"),
        "{answer}"
    );
}
