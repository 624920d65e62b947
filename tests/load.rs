//! More calls than the proxy takes: refused at once, with nothing signed.

#![allow(clippy::unwrap_used)]

mod common;

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use common::{GENERAL_JOB, TestProxy, problem, serve_sandbox};
use http::StatusCode;

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
