//! Workflow jobs: the token of a reservation is held here, and used on that job's calls only.

use std::sync::{Arc, Mutex};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    extract::Request,
    middleware::{Next, from_fn},
};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use serde_json::Value;

use crate::agents::{Agent, denials, may};
use crate::common::{GENERAL_JOB, Options, TestProxy, WORKFLOW_JOB, json, problem, serve};

const WORKFLOW: &str = r#"{"name":"n","description":"d","nodes":[
    {"id":"a","type":"tool","label":"A","tool":{"product_id":"p","product_name":"P"}},
    {"id":"b","type":"prompt","label":"B","prompt":{}}],
    "edges":[{"id":"e","from":"a","to":"b"}],"signature":"0xbad","note":null}"#;

/// The paths and headers of the requests that reached the sandbox.
type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A proxy in front of a sandbox whose incoming headers are seen.
async fn watched() -> (TestProxy, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let watch = from_fn(move |request: Request, next: Next| {
        let entry = (request.uri().path().to_owned(), request.headers().clone());
        record.lock().unwrap().push(entry);
        next.run(request)
    });
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(watch)).await;
    (proxy, seen)
}

async fn put(proxy: &TestProxy, path: &str, body: &'static str) -> Response {
    proxy.client.put(proxy.url(path)).body(body).send().await.unwrap()
}

#[tokio::test]
async fn a_workflow_job_is_done_without_seeing_its_token() {
    let (proxy, seen) = watched().await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    let reserved = proxy.ok(&format!("{job}/reserve"), "").await;
    assert_eq!(reserved["workflow_access"]["access_token"], "held-by-proxy");
    assert!(reserved["workflow_access"]["expires_at"].is_string(), "the rest stays");

    let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let workflow = created["workflow_id"].as_str().unwrap();
    let path = format!("/api/external{job}/workflow/{workflow}");
    assert_eq!(put(&proxy, &path, WORKFLOW).await.status(), StatusCode::OK);
    proxy.ok(&format!("{job}/workflow/{workflow}/publish"), "").await;

    let reservation = &reserved["job"]["reservation_id"];
    let proof = serde_json::json!({
        "proof_text": "published", "reservation_id": reservation, "workflow_id": workflow,
    });
    let done = proxy.ok(&format!("{job}/complete"), proof.to_string()).await;
    assert_eq!(done["job"]["status"], "submitted");

    for (path, headers) in seen.lock().unwrap().iter() {
        let token = headers.get("x-job-workflow-token");
        assert_eq!(token.is_some(), path.contains("/workflow/"), "{path}");
        assert!(!headers.contains_key("authorization"), "{path}");
        assert!(token.is_none_or(|token| token.to_str().unwrap().starts_with("Bearer ")));
    }
}

#[tokio::test]
async fn without_a_token_a_workflow_call_is_refused_and_nothing_is_sent() {
    let proxy = TestProxy::start().await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let before = proxy.sandbox.counts().requests;
    for job in [GENERAL_JOB, WORKFLOW_JOB, "unknown"] {
        for path in ["workflow/create", "workflow/w1/publish"] {
            let response = proxy.post(&format!("/jobs/{job}/{path}"), WORKFLOW).await;
            let problem = problem(response).await;
            assert_eq!(problem["code"], "no_workflow_token", "{job}/{path}");
            assert_eq!(problem["status"], 409);
            assert!(problem["detail"].as_str().unwrap().contains(job));
        }
        let path = format!("/api/external/jobs/{job}/workflow/w1");
        assert_eq!(put(&proxy, &path, WORKFLOW).await.status(), StatusCode::CONFLICT);
    }
    assert_eq!(proxy.sandbox.counts().requests, before);
}

#[tokio::test]
async fn one_jobs_token_is_not_used_for_another() {
    let proxy = TestProxy::start().await;
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    let before = proxy.sandbox.counts().requests;
    let response = proxy.post("/jobs/68f0a1c27b3e4d5f60718205/workflow/create", WORKFLOW).await;
    assert_eq!(json(response).await["code"], "no_workflow_token");
    assert_eq!(proxy.sandbox.counts().requests, before);
}

#[tokio::test]
async fn a_jobs_token_in_authorization_is_refused_with_what_to_do_and_never_sent() {
    for has_clients in [false, true] {
        let (proxy, seen) = watched().await;
        proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
        if has_clients {
            Agent::add(&proxy, &may("ci", "all"));
        }
        seen.lock().unwrap().clear();
        let job = format!("/api/external/jobs/{WORKFLOW_JOB}/workflow");
        for (method, path) in [
            (Method::POST, format!("{job}/create")),
            (Method::PUT, format!("{job}/w1")),
            (Method::POST, format!("{job}/w1/publish")),
        ] {
            let request = proxy.client.request(method, proxy.url(&path)).body(WORKFLOW);
            let request = request.header("authorization", "Bearer jwf_0123456789abcdef");
            let problem = problem(request.send().await.unwrap()).await;
            let told = (&problem["code"], &problem["status"]);
            assert_eq!(told, (&"job_token_not_taken".into(), &401.into()), "{path}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("leave the header out"), "{detail}");
            assert!(!problem.to_string().contains("jwf_"), "{problem}");
        }
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(
            denials(&proxy, ["reason"]).await,
            [["job_token_not_taken"]; 3].map(|r| r.map(String::from))
        );
        // Without it, the call is made as far as the caller is known.
        let without = proxy.post(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
        assert_eq!(without.status().as_u16(), if has_clients { 401 } else { 200 });
    }
}

#[tokio::test]
async fn a_clients_own_headers_do_not_go_upstream() {
    let (proxy, seen) = watched().await;
    let url = proxy.url("/api/external/jobs/list");
    let request = proxy.client.post(url).header("x-job-workflow-token", "Bearer mine");
    let request = request.header("authorization", "Bearer mine").header("cookie", "a=b");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    for (path, headers) in seen.lock().unwrap().iter() {
        for name in ["x-job-workflow-token", "authorization", "cookie"] {
            assert!(!headers.contains_key(name), "{name} in {path}");
        }
        assert_eq!(headers["content-type"], "application/json", "{path}");
        let agent = headers["user-agent"].to_str().unwrap();
        assert_eq!(agent, concat!("agentpmt-proxy/", env!("CARGO_PKG_VERSION")));
    }
}

/// Answers reservations with a body of its own.
async fn reserving(body: &'static str) -> Value {
    let fault = from_fn(move |request: Request, next: Next| async move {
        use axum::response::IntoResponse;
        let reserve = request.uri().path().ends_with("/reserve");
        if reserve { body.into_response() } else { next.run(request).await }
    });
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(fault)).await;
    let text = proxy.post("/jobs/j1/reserve", "").await.text().await.unwrap();
    Value::String(text)
}

#[tokio::test]
async fn the_token_is_found_at_either_depth_and_everything_else_stays() {
    for (answer, seen) in [
        (
            r#"{ "n": 12345678901234567890123, "workflow_access": {"access_token": "s3cret-1"} }"#,
            r#"{ "n": 12345678901234567890123, "workflow_access": {"access_token": "held-by-proxy"} }"#,
        ),
        (
            r#"{"job":{"workflow_access":{"access_token":"wf-0123456789abcdef"},"x":1.0},"hint":"use wf-0123456789abcdef"}"#,
            r#"{"job":{"workflow_access":{"access_token":"held-by-proxy"},"x":1.0},"hint":"use held-by-proxy"}"#,
        ),
        (
            r#"{"workflow_access":{},"job":{"workflow_access":{"access_token":"job"}}}"#,
            r#"{"workflow_access":{},"job":{"workflow_access":{"access_token":"held-by-proxy"}}}"#,
        ),
        (
            "\u{feff}{\"workflow_access\":{\"access_token\":\"a\\nb\"}}",
            "\u{feff}{\"workflow_access\":{\"access_token\":\"held-by-proxy\"}}",
        ),
        (r#"{"workflow_access":null,"job":{}}"#, r#"{"workflow_access":null,"job":{}}"#),
        (r#"{"workflow_access":[1],"a":"b"}"#, r#"{"workflow_access":[1],"a":"b"}"#),
    ] {
        assert_eq!(reserving(answer).await, seen, "{answer}");
    }
}

#[tokio::test]
async fn the_token_is_passed_on_if_the_configuration_says_so() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(sandbox.router()).await;
    let expose = |options: &mut Options| options.expose_workflow_token = true;
    let proxy = TestProxy::in_front_of(sandbox, upstream, expose).await;
    let reserved = proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    let token = reserved["workflow_access"]["access_token"].as_str().unwrap();
    assert!(token.len() > 16, "{token}");
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
}
