//! Clients whose access ends in the middle of a call.

use std::{sync::Arc, time::Duration};

use agentpmt_proxy::{
    action::Action,
    call::Call,
    proxy::{Admission, CallError, Evidence},
    sandbox::{Sandbox, Settings},
    store::ClientRecord,
    trace::Trace,
    types::RequestId,
};
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use futures_util::future::{join, join3};
use http::StatusCode;
use jiff::Timestamp;
use tokio::{sync::Semaphore, task::yield_now, time::timeout};

use crate::{
    agents::{Agent, PROOF, clients, denials, may, records},
    common::{GENERAL_JOB, TestProxy, problem, serve},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// Answers the first reserve, once there is a permit, with the wish to send it again at once.
fn put_off(router: Router, arrived: Arc<Semaphore>, gate: Arc<Semaphore>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        async move {
            let path = request.uri().path();
            let is_put_off = path.ends_with("/reserve") || path.ends_with("/status");
            if is_put_off && !gate.is_closed() {
                arrived.add_permits(1);
                gate.acquire().await.unwrap().forget();
                gate.close();
                return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "{}")
                    .into_response();
            }
            next.run(request).await
        }
    }))
}

#[tokio::test]
async fn who_loses_access_during_a_change_has_no_more_of_it_signed() {
    let proxy = loses_access_during("reserve", "job_reserve").await;
    let other = Agent::add(&proxy, &may("other", "jobs"));
    assert!(other.reserve(GENERAL_JOB).await.status().is_success(), "nobody holds it");
}

#[tokio::test]
async fn who_loses_access_during_a_read_has_no_more_of_it_signed() {
    loses_access_during("status", "job_status").await;
}

async fn loses_access_during(word: &str, action: &str) -> TestProxy {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let fault = |router| put_off(router, arrived.clone(), gate.clone());
    let proxy = TestProxy::start_with(Settings::default(), fault).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let revoke = async {
        arrived.acquire().await.unwrap().forget();
        clients(&proxy).revoke(&agent.name, Timestamp::now()).unwrap();
        gate.add_permits(1);
    };
    let path = format!("/jobs/{GENERAL_JOB}/{word}");
    let (answer, ()) = timeout(LONG, join(agent.post(&path, ""), revoke)).await.unwrap();
    let problem = problem(answer).await;
    assert_eq!((&problem["status"], &problem["code"]), (&403.into(), &"access_ended".into()));
    assert_eq!(records(&proxy, "signed").await.len(), 1);
    let denied = denials(&proxy, ["client", "action", "product", "reason", "request_id"]).await;
    assert_eq!(denied, [["ci", action, GENERAL_JOB, "access_ended", "-"]]);
    proxy
}

#[tokio::test]
async fn who_loses_access_while_a_read_waits_to_be_made_has_none_of_it_signed() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(put_off(sandbox.router(), arrived.clone(), gate.clone())).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.upstream.max_calls = 1).await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let read = async {
        arrived.acquire().await.unwrap().forget();
        other.post("/jobs/list", "").await
    };
    let revoke = async {
        let clients = clients(&proxy);
        // Once it is noted that the client was here, its call has nothing before it but the wait.
        let is_noted =
            |row: &ClientRecord| row.client.name == other.name && row.last_used.is_some();
        while !clients.list().unwrap().iter().any(is_noted) {
            yield_now().await;
        }
        clients.revoke(&other.name, Timestamp::now()).unwrap();
        gate.add_permits(1);
    };
    let all = join3(one.reserve(GENERAL_JOB), read, revoke);
    let (held, answer, ()) = timeout(LONG, all).await.unwrap();
    assert_eq!((held.status(), answer.status()), (StatusCode::OK, StatusCode::FORBIDDEN));
    let signed = records(&proxy, "signed").await;
    assert!(signed.iter().all(|record| record.text("client").unwrap() == "one"), "{signed:?}");
    assert_eq!(denials(&proxy, ["client", "reason"]).await, [["other", "access_ended"]]);
}

#[tokio::test]
async fn who_loses_access_while_it_waits_for_its_key_is_not_told_what_came_of_it() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    assert!(agent.reserve(GENERAL_JOB).await.status().is_success());
    assert!(agent.complete(GENERAL_JOB, "k").await.status().is_success());
    // A call that was admitted before the revocation.
    let action = Action::named("job_complete").unwrap();
    let evidence = Evidence { token: Some(Ok(agent.token.clone())), ..Evidence::default() };
    let trace = Arc::new(Trace::new(RequestId::random()));
    let key = Some("k".parse().unwrap());
    let admission = Admission { action, product: None, key, trace };
    let admitted = proxy.proxy.admit(&evidence, admission).await.unwrap();
    clients(&proxy).revoke(&agent.name, Timestamp::now()).unwrap();
    let call = Call::new(action, [GENERAL_JOB], PROOF.as_bytes()).unwrap();
    let error = proxy.proxy.call(admitted, call).await.unwrap_err();
    assert!(matches!(&error, CallError::Store(error) if error.is_access_ended()), "{error}");
    assert_eq!(denials(&proxy, ["client", "reason"]).await, [["ci", "access_ended"]]);
}
