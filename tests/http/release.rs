//! Jobs that a client releases, for another client of its team.

use std::time::Duration;

use agentpmt_proxy::{policy::Client, sandbox::Settings};
use futures_util::future::join;
use http::StatusCode;
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    agents::{Agent, PROOF, may, records},
    common::{self, GENERAL_JOB, TestProxy, WORKFLOW, WORKFLOW_JOB, json, problem},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// A filter that only the general job matches, and a wait.
const ONLY: &str = r#"{"title_contains":"product links","job_type":["general"],"wait":"50s"}"#;

async fn release(proxy: &TestProxy, agent: &Agent, job: &str) -> Response {
    let url = proxy.url(&format!("/proxy/reservations/{job}/release"));
    proxy.client.post(url).bearer_auth(agent.token.expose()).send().await.unwrap()
}

async fn next(proxy: &TestProxy, agent: &Agent, key: &str, body: &str) -> Response {
    let request = proxy.client.post(proxy.url("/proxy/jobs/next")).body(body.to_owned());
    let request = request.bearer_auth(agent.token.expose()).header("idempotency-key", key);
    timeout(LONG, request.send()).await.unwrap().unwrap()
}

/// The answer by which a client got a released job.
async fn taken(response: Response) -> Value {
    let status = response.status();
    let answer = json(response).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let left = answer["seconds_left"].as_i64().unwrap();
    assert!((60..=1800).contains(&left), "{answer}");
    answer
}

fn without_seconds(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("seconds_left");
    answer
}

#[tokio::test]
async fn a_released_job_goes_to_another_client_with_its_instructions() {
    let proxy = TestProxy::start().await;
    let limited = Client { max_reservations: Some(1), ..may("one", "jobs") };
    let one = Agent::add(&proxy, &limited);
    let [two, three] = ["two", "three"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let reserved = one.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    for (agent, job, code) in [
        (&two, GENERAL_JOB, "held_by_another"),
        (&one, WORKFLOW_JOB, "not_reserved"),
        (&one, "a%20b", "invalid_id"),
    ] {
        assert_eq!(problem(release(&proxy, agent, job).await).await["code"], code);
    }
    let answer = json(release(&proxy, &one, GENERAL_JOB).await).await;
    assert_eq!(answer["job_id"], GENERAL_JOB);
    assert!(answer["seconds_left"].as_i64().unwrap() > 1700, "{answer}");
    // From now on the client holds nothing.
    assert_eq!(problem(release(&proxy, &one, GENERAL_JOB).await).await["code"], "not_reserved");
    assert!(one.held().await.is_empty());
    let complete = format!("/jobs/{GENERAL_JOB}/complete");
    assert_eq!(one.refused(&complete, PROOF).await, (409, "not_reserved".to_owned()));
    assert!(one.reserve(WORKFLOW_JOB).await.status().is_success(), "it counts no more");

    let answer = taken(next(&proxy, &two, "key", ONLY).await).await;
    assert_eq!(without_seconds(answer.clone()), reserved);
    assert_eq!(json(next(&proxy, &two, "key", ONLY).await).await, answer, "the same for a repeat");
    assert_eq!(two.held().await, [GENERAL_JOB]);
    for agent in [&one, &three] {
        assert_eq!(agent.refused(&complete, PROOF).await, (409, "held_by_another".to_owned()));
    }
    two.ok(&complete, PROOF).await;
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 1);
    assert_eq!(json(next(&proxy, &two, "key", ONLY).await).await, answer, "also when it is done");

    let admin = records(&proxy, "admin").await;
    let of_jobs = admin.iter().filter(|record| record.text("product").is_some());
    let fields = ["action", "by", "product"];
    let told: Vec<_> =
        of_jobs.map(|record| fields.map(|name| record.text(name).unwrap())).collect();
    let expected = [["job_release", "one", GENERAL_JOB], ["job_take", "two", GENERAL_JOB]];
    assert_eq!(told, expected.map(|fields| fields.map(str::to_owned)));
}

#[tokio::test]
async fn a_request_that_waits_gets_a_job_as_it_is_released() {
    let proxy = TestProxy::start().await;
    let [one, two] = ["one", "two"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    one.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let release = async {
        // A session, the reserve, and the list for the request that waits.
        while proxy.sandbox.counts().requests < 3 {
            tokio::task::yield_now().await;
        }
        release(&proxy, &one, GENERAL_JOB).await
    };
    let (answer, released) = join(next(&proxy, &two, "key", ONLY), release).await;
    assert!(released.status().is_success());
    assert_eq!(taken(answer).await["job"]["job_id"], GENERAL_JOB);
}

#[tokio::test]
async fn an_admin_releases_for_others_and_a_workflow_goes_on_over_a_restart() {
    let first = TestProxy::start().await;
    let [one, two] = ["one", "two"].map(|name| Agent::add(&first, &may(name, "jobs")));
    let ops = Agent::add(&first, &Client { admin: true, ..may("ops", "jobs") });
    one.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    one.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
    assert!(release(&first, &ops, WORKFLOW_JOB).await.status().is_success());
    first.proxy.drained().await;
    let (sandbox, folder) = (first.sandbox.clone(), first.folder());
    drop(first);
    let upstream = common::serve(sandbox.router()).await;
    let proxy =
        TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder.clone()).await;
    let two = two.at(&proxy);
    let answer = taken(next(&proxy, &two, "key", r#"{"title_contains":"support"}"#).await).await;
    assert_eq!(answer["workflow_access"]["access_token"], "held-by-proxy");
    let instructions = answer["job"]["job_instructions"].as_str().unwrap().to_owned();
    two.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
    proxy.proxy.flush().await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        let found = bytes.windows(40).any(|part| part == &instructions.as_bytes()[..40]);
        assert!(!found, "instructions are sealed");
    }
}

#[tokio::test]
async fn a_released_job_with_too_little_time_left_goes_to_no_client() {
    let settings = Settings { reservation: Duration::from_secs(59), ..Settings::default() };
    let proxy = TestProxy::start_with(settings, |router| router).await;
    let [one, two] = ["one", "two"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    one.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    assert!(release(&proxy, &one, GENERAL_JOB).await.status().is_success());
    let answer = next(&proxy, &two, "key", &ONLY.replace("50s", "0s")).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let listed = two.ok("/jobs/list", "").await;
    let is_it = |job: &&Value| job["job_id"] == GENERAL_JOB;
    let job = listed["jobs"].as_array().unwrap().iter().find(is_it).unwrap();
    assert_eq!(job["status"], "reserved", "the wallet has it until its end");
}
