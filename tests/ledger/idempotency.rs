//! `Idempotency-Key`: a change is made once, and answered the same every time.

mod completions;
mod doubt;

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use futures_util::future::{join, join_all};
use http::StatusCode;
use reqwest::{Response, header::HeaderMap};
use rusqlite::Connection;
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, oneshot},
    task::{spawn_blocking, yield_now},
    time::timeout,
};

#[cfg(target_os = "linux")]
use crate::clock::{set_ahead, with_a_clock_to_set};
use crate::common::{
    self, GENERAL_JOB, Options, TestProxy, WORKFLOW, WORKFLOW_JOB, problem, refusing, serve,
    serve_sandbox,
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

const PROOF: &str = r#"{"proof_text":"done"}"#;

/// A proxy in front of a sandbox with its faults, with the general job reserved.
async fn reserved() -> TestProxy {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
        options.upstream.change_timeout = Duration::from_secs(3);
    })
    .await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    proxy
}

/// Another proxy on the store of the first, which has ended.
async fn restarted(first: TestProxy) -> TestProxy {
    first.proxy.drained().await;
    let (sandbox, folder) = (first.sandbox.clone(), first.folder());
    drop(first);
    let upstream = serve_sandbox(&sandbox).await;
    TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await
}

async fn send(proxy: &TestProxy, path: &str, key: &str, body: &str) -> Response {
    let url = proxy.url(&format!("/api/external{path}"));
    let request = proxy.client.post(url).header("idempotency-key", key);
    request.body(body.to_owned()).send().await.unwrap()
}

async fn complete(proxy: &TestProxy, key: &str) -> Response {
    send(proxy, &format!("/jobs/{GENERAL_JOB}/complete"), key, PROOF).await
}

async fn complete_unkeyed(proxy: &TestProxy, body: &str) -> Response {
    proxy.post(&format!("/jobs/{GENERAL_JOB}/complete"), body.to_owned()).await
}

fn is_replayed(headers: &HeaderMap) -> bool {
    headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// The body of a good answer, and whether it was given before.
async fn good(response: Response) -> (String, bool) {
    assert_eq!(response.status(), StatusCode::OK);
    let replayed = is_replayed(response.headers());
    (response.text().await.unwrap(), replayed)
}

#[tokio::test]
async fn the_same_call_is_made_once_and_answered_the_same_also_after_a_restart() {
    let first = reserved().await;
    let (answer, replayed) = good(complete(&first, "k").await).await;
    assert!(!replayed);
    for key in ["k", "\"k\""] {
        assert_eq!(good(complete(&first, key).await).await, (answer.clone(), true), "{key}");
    }

    let second = restarted(first).await;
    let before = second.sandbox.counts().requests;
    assert_eq!(good(complete(&second, "k").await).await, (answer, true));
    assert_eq!(second.sandbox.counts().requests, before, "nothing was sent");
    assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_call_is_refused_and_nothing_is_sent() {
    let proxy = reserved().await;
    good(complete(&proxy, "k").await).await;
    let before = proxy.sandbox.counts().requests;
    let same_job = format!("/jobs/{GENERAL_JOB}");
    for (path, body) in [
        (format!("{same_job}/complete"), r#"{"proof_text":"other"}"#),
        (format!("/jobs/{WORKFLOW_JOB}/complete"), PROOF),
        (format!("{same_job}/reserve"), ""),
    ] {
        let response = send(&proxy, &path, "k", body).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path} {body}");
        assert_eq!(problem(response).await["code"], "idempotency_key_reused");
    }
    assert_eq!(proxy.sandbox.counts().requests, before);
}

#[tokio::test]
async fn a_second_request_waits_while_the_first_runs() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let layer = {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        from_fn(move |request: Request, next: Next| {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            async move {
                if request.uri().path().ends_with("/complete") {
                    arrived.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                }
                next.run(request).await
            }
        })
    };
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let release = async {
        arrived.acquire().await.unwrap().forget();
        // Another call goes through meanwhile.
        proxy.ok("/jobs/list", "").await;
        gate.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(complete(&proxy, "k"), complete(&proxy, "k"), release);
    let ((first, one), (second, other)) = (good(first).await, good(second).await);
    assert_eq!(first, second);
    assert!(one != other, "one of the two was made, the other was given the same");
    assert_eq!((proxy.sandbox.submissions(GENERAL_JOB), arrived.available_permits()), (1, 0));
}

/// How many transactions stand in the write-ahead log of a store: frames that end one carry the size of the
/// database (SQLite, "WAL Frame Header Format").
fn commits(proxy: &TestProxy) -> usize {
    let log = std::fs::read(proxy.folder().path().join("proxy.db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let frame = 24 + number(8) as usize;
    (32..log.len()).step_by(frame).filter(|at| number(at + 4) != 0).count()
}

#[tokio::test]
async fn a_completion_under_a_key_costs_three_commits() {
    let proxy = reserved().await;
    proxy.proxy.store().flush().await.unwrap();
    let before = commits(&proxy);
    assert!(!good(complete(&proxy, "k").await).await.1);
    // They begin the call, record it, and finish it. What came of its attempt may be written apart.
    let commits = commits(&proxy) - before;
    assert!((3..=4).contains(&commits), "{commits}");
}

#[tokio::test]
async fn a_call_under_a_key_takes_no_longer_than_a_change_may_however_it_waits() {
    let (proxy, _shut) = in_front_of_late(StatusCode::BAD_GATEWAY, |options| {
        options.upstream.settle_time = Duration::from_secs(3600);
        options.upstream.change_timeout = Duration::from_secs(4);
    })
    .await;
    let begun = std::time::Instant::now();
    // The second waits for the key of the first, and has no time of its own after that.
    let (first, second) = join(complete(&proxy, "k"), complete(&proxy, "k")).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?} is nearly twice the time");
    let codes = [problem(first).await["code"].clone(), problem(second).await["code"].clone()];
    assert!(codes.contains(&"outcome_unknown".into()), "{codes:?}");
}

#[tokio::test]
async fn a_header_that_is_no_single_key_is_refused() {
    let proxy = reserved().await;
    let before = proxy.sandbox.counts().requests;
    let long = "k".repeat(1025);
    for keys in [&[""][..], &["\"\""], &["a b"], &["a\tb"], &[&long], &["a", "b"], &["a", "a"]] {
        let url = proxy.url(&format!("/api/external/jobs/{GENERAL_JOB}/complete"));
        let with =
            |request: reqwest::RequestBuilder, key: &&str| request.header("idempotency-key", *key);
        let request = keys.iter().fold(proxy.client.post(url), with).body(PROOF);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{keys:?}");
        assert_eq!(problem(response).await["code"], "invalid_idempotency_key");
    }
    assert_eq!(proxy.sandbox.counts().requests, before);
}

#[tokio::test]
async fn a_key_on_a_read_changes_nothing() {
    let proxy = reserved().await;
    let before = proxy.sandbox.counts().requests;
    for body in ["", "", r#"{"limit":1}"#] {
        assert!(!good(send(&proxy, "/jobs/list", "k", body).await).await.1);
    }
    assert_eq!(proxy.sandbox.counts().requests, before + 3);
    assert!(!good(complete(&proxy, "k").await).await.1, "nor does it use up the key");
}

#[tokio::test]
async fn a_call_that_was_put_off_frees_its_key() {
    let proxy = reserved().await;
    let mut fault: agentpmt_proxy::sandbox::InjectedFault =
        "status_429:job_complete:1".parse().unwrap();
    fault.retry_after = 3600;
    proxy.sandbox.inject(fault);
    let response = complete(&proxy, "k").await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let other = r#"{"proof_text":"another"}"#;
    let again = send(&proxy, &format!("/jobs/{GENERAL_JOB}/complete"), "k", other).await;
    assert!(!good(again).await.1);
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_call_that_found_no_upstream_frees_its_key() {
    let sandbox = Sandbox::new(Settings::default());
    let (_port, nobody) = refusing();
    let down = TestProxy::in_front_of(sandbox.clone(), nobody, |options| {
        options.upstream.change_timeout = Duration::from_secs(1);
    })
    .await;
    let problem = problem(complete(&down, "k").await).await;
    assert_eq!((&problem["status"], &problem["retry"]), (&502.into(), &"safe".into()));

    let upstream = serve(sandbox.router()).await;
    let folder = down.folder();
    let up = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    up.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    assert!(!good(complete(&up, "k").await).await.1);
    assert_eq!(up.sandbox.submissions(GENERAL_JOB), 1);
}

/// Whether an answer is that of `job_status`, in place of one that was lost.
fn is_of_job_status(response: &Response) -> bool {
    let header = response.headers().get("x-agentpmt-proxy-answer");
    header.is_some_and(|value| value == "job_status")
}

/// Answers a completion with this status at once, and processes it once the gate is open.
fn late(router: Router, status: StatusCode, gate: Arc<Semaphore>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let gate = gate.clone();
        async move {
            if !request.uri().path().ends_with("/complete") {
                return next.run(request).await;
            }
            tokio::spawn(async move {
                gate.acquire().await.unwrap().forget();
                next.run(request).await
            });
            status.into_response()
        }
    }))
}

/// A proxy in front of such an upstream, with the general job reserved.
async fn in_front_of_late(
    status: StatusCode,
    change: impl FnOnce(&mut Options),
) -> (TestProxy, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(late(sandbox.router(), status, gate.clone())).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, change).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    (proxy, gate)
}

type Folder = Arc<tempfile::TempDir>;

#[tokio::test]
async fn answers_at_rest_cannot_be_read() {
    let proxy = reserved().await;
    let marker = "Job submitted for review";
    assert!(good(complete(&proxy, "a-known-key").await).await.0.contains(marker));
    proxy.proxy.drained().await;
    let mut found_key = false;
    for file in fs::read_dir(proxy.folder().path()).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!has(marker), "{}", path.display());
        found_key |= has("a-known-key");
    }
    assert!(found_key, "the search finds what is there in the clear");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_forward_sends_no_completion_twice_and_forgets_no_key() {
    let cases = [("20s", 30, false), ("20s", 30, true), ("50m", 3600, false), ("50m", 3600, true)];
    join_all(cases.map(|(settle_time, seconds, dies)| set_forward(settle_time, seconds, dies)))
        .await;
}

/// Sets the clock forward while a change settles, and by two days after that.
#[cfg(target_os = "linux")]
async fn set_forward(settle_time: &str, seconds: i64, dies: bool) {
    let home = with_a_clock_to_set().with("AGENTPMT_PROXY_UPSTREAM__SETTLE_TIME", settle_time);
    let gate = Arc::new(Semaphore::new(0));
    let sandbox = Sandbox::new(Settings::default());
    let router = late(sandbox.router(), StatusCode::BAD_GATEWAY, gate.clone());
    let upstream = format!("http://{}", serve(router).await);
    let start = || home.serve(&["serve", "--upstream", &upstream]);
    let mut server = start();
    let client = common::client();
    let send = |address: SocketAddr, verb: &str| {
        let url = format!("http://{address}/api/external/jobs/{GENERAL_JOB}/{verb}");
        client.post(url).header("idempotency-key", verb).body(PROOF).send()
    };
    assert!(send(server.address, "reserve").await.unwrap().status().is_success());
    let looked = async |times: u64| {
        let before = sandbox.counts().requests;
        while sandbox.counts().requests < before + times {
            yield_now().await;
        }
    };
    let answer = if dies {
        tokio::select! {
            _ = send(server.address, "complete") => panic!("it is not known yet"),
            () = looked(2) => {}
        }
        server.kill();
        set_ahead(&home, seconds);
        server = start();
        let open = async {
            looked(3).await;
            gate.add_permits(9);
        };
        join(send(server.address, "complete"), open).await.0
    } else {
        let open = async {
            looked(2).await;
            set_ahead(&home, seconds);
            looked(2).await;
            gate.add_permits(9);
        };
        join(send(server.address, "complete"), open).await.0
    };
    assert!(is_of_job_status(&answer.unwrap()), "{settle_time} {dies}");
    assert_eq!(sandbox.submissions(GENERAL_JOB), 1, "{settle_time} {dies}");
    server.kill();
    set_ahead(&home, 48 * 3600);
    let again = send(start().address, "complete").await.unwrap();
    assert!(good(again).await.1, "{settle_time} {dies}");
}
