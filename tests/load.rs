//! More than the proxy takes, and its end: refused at once, and nothing left half done.

#![allow(clippy::unwrap_used)]

mod binary;
mod common;

use std::{fs, time::Duration};

use agentpmt_proxy::sandbox::{Fault, Sandbox, Settings};
use binary::{Home, PASSWORD, Server};
use common::{GENERAL_JOB, TestProxy, client, problem, serve_sandbox};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How many connections are opened, and how many calls are sent over some of them.
const CONNECTIONS: usize = 8_000;
const CALLS: usize = 2_000;

/// The default of `max_in_flight`.
const PLACES: usize = 1024;

/// The most memory that the process may come to have, in MiB.
const MOST_MEMORY: u64 = 150;

#[tokio::test]
async fn beyond_its_places_a_call_is_refused_at_once_and_nothing_is_signed() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.max_in_flight = 1).await;
    proxy.ok("/jobs/list", "").await;
    proxy.sandbox.inject("hang_before:job_list".parse().unwrap());
    let mut held = Box::pin(proxy.post("/jobs/list", ""));
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    // The first call has the place once it has arrived upstream.
    let arrived = proxy.sandbox.counts().requests;
    while proxy.sandbox.counts().requests == arrived {
        tokio::select! {
            answer = &mut held => panic!("{answer:?}"),
            () = tokio::task::yield_now() => {}
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

fn served(upstream: &str) -> Server {
    let home = Home::with_wallet().with_password(PASSWORD);
    let home = home.with("AGENTPMT_PROXY_LOG__LEVEL", "error");
    let server = home.serve(&["serve", "--upstream", upstream]);
    // The folder has to outlive the process, which is killed when the server is dropped.
    std::mem::forget(home);
    server
}

/// The most memory that a process has had, in MiB.
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_and_calls_are_served_or_refused_in_little_memory() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let server = served(&format!("http://{upstream}"));
    let list = "POST /api/external/jobs/list HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    // A session first, so that all the calls arrive at the fault.
    let url = format!("http://{}/api/external/jobs/list", server.address);
    assert_eq!(client().post(&url).send().await.unwrap().status(), StatusCode::OK);
    let hang = Fault { delay: Duration::from_secs(60), .."slow_before:job_list".parse().unwrap() };
    sandbox.inject(hang);

    let mut streams = Vec::new();
    while streams.len() < CONNECTIONS {
        match TcpStream::connect(server.address).await {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                println!("{} connections are all that this machine gives: {error}", streams.len());
                break;
            }
        }
    }
    assert!(streams.len() > CALLS);
    let calls = &mut streams[..CALLS];
    join_all(calls.iter_mut().map(async |stream| stream.write_all(list.as_bytes()).await.unwrap()))
        .await;
    // Those that found no place are answered at once; the others are not answered while it hangs.
    let mut refused = 0;
    let mut answers: futures_util::stream::FuturesUnordered<_> =
        calls.iter_mut().map(first_line).collect();
    while refused < CALLS - PLACES {
        let line = futures_util::StreamExt::next(&mut answers).await.unwrap();
        assert!(line.starts_with("HTTP/1.1 503"), "{line}");
        refused += 1;
    }
    drop(answers);
    let health = format!("http://{}/healthz", server.address);
    assert_eq!(client().get(health).send().await.unwrap().status(), StatusCode::OK);
    let most = memory(server.id());
    println!("{} connections, {CALLS} calls, {refused} refused: {most} MiB", streams.len());
    assert!(most < MOST_MEMORY, "{most} MiB");
}

async fn first_line(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 64];
    let count = stream.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}
