//! Clients that wait for the end of a review without asking again and again.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
};
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
};
use futures_util::future::{join, join_all, join3};
use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde_json::Value;

use crate::{
    agents::{Agent, clients, may, records},
    common::{GENERAL_JOB, TestProxy, json, problem, serve_sandbox},
};

const WAITING: usize = 1_000;

/// A proxy in front of a sandbox that counts the questions after a status.
pub(crate) async fn proxy(review: Duration) -> (TestProxy, Arc<AtomicUsize>) {
    let questions = Arc::new(AtomicUsize::new(0));
    let settings = Settings { review, ..Settings::default() };
    let counted = |router| counting(router, questions.clone());
    (TestProxy::start_with(settings, counted).await, questions)
}

fn counting(router: Router, questions: Arc<AtomicUsize>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let is_status = request.uri().path().ends_with("/status");
        questions.fetch_add(usize::from(is_status), SeqCst);
        next.run(request)
    }))
}

/// A client that has submitted the proof of a job.
pub(crate) async fn submitted(proxy: &TestProxy, client: &Client) -> Agent {
    let agent = Agent::add(proxy, client);
    assert!(agent.reserve(GENERAL_JOB).await.status().is_success());
    assert!(agent.complete(GENERAL_JOB, "k").await.status().is_success());
    agent
}

async fn wait(agent: &Agent, wait: &str) -> Response {
    agent.post(&format!("/jobs/{GENERAL_JOB}/status?wait={wait}"), "").await
}

fn word(status: &Value) -> &str {
    status["submission"]["status"].as_str().unwrap()
}

#[tokio::test]
async fn a_status_with_a_wait_is_answered_when_the_review_has_an_end() {
    let (proxy, _) = proxy(Duration::from_millis(500)).await;
    let agent = submitted(&proxy, &may("ci", "jobs")).await;
    let status = format!("/jobs/{GENERAL_JOB}/status");
    let (by_query, by_header) =
        join(wait(&agent, "50s"), agent.post_with("prefer", "wait=50", &status, "")).await;
    for answer in [by_query, by_header] {
        let status = json(answer).await;
        assert_eq!(word(&status), "approved");
        assert_eq!(status["payout"]["status"], "completed");
    }
    // It has one already.
    assert_eq!(word(&json(wait(&agent, "50s").await).await), "approved");
}

#[tokio::test]
async fn a_proof_that_was_rejected_and_one_that_is_submitted_again_are_told_apart() {
    let (proxy, _) = proxy(Duration::from_millis(500)).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    for (proof, expected) in [("[reject]", "rejected"), ("done", "approved")] {
        assert!(agent.reserve(GENERAL_JOB).await.status().is_success());
        let body = format!(r#"{{"proof_text":"{proof}"}}"#);
        agent.ok(&format!("/jobs/{GENERAL_JOB}/complete"), &body).await;
        assert_eq!(word(&json(wait(&agent, "50s").await).await), expected);
    }
}

#[tokio::test]
async fn after_the_wait_the_answer_is_what_is_known() {
    let (proxy, questions) = proxy(Duration::from_secs(60)).await;
    let agent = submitted(&proxy, &may("ci", "jobs")).await;
    assert_eq!(word(&json(wait(&agent, "300ms").await).await), "submitted");
    assert_eq!(word(&json(wait(&agent, "0s").await).await), "submitted");
    let unknown = agent.post("/jobs/nope/status?wait=50s", "").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND, "there is nothing to wait for");
    assert!(questions.load(SeqCst) <= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_wait_for_a_job_share_each_question() {
    let (proxy, questions) = proxy(Duration::from_secs(4)).await;
    let agent = submitted(&proxy, &may("ci", "jobs")).await;
    let answers = join_all((0..WAITING).map(|_| wait(&agent, "50s"))).await;
    for answer in answers {
        assert_eq!(word(&json(answer).await), "approved");
    }
    // At once, after 2 to 4 seconds, and after 4 to 8 more; some more if clients come late.
    let questions = questions.load(SeqCst);
    assert!((2..=10).contains(&questions), "{questions}");
    let signed = records(&proxy, "signed").await;
    let asked = signed.iter().filter(|of| of.text("action").as_deref() == Some("job_status"));
    assert_eq!(asked.count(), questions, "each is on record");
}

#[tokio::test]
async fn a_wait_has_the_rights_and_the_limits_of_a_status() {
    let (proxy, questions) = proxy(Duration::from_secs(60)).await;
    let owner = submitted(&proxy, &may("owner", "jobs")).await;
    let other = Agent::add(&proxy, &may("other", "jobs"));
    let reader = Agent::add(&proxy, &may("reader", "job_list"));
    let path = format!("/jobs/{GENERAL_JOB}/status?wait=50s");
    assert_eq!(other.refused(&path, "").await, (409, "held_by_another".to_owned()));
    assert_eq!(reader.refused(&path, "").await, (403, "not_allowed".to_owned()));
    let slow = Client { rate: Some("1/h".parse().unwrap()), ..may("slow", "jobs") };
    let slow = Agent::add(&proxy, &Client { admin: true, ..slow });
    assert_eq!(word(&json(wait(&slow, "1ms").await).await), "submitted");
    assert_eq!(slow.refused(&path, "").await, (429, "rate_exceeded".to_owned()));
    for (query, code) in [
        ("wait=51s", "invalid_field"),
        ("wait=soon", "invalid_field"),
        ("wait=1s&wait=1s", "query_not_taken"),
        ("wait=1s&x=1", "query_not_taken"),
        ("x=1", "query_not_taken"),
    ] {
        let refused = owner.refused(&format!("/jobs/{GENERAL_JOB}/status?{query}"), "").await;
        assert_eq!(refused, (400, code.to_owned()), "{query}");
    }
    let misspelt = problem(owner.post(&path.replace("wait", "wat"), "").await).await;
    assert!(
        misspelt["detail"].as_str().unwrap().contains("but a wait, as in ?wait=20s"),
        "{misspelt}"
    );
    let list = owner.refused("/jobs/list?wait=1s", "").await;
    assert_eq!(list, (400, "query_not_taken".to_owned()));
    let stranger = proxy.post(&path, "").await;
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let unknown = problem(proxy.post("/jobs/x/status?wait=99s", "").await).await;
    assert_eq!(unknown["code"], "unauthenticated", "and is told nothing else");
    assert!(questions.load(SeqCst) <= 2);
}

#[tokio::test]
async fn a_client_that_is_revoked_while_it_waits_gets_no_answer_and_others_do() {
    let (proxy, _) = proxy(Duration::from_secs(1)).await;
    let owner = submitted(&proxy, &may("owner", "jobs")).await;
    let admin = Agent::add(&proxy, &Client { admin: true, ..may("admin", "jobs") });
    let asked = proxy.sandbox.counts().requests;
    let (first, second, ()) = join3(wait(&owner, "50s"), wait(&admin, "50s"), async {
        while proxy.sandbox.counts().requests == asked {
            tokio::task::yield_now().await;
        }
        clients(&proxy).revoke(&owner.name, Timestamp::now()).unwrap();
    })
    .await;
    assert_eq!(problem(first).await["code"], "unknown_token");
    assert_eq!(word(&json(second).await), "approved");
    let signed = records(&proxy, "signed").await;
    let names = signed.iter().filter(|of| of.text("action").as_deref() == Some("job_status"));
    let names: HashSet<_> = names.map(|of| of.text("client").unwrap()).collect();
    assert!(names.contains("admin"), "it asks in its own name afterwards: {names:?}");
}

#[tokio::test]
async fn a_wait_goes_on_through_faults_of_the_upstream() {
    let sandbox = Sandbox::new(Settings { review: Duration::from_secs(1), ..Settings::default() });
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    let agent = submitted(&proxy, &may("ci", "jobs")).await;
    for fault in
        ["status_503:job_status:1", "cut_before:job_status:1", "forget_sessions:job_status:1"]
    {
        proxy.sandbox.inject(fault.parse().unwrap());
    }
    assert_eq!(word(&json(wait(&agent, "50s").await).await), "approved");
}

#[tokio::test]
async fn at_the_end_of_the_process_a_wait_is_answered_with_what_is_known() {
    let (proxy, questions) = proxy(Duration::from_secs(60)).await;
    let agent = submitted(&proxy, &may("ci", "jobs")).await;
    let (answer, ()) = join(wait(&agent, "50s"), async {
        while questions.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        proxy.proxy.end();
    })
    .await;
    assert_eq!(word(&json(answer).await), "submitted");
}
