//! The session: fetched once, renewed in time, replaced when the upstream has lost it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::Value;

use crate::common::{GENERAL_JOB, Options, TestProxy, json, problem, serve, serve_sandbox};

/// What stands before the sandbox, seeing the nonce and the request id of each signed call.
#[derive(Clone, Default)]
struct Fault {
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Fault {
    /// Answers the first `times` signed calls itself; they do not reach the sandbox.
    fn answer(
        &self,
        times: usize,
        status: u16,
        body: &'static str,
    ) -> impl FnOnce(Router) -> Router {
        let fault = self.clone();
        move |router| {
            router.layer(from_fn(move |request: Request, next: Next| {
                let fault = fault.clone();
                async move {
                    if request.uri().path().ends_with("/auth/session") {
                        return next.run(request).await;
                    }
                    let (request, seen) = fault.see(request).await;
                    if seen <= times { answer(status, body) } else { next.run(request).await }
                }
            }))
        }
    }

    /// Notes a call, and gives it back with its number, counted from 1.
    async fn see(&self, request: Request) -> (Request, usize) {
        let (head, body) = request.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let call: Value = serde_json::from_slice(&bytes).unwrap();
        let text = |name: &str| call[name].as_str().unwrap().to_owned();
        let mut seen = self.seen.lock().unwrap();
        seen.push((text("session_nonce"), text("request_id")));
        (Request::from_parts(head, Body::from(bytes)), seen.len())
    }

    fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How many different nonces and request ids there were.
    fn different(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        let nonces: HashSet<_> = seen.iter().map(|(nonce, _)| nonce).collect();
        let request_ids: HashSet<_> = seen.iter().map(|(_, request_id)| request_id).collect();
        (nonces.len(), request_ids.len())
    }
}

fn answer(status: u16, body: &'static str) -> Response {
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

#[tokio::test]
async fn two_hundred_first_requests_open_one_session() {
    let proxy = TestProxy::start().await;
    let answers = join_all((0..200).map(|_| proxy.post("/jobs/list", ""))).await;
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(proxy.sandbox.counts().sessions, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_every_second_loses_no_request() {
    let settings = Settings { session: Duration::from_secs(1), ..Settings::default() };
    let proxy = TestProxy::start_with(settings, |router| router).await;
    let end = Instant::now() + Duration::from_secs(4);
    let worker = async || {
        while Instant::now() < end {
            proxy.ok("/jobs/list", "").await;
        }
    };
    join_all((0..8).map(|_| worker())).await;
    let sessions = proxy.sandbox.counts().sessions;
    assert!((3..20).contains(&sessions), "{sessions} sessions in four seconds");
}

#[tokio::test]
async fn a_session_that_is_lost_every_time_is_renewed_once_a_call() {
    let fault = Fault::default();
    let body = r#"{"detail":"Invalid session nonce"}"#;
    let proxy = TestProxy::start_with(Settings::default(), fault.answer(99, 401, body)).await;
    let response = proxy.post("/jobs/list", "").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(json(response).await["detail"], "Invalid session nonce");
    assert_eq!(fault.seen(), 2);
    assert_eq!(fault.different(), (2, 2), "a new nonce and a fresh request id");
    assert_eq!(proxy.sandbox.counts().sessions, 2);
}

#[tokio::test]
async fn a_lost_session_is_replaced_and_the_call_goes_through() {
    let fault = Fault::default();
    let body = r#"{"error":{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED"}}"#;
    let proxy = TestProxy::start_with(Settings::default(), fault.answer(1, 401, body)).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    assert_eq!(fault.seen(), 2);
    assert_eq!(fault.different(), (2, 2), "a new nonce and a fresh request id");
    assert_eq!(proxy.sandbox.counts().sessions, 2);
}

#[tokio::test]
async fn calls_that_lose_the_session_together_replace_it_together() {
    let fault = Fault::default();
    let body = r#"{"detail":"Session nonce expired"}"#;
    let proxy = TestProxy::start_with(Settings::default(), fault.answer(50, 401, body)).await;
    join_all((0..50).map(|_| proxy.post("/jobs/list", ""))).await;
    assert!(fault.seen() <= 100, "no call is tried a third time");
    let sessions = proxy.sandbox.counts().sessions;
    assert!((2..=3).contains(&sessions), "{sessions} sessions");
}

#[tokio::test]
async fn a_replay_is_tried_once_more_in_the_same_session() {
    let fault = Fault::default();
    let body = r#"{"detail":"Duplicate request_id for this session_nonce"}"#;
    let proxy = TestProxy::start_with(Settings::default(), fault.answer(1, 409, body)).await;
    proxy.ok("/jobs/list", "").await;
    assert_eq!((fault.seen(), proxy.sandbox.counts().sessions), (2, 1));
    assert_eq!(fault.different(), (1, 2), "the same nonce and a fresh request id");

    let fault = Fault::default();
    let proxy = TestProxy::start_with(Settings::default(), fault.answer(9, 409, body)).await;
    assert_eq!(proxy.post("/jobs/list", "").await.status(), StatusCode::CONFLICT);
    assert_eq!(fault.seen(), 2);
}

#[tokio::test]
async fn a_wrong_signature_is_never_tried_again() {
    for body in [
        r#"{"detail":{"code":"EXTERNAL_SIGNATURE_WALLET_MISMATCH","expected_message":"a\nb"}}"#,
        r#"{"detail":"Signature does not match wallet_address"}"#,
        r#"{"error":{"code":"EXTERNAL_SIGNATURE_MALFORMED"}}"#,
    ] {
        let fault = Fault::default();
        let proxy = TestProxy::start_with(Settings::default(), fault.answer(9, 401, body)).await;
        assert_eq!(proxy.post("/jobs/list", "").await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(fault.seen(), 1, "{body}");
    }
}

/// Puts an answer of its own before the sandbox's sessions.
fn session_answer(status: u16, body: &'static str) -> impl FnOnce(Router) -> Router {
    move |router| {
        router.layer(from_fn(move |request: Request, next: Next| async move {
            let session = request.uri().path().ends_with("/auth/session");
            if session { answer(status, body) } else { next.run(request).await }
        }))
    }
}

/// A proxy whose reads have so many seconds, before this upstream.
async fn with_timeout(seconds: u64, sandbox: Sandbox, upstream: SocketAddr) -> TestProxy {
    let set = |options: &mut Options| options.upstream.timeout = Duration::from_secs(seconds);
    TestProxy::in_front_of(sandbox, upstream, set).await
}

#[tokio::test]
async fn a_session_that_is_never_answered_is_begun_anew_within_the_call() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = with_timeout(3, sandbox, upstream).await;
    proxy.sandbox.inject("hang_before:session:1".parse().unwrap());
    proxy.ok("/jobs/list", "").await;
    assert_eq!(proxy.sandbox.counts().sessions, 1);
}

#[tokio::test]
async fn a_session_that_takes_long_to_begin_is_waited_for_the_second_time() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = with_timeout(8, sandbox, upstream).await;
    let slow = r#"{"kind":"slow_before","action":"session","delay":"3s"}"#;
    proxy.sandbox.inject(serde_json::from_str(slow).unwrap());
    proxy.ok("/jobs/list", "").await;
}

#[tokio::test]
async fn when_the_upstream_wants_to_be_asked_later_the_client_is_told() {
    let busy = from_fn(|_: Request, _: Next| async {
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "{}").into_response()
    });
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(sandbox.router().layer(busy)).await;
    // Too short to do as it wants.
    let proxy = with_timeout(5, sandbox, upstream).await;
    let response = proxy.post("/jobs/list", "").await;
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(problem(response).await["code"], "session_failed");
}

#[tokio::test]
async fn no_session_is_an_error_that_says_nothing_was_signed() {
    for (status, body) in [
        (500, "{}"),
        (200, "{}"),
        (200, "not json"),
        (200, r#"{"session_nonce":"line\nbreak"}"#),
        (200, r#"{"session_nonce":""}"#),
    ] {
        let sandbox = Sandbox::new(Settings::default());
        let upstream = serve(session_answer(status, body)(sandbox.router())).await;
        let short =
            |options: &mut Options| options.upstream.change_timeout = Duration::from_secs(2);
        let proxy = TestProxy::in_front_of(sandbox, upstream, short).await;
        let problem = problem(proxy.post(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await).await;
        assert_eq!(problem["code"], "session_failed", "{body}");
        assert_eq!(problem["status"], 502, "{body}");
        assert_eq!(problem["retry"], "safe", "{body}");
    }
}
