//! How often a client may call and how many jobs it may hold, counted exactly: over all requests, over
//! all proxies on one store, and over restarts.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agentpmt_proxy::{
    json::Object,
    policy::Client,
    sandbox::{Sandbox, Settings},
};
use axum::{
    extract::Request,
    middleware::{Next, from_fn},
};
use futures_util::{
    FutureExt, StreamExt,
    future::{join, join_all},
    stream::FuturesUnordered,
};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use reqwest::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    agents::{Agent, denials, may, records},
    common::{self, GENERAL_JOB, TestProxy, WORKFLOW_JOB, problem, refusing, serve, serve_sandbox},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// The general jobs of the sandbox.
const JOBS: [&str; 8] = [
    GENERAL_JOB,
    "68f0a1c27b3e4d5f60718203",
    "68f0a1c27b3e4d5f60718204",
    "68f0a1c27b3e4d5f60718206",
    "68f0a1c27b3e4d5f60718207",
    "68f0a1c27b3e4d5f60718209",
    "68f0a1c27b3e4d5f6071820a",
    "68f0a1c27b3e4d5f6071820c",
];

fn limited(rate: &str) -> Client {
    Client { rate: Some(rate.parse().unwrap()), ..may("limited", "all") }
}

fn holding(max: u32) -> Client {
    Client { max_reservations: Some(max), ..may("holding", "jobs") }
}

/// A proxy with a sandbox that strikes with its faults, and its address.
async fn proxy() -> (TestProxy, SocketAddr) {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
        options.upstream.change_timeout = Duration::from_secs(3);
    })
    .await;
    (proxy, upstream)
}

/// One more proxy on the same store.
async fn beside(proxy: &TestProxy, upstream: SocketAddr) -> TestProxy {
    let folder = proxy.folder();
    let choose = |options: &mut common::Options| {
        options.folder = folder;
        options.upstream.change_timeout = Duration::from_secs(1);
    };
    TestProxy::in_front_of(proxy.sandbox.clone(), upstream, choose).await
}

fn count(answers: &[Response], status: StatusCode) -> usize {
    answers.iter().filter(|answer| answer.status() == status).count()
}

/// The seconds that an answer with 429 asks to wait, and its code.
async fn wait_of(response: Response) -> (u64, String) {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let problem = problem(response).await;
    assert_eq!(problem["retry"], "safe");
    (seconds, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_burst_of_changes_over_two_proxies_as_many_pass_as_the_rate_has_also_after_a_restart()
{
    let (one, upstream) = proxy().await;
    let other = beside(&one, upstream).await;
    // The next would pass in twelve minutes.
    let agent = Agent::add(&one, &limited("5/h"));
    let there = agent.at(&other);
    let calls = (0..32).map(|n| if n % 2 == 0 { &agent } else { &there });
    let answers = join_all(calls.map(|agent| agent.post("/jobs/unknown/reserve", ""))).await;
    let passed = StatusCode::NOT_FOUND;
    assert_eq!((count(&answers, passed), count(&answers, StatusCode::TOO_MANY_REQUESTS)), (5, 27));
    for answer in answers.into_iter().filter(|answer| answer.status() != passed) {
        let (seconds, code) = wait_of(answer).await;
        assert!(code == "rate_exceeded" && (1..=721).contains(&seconds), "{code} {seconds}");
    }
    other.proxy.flush().await;
    assert_eq!(records(&one, "signed").await.len(), 5);
    let denied = denials(&one, ["client", "action", "reason"]).await;
    assert_eq!(denied, vec![["limited", "job_reserve", "rate_exceeded"]; 27]);
    let counts = one.sandbox.counts();
    assert_eq!(counts.requests - counts.sessions, 5);
    // Each proxy counts a call that changes nothing by what it knows of the other, which is that by now.
    for agent in [&agent, &there] {
        assert_eq!(wait_of(agent.post("/jobs/list", "").await).await.1, "rate_exceeded");
    }

    one.proxy.drained().await;
    other.proxy.drained().await;
    drop(other);
    let restarted = beside(&one, upstream).await;
    let refused = problem(agent.at(&restarted).post("/jobs/list", "").await).await;
    assert_eq!(refused["code"], "rate_exceeded");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.starts_with("client limited may call 5/h; nothing was signed; call again in "));
}

#[tokio::test]
async fn after_the_time_that_it_is_told_a_client_may_call_again() {
    let (proxy, _) = proxy().await;
    let agent = Agent::add(&proxy, &limited("2/s"));
    let unlimited = Agent::add(&proxy, &may("unlimited", "read"));
    let answers = join_all((0..32).map(|_| agent.post("/jobs/list", ""))).await;
    let refused = answers.into_iter().find(|answer| answer.status() != StatusCode::OK).unwrap();
    unlimited.ok("/jobs/list", "").await;
    let (seconds, code) = wait_of(refused).await;
    assert_eq!((seconds, &*code), (1, "rate_exceeded"));
    sleep(Duration::from_secs(seconds)).await;
    agent.ok("/jobs/list", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_stretch_of_time_no_more_pass_than_the_rate_allows() {
    let (proxy, _) = proxy().await;
    let agent = Agent::add(&proxy, &limited("10/s"));
    let begun = Instant::now();
    let mut passed = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        let answers = join_all((0..8).map(|_| agent.post("/jobs/list", ""))).await;
        passed += count(&answers, StatusCode::OK);
        let allowed = 10.0 + 10.0 * begun.elapsed().as_secs_f64();
        assert!(passed as f64 <= allowed, "{passed} of {allowed}");
    }
    assert!(passed >= 10, "{passed}");
}

#[tokio::test]
async fn a_call_that_is_not_allowed_does_not_use_up_the_rate() {
    let (proxy, _) = proxy().await;
    let agent = Agent::add(&proxy, &Client { allow: "read".parse().unwrap(), ..limited("1/h") });
    assert_eq!(agent.reserve(GENERAL_JOB).await.status(), StatusCode::FORBIDDEN);
    agent.ok("/jobs/list", "").await;
    assert_eq!(agent.refused("/jobs/list", "").await.1, "rate_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_reserves_at_once_over_two_proxies_as_many_pass_as_the_client_may_hold() {
    let (one, upstream) = proxy().await;
    let other = beside(&one, upstream).await;
    let agent = Agent::add(&one, &holding(3));
    let there = agent.at(&other);
    let reserves = JOBS.iter().enumerate().map(|(n, job)| {
        let agent = if n % 2 == 0 { &agent } else { &there };
        agent.reserve(job)
    });
    let answers = join_all(reserves).await;
    assert_eq!(
        (count(&answers, StatusCode::OK), count(&answers, StatusCode::TOO_MANY_REQUESTS)),
        (3, 5)
    );
    for answer in answers.into_iter().filter(|answer| answer.status() != StatusCode::OK) {
        let (seconds, code) = wait_of(answer).await;
        assert!(
            code == "too_many_reservations" && (1..=1800).contains(&seconds),
            "{code} {seconds}"
        );
    }
    other.proxy.flush().await;
    let denied = denials(&one, ["action", "reason"]).await;
    assert_eq!(denied, vec![["job_reserve", "too_many_reservations"]; 5]);
    assert_eq!(records(&one, "signed").await.len(), 3);

    one.proxy.drained().await;
    let restarted = beside(&one, upstream).await;
    let agent = agent.at(&restarted);
    let held = agent.held().await;
    assert_eq!(held.len(), 3);
    let free = JOBS.iter().find(|job| !held.iter().any(|held| held == *job)).unwrap();
    assert_eq!(agent.reserve(free).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(agent.complete(&held[0], "k").await.status(), StatusCode::OK);
    assert_eq!(agent.reserve(free).await.status(), StatusCode::OK, "a place is free again");
}

#[tokio::test]
async fn a_reserve_that_fails_gives_its_place_back() {
    let (proxy, upstream) = proxy().await;
    // Another wallet has taken a job.
    let taken =
        TestProxy::in_front_of(proxy.sandbox.clone(), upstream, |o| o.key = "43".repeat(32));
    taken.await.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let (_port, nobody) = refusing();
    let down = beside(&proxy, nobody).await;
    let agent = Agent::add(&proxy, &holding(1));
    for _ in 0..2 {
        assert_eq!(agent.reserve("nowhere").await.status(), StatusCode::NOT_FOUND);
        assert_eq!(agent.reserve(GENERAL_JOB).await.status(), StatusCode::CONFLICT);
        assert_eq!(agent.at(&down).reserve(JOBS[2]).await.status(), StatusCode::BAD_GATEWAY);
    }
    agent.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    assert_eq!(agent.refused(&format!("/jobs/{}/reserve", JOBS[2]), "").await.0, 429);
}

#[tokio::test]
async fn a_reserve_with_an_unknown_outcome_keeps_its_place_and_its_job() {
    for (cut, reserved) in [("cut_after", true), ("cut_before", false)] {
        let (proxy, _) = proxy().await;
        let agent = Agent::add(&proxy, &holding(1));
        let other = Agent::add(&proxy, &may("other", "jobs"));
        proxy.sandbox.inject(format!("{cut}:job_reserve:1").parse().unwrap());
        proxy.sandbox.inject("status_500_before:job_status".parse().unwrap());
        let lost = problem(agent.reserve(GENERAL_JOB).await).await;
        assert_eq!((&lost["code"], &lost["processed"]), (&"outcome_unknown".into(), &().into()));
        proxy.sandbox.clear_faults();

        let (seconds, code) = wait_of(agent.reserve(WORKFLOW_JOB).await).await;
        assert!(code == "too_many_reservations" && seconds > 1700, "{code} {seconds}");
        let refused = other.reserve(GENERAL_JOB).await;
        assert_eq!(problem(refused).await["code"], "held_by_another");
        // Who may hold the job may find out.
        agent.ok(&format!("/jobs/{GENERAL_JOB}/status"), "").await;
        let again = agent.reserve(GENERAL_JOB).await.status();
        assert_eq!(again, if reserved { StatusCode::CONFLICT } else { StatusCode::OK }, "{cut}");
    }
}

#[tokio::test]
async fn the_same_job_is_counted_once() {
    let (proxy, _) = proxy().await;
    let agent = Agent::add(&proxy, &holding(1));
    agent.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    assert_eq!(agent.reserve(GENERAL_JOB).await.status(), StatusCode::CONFLICT, "the upstream's");
    assert_eq!(agent.held().await, [GENERAL_JOB]);
}

/// What is told a client that sends the head of a call whose body does not come.
async fn told_without_a_body(agent: &Agent, proxy: &TestProxy, path: &str) -> String {
    let mut stream = begun(agent, proxy, path).await;
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// A connection over which a client has sent the head of a call.
async fn begun(agent: &Agent, proxy: &TestProxy, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let (host, token) = (proxy.address, agent.token.expose());
    let head = format!(
        "POST /api/external{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         content-length: 20\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn right_and_rate_are_asked_for_before_the_body() {
    let (proxy, _) = proxy().await;
    let reader = Agent::add(&proxy, &Client { allow: "read".parse().unwrap(), ..limited("1/h") });
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    let answer = told_without_a_body(&reader, &proxy, &reserve).await;
    assert!(answer.contains("x-agentpmt-proxy-error: not_allowed\r\n"), "{answer}");
    reader.ok("/jobs/list", "").await;
    let answer = told_without_a_body(&reader, &proxy, "/jobs/list").await;
    assert!(answer.contains("x-agentpmt-proxy-error: rate_exceeded\r\n"), "{answer}");
    let answer = told_without_a_body(&reader, &proxy, "/auth/session").await;
    assert!(answer.contains("x-agentpmt-proxy-error: rate_exceeded\r\n"), "{answer}");
    let denied = denials(&proxy, ["client", "action", "product", "reason"]).await;
    let expected = [
        ["limited", "job_reserve", GENERAL_JOB, "not_allowed"],
        ["limited", "job_list", "-", "rate_exceeded"],
    ];
    assert_eq!(denied, expected);
}

#[tokio::test]
async fn a_session_counts_as_a_call_does() {
    let (proxy, _) = proxy().await;
    let agent = Agent::add(&proxy, &limited("1/h"));
    agent.ok("/auth/session", "").await;
    assert_eq!(agent.post("/jobs/list", "").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(agent.post("/auth/session", "").await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_client_whose_bodies_never_come_leaves_places_for_others() {
    for path in ["/jobs/list", "/auth/session"] {
        leaves_places_for_others(path).await;
    }
}

async fn leaves_places_for_others(path: &str) {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.in_flight = 8).await;
    let flood = Agent::add(&proxy, &may("flood", "all"));
    let other = Agent::add(&proxy, &may("other", "all"));
    let mut begun = Vec::new();
    for _ in 0..8 {
        begun.push(self::begun(&flood, &proxy, path).await);
    }
    // Whichever come last are told that there is no place.
    let status = async |mut stream: TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        (head[9..].to_vec(), stream)
    };
    let mut told: FuturesUnordered<_> = begun.into_iter().map(status).collect();
    for _ in 0..2 {
        let (status, _) = timeout(LONG, told.next()).await.unwrap().unwrap();
        assert_eq!(status, b"503");
    }
    other.ok("/jobs/list", "").await;
    assert!(told.next().now_or_never().is_none(), "the others are waited for");
}

#[tokio::test]
async fn one_client_does_not_keep_another_from_the_upstream() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let sandbox = Sandbox::new(Settings::default());
    let hold = {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        from_fn(move |request: Request, next: Next| {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            async move {
                if request.uri().path().ends_with("/status") {
                    arrived.add_permits(1);
                    drop(gate.acquire().await);
                }
                next.run(request).await
            }
        })
    };
    let upstream = serve(sandbox.router().layer(hold)).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.upstream.max_calls = 4).await;
    let flood = Agent::add(&proxy, &may("flood", "all"));
    let other = Agent::add(&proxy, &may("other", "all"));
    let path = format!("/jobs/{GENERAL_JOB}/status");
    let calls = join_all((0..16).map(|_| flood.post(&path, "")));
    let between = async {
        arrived.acquire_many(3).await.unwrap().forget();
        for _ in 0..3 {
            other.ok("/jobs/list", "").await;
        }
        assert_eq!(arrived.available_permits(), 0, "a quarter is left");
        gate.add_permits(1);
    };
    let (answers, ()) = timeout(LONG, join(calls, between)).await.unwrap();
    assert_eq!(count(&answers, StatusCode::OK), 16);
}

#[tokio::test]
async fn a_flood_of_refusals_is_on_record_as_a_count() {
    let (proxy, _) = proxy().await;
    let ended = Timestamp::now() - SignedDuration::from_secs(1);
    let flood = Agent::add(&proxy, &Client { expires: Some(ended), ..may("flood", "all") });
    for _ in 0..5 {
        let answers = join_all((0..40).map(|_| flood.post("/jobs/list", ""))).await;
        assert_eq!(count(&answers, StatusCode::FORBIDDEN), 40);
    }
    let denied = records(&proxy, "denied").await;
    let times =
        |record: &Object| record.field("times").map_or(1, |times| times.as_str().parse().unwrap());
    assert_eq!((denied.len(), denied.iter().map(times).sum::<u64>()), (61, 200));
    let last = denied.last().unwrap();
    assert_eq!(
        ["client", "reason"].map(|name| last.text(name).unwrap()),
        ["flood", "access_ended"]
    );
}
