//! `Idempotency-Key`: a change is made once, and answered the same every time.

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

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_call_is_never_made_twice() {
    for (cut, processed) in [("cut_after", true), ("cut_before", false)] {
        let proxy = reserved().await;
        proxy.sandbox.inject(format!("{cut}:job_complete:1").parse().unwrap());
        proxy.sandbox.inject("status_500_before:job_status".parse().unwrap());
        let lost = problem(complete(&proxy, "k").await).await;
        assert_eq!(lost["code"], "outcome_unknown", "{cut}");
        assert!(lost["processed"].is_null());
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), u64::from(processed));

        proxy.sandbox.clear_faults();
        for _ in 0..2 {
            let again = complete(&proxy, "k").await;
            assert_eq!(is_of_job_status(&again), processed);
            good(again).await;
            assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1, "{cut}");
        }
    }
}

#[tokio::test]
async fn a_completion_that_is_known_to_be_done_is_a_success_with_what_was_seen() {
    let first = reserved().await;
    first.sandbox.inject("cut_after:job_complete:1".parse().unwrap());
    let response = complete(&first, "k").await;
    assert!(is_of_job_status(&response));
    let (answer, replayed) = good(response).await;
    assert!(answer.contains(r#""submission_id""#) && !replayed, "{answer}");
    let before = first.sandbox.counts().requests;
    let again = complete(&first, "k").await;
    assert!(is_of_job_status(&again));
    assert_eq!(good(again).await, (answer.clone(), true));
    assert_eq!(first.sandbox.counts().requests, before, "nothing was sent");
    let second = restarted(first).await;
    assert_eq!(good(complete(&second, "k").await).await, (answer, true));
    assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1);
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

#[tokio::test]
async fn while_the_upstream_may_still_be_at_work_a_change_is_not_made_again() {
    let (proxy, gate) = in_front_of_late(StatusCode::BAD_GATEWAY, |options| {
        options.upstream.settle_time = Duration::from_secs(20);
    })
    .await;
    let before = proxy.sandbox.counts().requests;
    let open_after_some_looks = async {
        while proxy.sandbox.counts().requests < before + 4 {
            yield_now().await;
        }
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 0);
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(complete(&proxy, "k"), open_after_some_looks);
    assert!(is_of_job_status(&answer));
    good(answer).await;
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

/// Brings every completion twice, and answers with what came of the second.
fn twice(router: Router) -> Router {
    router.layer(from_fn(|request: Request, next: Next| async {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let copy = || Request::from_parts(head.clone(), Body::from(body.clone()));
        if head.uri.path().ends_with("/complete") {
            next.clone().run(copy()).await;
        }
        next.run(copy()).await
    }))
}

#[tokio::test]
async fn a_completion_that_comes_in_twice_on_its_way_is_not_made_once_more() {
    let proxy = TestProxy::start_with(Settings::default(), twice).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let answer = complete(&proxy, "k").await;
    assert!(is_of_job_status(&answer));
    good(answer).await;
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

/// Another proxy on the store of the first, with the same sandbox.
async fn beside(first: &TestProxy, upstream: SocketAddr, change_timeout: u64) -> TestProxy {
    TestProxy::in_front_of(first.sandbox.clone(), upstream, |options| {
        options.folder = first.folder();
        options.upstream.change_timeout = Duration::from_secs(change_timeout);
    })
    .await
}

#[tokio::test]
async fn a_second_process_on_the_same_store_waits_for_the_first_and_never_calls_it_safe() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(held_up(sandbox.router(), arrived.clone(), gate.clone())).await;
    let first = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    first.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let (patient, impatient) =
        (beside(&first, upstream, 30).await, beside(&first, upstream, 1).await);
    let others = async {
        arrived.acquire().await.unwrap().forget();
        let told = problem(complete(&impatient, "k").await).await;
        assert_eq!(told["code"], "idempotency_key_in_use");
        assert_eq!(told["retry"], "check_first", "the first may submit it yet");
        let release = async { gate.add_permits(1) };
        tokio::join!(complete(&patient, "k"), release).0
    };
    let (first_answer, second_answer) = tokio::join!(complete(&first, "k"), others);
    let (given, _) = good(first_answer).await;
    assert_eq!(good(second_answer).await, (given, true));
    assert_eq!(first.sandbox.submissions(GENERAL_JOB), 1);
}

/// Has a proxy send a completion, and die as soon as the upstream has it. It thinks
/// that no upstream works on after it has sent.
async fn dies_after_sending(
    sandbox: Sandbox,
    upstream: SocketAddr,
    arrived: &Semaphore,
    key: Option<&'static str>,
) -> Folder {
    let runtime = Runtime::new().unwrap();
    let (told, folder) = oneshot::channel();
    runtime.spawn(async move {
        let hasty = |options: &mut Options| options.upstream.settle_time = Duration::ZERO;
        let proxy = TestProxy::in_front_of(sandbox, upstream, hasty).await;
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        told.send(proxy.folder()).unwrap();
        match key {
            Some(key) => complete(&proxy, key).await,
            None => complete_unkeyed(&proxy, PROOF).await,
        }
    });
    let folder = folder.await.unwrap();
    arrived.acquire().await.unwrap().forget();
    spawn_blocking(move || drop(runtime)).await.unwrap();
    folder
}

type Folder = Arc<tempfile::TempDir>;

/// A proxy that takes over from one that died after it had sent a completion, which the upstream holds
/// up.
struct TakenOver {
    proxy: TestProxy,
    arrived: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

impl TakenOver {
    async fn after_sending(key: Option<&'static str>) -> Self {
        let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let sandbox = Sandbox::new(Settings::default());
        let upstream = serve(held_up(sandbox.router(), arrived.clone(), gate.clone())).await;
        let folder = dies_after_sending(sandbox.clone(), upstream, &arrived, key).await;
        let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
            options.folder = folder;
            options.upstream.settle_time = Duration::from_secs(20);
        });
        Self { proxy: proxy.await, arrived, gate }
    }

    /// Lets the upstream go on once the proxy has looked some times, and has not sent it again.
    async fn open_after_some_looks(&self) {
        let before = self.proxy.sandbox.counts().requests;
        while self.proxy.sandbox.counts().requests < before + 4 {
            assert_eq!(self.arrived.available_permits(), 0, "it is not sent again");
            yield_now().await;
        }
        self.gate.add_permits(1);
    }
}

#[tokio::test]
async fn what_a_dead_process_has_sent_may_be_processed_long_after_it_was_sent() {
    let taken = TakenOver::after_sending(Some("k")).await;
    let second = &taken.proxy;
    let (answer, ()) = tokio::join!(complete(second, "k"), taken.open_after_some_looks());
    assert!(is_of_job_status(&answer));
    good(answer).await;
    assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn how_long_a_silent_upstream_may_be_at_work_outlives_the_process() {
    let (proxy, gate) = in_front_of_late(StatusCode::GATEWAY_TIMEOUT, |options| {
        options.upstream.settle_time = Duration::ZERO;
        options.upstream.change_timeout = Duration::from_secs(30);
    })
    .await;
    let database = Connection::open(proxy.folder().path().join("proxy.db")).unwrap();
    let kept = || {
        let row =
            database.query_row("SELECT max(settles - claimed) FROM answers", [], |row| row.get(0));
        row.unwrap_or(Some(0)).unwrap_or(0)
    };
    let open_when_it_is_on_record = async {
        while kept() < 30_000 {
            yield_now().await;
        }
        gate.add_permits(1);
    };
    let both = join(complete(&proxy, "k"), open_when_it_is_on_record);
    let (answer, ()) = timeout(LONG, both).await.expect("it is on record while it is looked for");
    assert!(is_of_job_status(&answer));
}

#[tokio::test]
async fn a_completion_without_a_key_is_its_own() {
    let first = TestProxy::start().await;
    let reserved = first.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let id = reserved["job"]["reservation_id"].as_str().unwrap();
    let (answer, replayed) = good(complete_unkeyed(&first, PROOF).await).await;
    assert!(!replayed);
    let named = format!(r#"{{"reservation_id":"{id}","proof_text":"done"}}"#);
    let second = restarted(first).await;
    let before = second.sandbox.counts().requests;
    for body in [PROOF, named.as_str()] {
        assert_eq!(good(complete_unkeyed(&second, body).await).await, (answer.clone(), true));
    }
    assert_eq!(good(complete(&second, "any").await).await, (answer, true));
    let other = r#"{"proof_text":"other"}"#;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    for refused in
        [complete_unkeyed(&second, other).await, send(&second, &path, "another", other).await]
    {
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        assert_eq!(problem(refused).await["code"], "already_submitted");
    }
    assert_eq!(second.sandbox.counts().requests, before, "nothing was sent");
}

#[tokio::test]
async fn a_completion_without_a_key_that_a_dead_process_has_sent_is_not_sent_again() {
    for body in [PROOF, r#"{"proof_text":"other"}"#] {
        let taken = TakenOver::after_sending(None).await;
        let second = &taken.proxy;
        let answered = join(complete_unkeyed(second, body), taken.open_after_some_looks());
        let (answer, ()) = answered.await;
        if body != PROOF {
            assert_eq!(problem(answer).await["code"], "already_submitted");
        }
        good(complete_unkeyed(second, PROOF).await).await;
        assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1, "{body}");
    }
}

#[tokio::test]
async fn a_completion_that_was_surely_not_made_gives_way_to_another() {
    let proxy = reserved().await;
    proxy.sandbox.inject("cut_before:job_complete:1".parse().unwrap());
    proxy.sandbox.inject("status_500_before:job_status".parse().unwrap());
    let lost = problem(complete_unkeyed(&proxy, PROOF).await).await;
    assert_eq!((&lost["code"], &lost["processed"]), (&"outcome_unknown".into(), &().into()));
    proxy.sandbox.clear_faults();
    let other = r#"{"proof_text":"other"}"#;
    assert!(!good(complete_unkeyed(&proxy, other).await).await.1);
    assert!(good(complete_unkeyed(&proxy, other).await).await.1);
    assert_eq!(problem(complete_unkeyed(&proxy, PROOF).await).await["code"], "already_submitted");
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_completion_that_was_refused_may_be_sent_again_as_it_was_or_corrected() {
    let proxy = reserved().await;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    for submissions in 1..4 {
        let wrong = r#"{"proof_text":5}"#;
        let refused = match submissions {
            1 => send(&proxy, &path, "k", wrong).await,
            _ => complete_unkeyed(&proxy, wrong).await,
        };
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.headers().get("x-agentpmt-proxy-error").is_none());
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), submissions);
    }
    assert!(!good(complete(&proxy, "k").await).await.1);
}

#[tokio::test]
async fn a_job_that_is_reserved_again_may_be_completed_again() {
    // A job that was rejected is open again.
    let arrived = Arc::new(Semaphore::new(0));
    let counted = arrived.clone();
    let answer = move |uri: axum::http::Uri| async move {
        let path = uri.path();
        if path.ends_with("/auth/session") {
            return r#"{"session_nonce":"n"}"#.to_owned();
        }
        counted.add_permits(usize::from(path.ends_with("/complete")));
        format!(r#"{{"job":{{"reservation_id":"r-{}"}}}}"#, counted.available_permits())
    };
    let upstream = serve(Router::new().fallback(answer)).await;
    let sandbox = Sandbox::new(Settings::default());
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    for completions in 1..3 {
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        for replayed in [false, true] {
            assert_eq!(good(complete_unkeyed(&proxy, PROOF).await).await.1, replayed);
        }
        assert_eq!(arrived.available_permits(), completions);
    }
}

#[tokio::test]
async fn an_update_in_doubt_is_made_again_under_its_key_and_another_edit_is_not() {
    let proxy = TestProxy::start().await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    proxy.ok(&format!("{job}/reserve"), "").await;
    let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let path = format!("{job}/workflow/{}", created["workflow_id"].as_str().unwrap());
    let update = async || {
        let url = proxy.url(&format!("/api/external{path}"));
        let request = proxy.client.put(url).header("idempotency-key", "update");
        request.body(WORKFLOW).send().await.unwrap()
    };
    let publish = async || send(&proxy, &format!("{path}/publish"), "publish", "").await;
    proxy.sandbox.inject("status_500_after:job_workflow_update:1".parse().unwrap());
    proxy.sandbox.inject("cut_after:job_workflow_publish:1".parse().unwrap());
    assert_eq!(problem(update().await).await["code"], "outcome_unknown");
    assert!(!good(update().await).await.1);
    assert!(good(update().await).await.1);
    for _ in 0..2 {
        let lost = problem(publish().await).await;
        assert_eq!(lost["code"], "outcome_unknown");
        let advice = lost["detail"].as_str().unwrap();
        assert!(advice.contains("a new Idempotency-Key") && !advice.contains("status"), "{advice}");
    }
    good(send(&proxy, &format!("{path}/publish"), "again", "").await).await;
}

/// An upstream that rejects every proof at once, and shows that until the next. It names no reservation,
/// and of each job the answer to the second try to complete it is a 500, before anything was done.
fn rejecting(proofs: Arc<Mutex<Vec<String>>>) -> Router {
    let (tries, reserved) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    Router::new().fallback(move |request: Request| async move {
        let path = request.uri().path().to_owned();
        let answer = match path.rsplit('/').next().unwrap() {
            "session" => serde_json::json!({"session_nonce": "n"}),
            "reserve" => {
                reserved.store(true, SeqCst);
                serde_json::json!({"job": {"job_instructions": "do it"}})
            }
            "complete" if tries.fetch_add(1, SeqCst) == 1 => {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            "complete" => {
                let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                proofs.lock().unwrap().push(body["proof_text"].as_str().unwrap().to_owned());
                reserved.store(false, SeqCst);
                serde_json::json!({"submission": {"status": "submitted"}})
            }
            _ => {
                let is_reserved = reserved.load(SeqCst);
                let submission = (!proofs.lock().unwrap().is_empty())
                    .then_some(serde_json::json!({"status": "rejected"}));
                serde_json::json!({"submission": submission,
                    "has_active_reservation": is_reserved, "can_submit": is_reserved})
            }
        };
        answer.to_string().into_response()
    })
}

#[tokio::test]
async fn what_was_rejected_is_not_taken_for_what_is_completed_after_it() {
    let proofs = Arc::new(Mutex::new(Vec::new()));
    let upstream = serve(rejecting(proofs.clone())).await;
    let proxy = TestProxy::in_front_of(Sandbox::new(Settings::default()), upstream, |_| {}).await;
    let all = ["done", "done", "better"];
    for (before, proof) in all.iter().enumerate() {
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        let body = format!(r#"{{"proof_text":"{proof}"}}"#);
        for replayed in [false, true] {
            assert_eq!(good(complete_unkeyed(&proxy, &body).await).await.1, replayed);
            assert_eq!(*proofs.lock().unwrap(), all[..=before]);
        }
    }
}

/// Notes when a completion arrives, and processes it once the gate is open, even if nobody listens
/// any more.
fn held_up(router: Router, arrived: Arc<Semaphore>, gate: Arc<Semaphore>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        async move {
            if !request.uri().path().ends_with("/complete") {
                return next.run(request).await;
            }
            let (head, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            arrived.add_permits(1);
            let processed = tokio::spawn(async move {
                gate.acquire().await.unwrap().forget();
                next.run(Request::from_parts(head, Body::from(body))).await
            });
            processed.await.unwrap()
        }
    }))
}

#[tokio::test]
async fn who_asks_too_early_is_told_when_to_ask_again() {
    let (proxy, _shut) = in_front_of_late(StatusCode::BAD_GATEWAY, |options| {
        options.upstream.settle_time = Duration::from_secs(3600);
        options.upstream.change_timeout = Duration::from_secs(1);
    })
    .await;
    for _ in 0..2 {
        let response = complete(&proxy, "k").await;
        let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        let problem = problem(response).await;
        assert_eq!(
            (&problem["code"], &problem["processed"]),
            (&"outcome_unknown".into(), &().into())
        );
    }
}

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
