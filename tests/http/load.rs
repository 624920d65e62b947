//! More than the proxy takes: refused at once, with nothing signed, and in bounded memory.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
};
use futures_util::{StreamExt, future::join_all, stream};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::yield_now,
    time::timeout,
};

use crate::{
    binary::{Home, PASSWORD},
    common::{GENERAL_JOB, TestProxy, problem, serve, serve_sandbox},
};

const CONNECTIONS: usize = 10_000;
const CALLS: usize = 2_000;

/// How many calls the proxy takes at once, if nothing is configured.
const PLACES: usize = 1_024;

/// The most memory that the process may have had, in bytes.
const MOST_MEMORY: u64 = 150_000_000;

#[tokio::test]
async fn beyond_its_places_a_call_is_refused_at_once_and_nothing_is_signed() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.in_flight = 1).await;
    proxy.ok("/jobs/list", "").await;
    proxy.sandbox.inject("hang_before:job_list".parse().unwrap());
    let mut held = Box::pin(proxy.post("/jobs/list", ""));
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    // The first call has the place once it has arrived upstream.
    let arrived = proxy.sandbox.counts().requests;
    while proxy.sandbox.counts().requests == arrived {
        tokio::select! {
            answer = &mut held => panic!("{answer:?}"),
            () = yield_now() => {}
        }
    }
    let refused = proxy.post("/jobs/list", "").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let before = proxy.sandbox.counts().requests;
    let refused = proxy.post(&reserve, "").await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem = problem(refused).await;
    assert_eq!((&problem["code"], &problem["retry"]), (&"overloaded".into(), &"safe".into()));
    assert_eq!(proxy.sandbox.counts().requests, before);
    let health = proxy.client.get(proxy.url("/healthz")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK, "what is no call needs no place");
}

#[tokio::test]
async fn no_more_calls_are_made_at_once_than_may_be_and_the_others_follow() {
    let sandbox = Sandbox::new(Settings::default());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let upstream = serve(counted(sandbox.router(), now, most.clone())).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.upstream.max_calls = 2).await;
    proxy.ok("/jobs/list", "").await;
    let answers = join_all((0..16).map(|_| proxy.post("/jobs/list", ""))).await;
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK), "{answers:?}");
    assert_eq!(most.load(SeqCst), 2);
}

#[tokio::test]
async fn a_call_that_cannot_be_made_in_time_is_told_so_and_not_sent() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| {
        o.upstream.max_calls = 1;
        o.upstream.timeout = Duration::from_secs(2);
    })
    .await;
    proxy.ok("/jobs/list", "").await;
    proxy.sandbox.inject("hang_before:job_reserve".parse().unwrap());
    let arrived = proxy.sandbox.counts().requests;
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    let mut held = Box::pin(proxy.post(&reserve, ""));
    let refused = async {
        while proxy.sandbox.counts().requests == arrived {
            yield_now().await;
        }
        let before = proxy.sandbox.counts().requests;
        let refused = proxy.post("/jobs/list", "").await;
        (refused, proxy.sandbox.counts().requests - before)
    };
    let (refused, sent) = tokio::select! {
        answer = &mut held => panic!("{answer:?}"),
        refused = refused => refused,
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem = problem(refused).await;
    assert_eq!((&problem["code"], &problem["retry"]), (&"overloaded".into(), &"safe".into()));
    assert!(problem["detail"].as_str().unwrap().contains("upstream.max_calls"), "{problem}");
    assert_eq!(sent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_and_two_thousand_calls_cost_bounded_memory() {
    let sandbox = Sandbox::new(Settings::default());
    let gate = Arc::new(Semaphore::new(0));
    let upstream = serve(gated(sandbox.router(), gate.clone())).await;
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", &format!("http://{upstream}")]);
    let mut idle = connect(server.address, CONNECTIONS).await;
    let calling = idle.split_off(CONNECTIONS - CALLS);

    let (refused, held) = call(calling, "/api/external/jobs/list").await;
    assert_eq!((refused, held.len()), (CALLS - PLACES, PLACES));
    // Whoever is neither calling nor refused is still served.
    for connection in idle.iter_mut().step_by(500) {
        assert_eq!(ask(connection, "GET /healthz").await, 200);
    }
    gate.add_permits(PLACES);
    let answers = join_all(held.into_iter().map(async |mut call| status(&mut call).await)).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");

    let memory = peak_memory(server.id());
    println!("peak memory: {} KiB", memory / 1024);
    assert!(memory < MOST_MEMORY, "{memory} bytes");
}

/// Counts the calls that are there `now`, and the `most` that were, and lets others come meanwhile.
fn counted(router: Router, now: Arc<AtomicUsize>, most: Arc<AtomicUsize>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (now, most) = (now.clone(), most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            for _ in 0..100 {
                yield_now().await;
            }
            let response = next.run(request).await;
            now.fetch_sub(1, SeqCst);
            response
        }
    }))
}

/// Lists jobs only as far as there are permits.
fn gated(router: Router, gate: Arc<Semaphore>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let gate = gate.clone();
        async move {
            if request.uri().path().ends_with("/list") {
                gate.acquire().await.unwrap().forget();
            }
            next.run(request).await
        }
    }))
}

async fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connections = stream::iter(0..count).map(|_| TcpStream::connect(address));
    connections.buffer_unordered(64).map(Result::unwrap).collect().await
}

/// Sends a call over each connection; returns how many were refused, and the others, which wait.
async fn call(connections: Vec<TcpStream>, path: &str) -> (usize, Vec<TcpStream>) {
    let mut waiting = Vec::new();
    for mut connection in connections {
        let host = connection.peer_addr().unwrap();
        let call = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(call.as_bytes()).await.unwrap();
        waiting.push(connection);
    }
    let mut refused = 0;
    while refused < CALLS - PLACES {
        let mut held = Vec::new();
        for mut connection in waiting {
            match timeout(Duration::ZERO, connection.readable()).await {
                Ok(ready) => {
                    ready.unwrap();
                    assert_eq!(status(&mut connection).await, 503);
                    refused += 1;
                }
                Err(_) => held.push(connection),
            }
        }
        waiting = held;
        yield_now().await;
    }
    (refused, waiting)
}

async fn ask(connection: &mut TcpStream, what: &str) -> u16 {
    let request = format!("{what} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    status(connection).await
}

/// The status of the answer that comes next.
async fn status(connection: &mut TcpStream) -> u16 {
    let mut answer = [0; 1024];
    let length = connection.read(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..length]);
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The most physical memory that a process has had, in bytes.
fn peak_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
