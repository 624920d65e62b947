//! `/mcp`: the calls as tools, through the same door as every other request.

use std::time::Duration;

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    agents::{Agent, may, records},
    common::{GENERAL_JOB, TestProxy, problem, serve_sandbox},
};

const RESERVE: &str = "job_reserve";

/// A proxy in front of a sandbox with these times.
async fn in_front_of(settings: Settings) -> TestProxy {
    let sandbox = Sandbox::new(settings);
    let upstream = serve_sandbox(&sandbox).await;
    TestProxy::in_front_of(sandbox, upstream, |_| {}).await
}

/// Sends one message, with the token of a client if there is one.
async fn message(proxy: &TestProxy, token: Option<&str>, message: &Value) -> Response {
    let request = proxy.client.post(proxy.url("/mcp"));
    let request = request.header("accept", "application/json, text/event-stream");
    let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    let request = request.header("content-type", "application/json").body(message.to_string());
    request.send().await.unwrap()
}

async fn result(proxy: &TestProxy, method: &str, params: Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let response = message(proxy, None, &request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["result"].clone()
}

async fn tool(proxy: &TestProxy, name: &str, arguments: Value) -> Value {
    result(proxy, "tools/call", json!({ "name": name, "arguments": arguments })).await
}

/// The structure of a good result.
async fn good(proxy: &TestProxy, name: &str, arguments: Value) -> Value {
    let result = tool(proxy, name, arguments).await;
    assert_eq!(result["isError"], false, "{result}");
    result["structuredContent"].clone()
}

#[tokio::test]
async fn the_whole_loop_works_by_tools_and_a_repeat_is_answered_and_not_sent() {
    let review = Duration::from_millis(100);
    let proxy = in_front_of(Settings { review, ..Settings::default() }).await;
    let tools = result(&proxy, "tools/list", json!({})).await;
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == RESERVE));
    assert_eq!((&tools["ttlMs"], &tools["cacheScope"]), (&json!(60_000), &json!("private")));
    let list = good(&proxy, "job_list", json!({ "limit": 1 })).await;
    let job = json!({ "job_id": list["jobs"][0]["job_id"] });
    let first = good(&proxy, RESERVE, job.clone()).await;
    assert!(first["job"]["job_instructions"].is_string(), "{first}");
    let sent = proxy.sandbox.counts().requests;
    let again = tool(&proxy, RESERVE, job.clone()).await;
    assert_eq!(again["structuredContent"], first);
    assert!(again["content"][1]["text"].as_str().unwrap().contains("idempotency_key"), "{again}");
    assert_eq!(proxy.sandbox.counts().requests, sent);
    let held = good(&proxy, "reservations", json!({})).await;
    assert_eq!(held["reservations"][0]["job_id"], job["job_id"]);
    let proof = json!({ "job_id": job["job_id"], "proof_text": "done" });
    let done = good(&proxy, "job_complete", proof.clone()).await;
    let sent = proxy.sandbox.counts().requests;
    assert_eq!(good(&proxy, "job_complete", proof).await, done);
    assert_eq!(proxy.sandbox.counts().requests, sent);
    let status = good(&proxy, "wait_for_review", job).await;
    assert!(status["submission"]["status"].is_string(), "{status}");
    let signed = records(&proxy, "signed").await;
    let count = |name| {
        signed.iter().filter(|record| record.text("action").as_deref() == Some(name)).count()
    };
    assert_eq!((count(RESERVE), count("job_complete")), (1, 1));
}

#[tokio::test]
async fn a_refusal_is_a_result_with_the_problem_and_an_unknown_tool_is_an_error() {
    let proxy = TestProxy::start().await;
    let proof = json!({ "job_id": GENERAL_JOB, "proof_text": "p", "reservation_id": {} });
    let refused = tool(&proxy, "job_workflow_create", proof).await;
    assert_eq!(refused["isError"], true);
    let code = &refused["structuredContent"]["code"];
    assert!(["not_reserved", "no_workflow_token"].iter().any(|known| code == known), "{refused}");
    let missing = tool(&proxy, "job_status", json!({})).await;
    assert_eq!(missing["structuredContent"]["code"], "invalid_id");
    let foreign = tool(&proxy, "job_status", json!({ "job_id": "none" })).await;
    assert_eq!(foreign["structuredContent"]["status"], 404, "{foreign}");
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "sign" },
    });
    let text = message(&proxy, None, &request).await.text().await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["error"]["code"], -32602);
}

#[tokio::test]
async fn a_use_of_a_tool_that_failed_after_it_was_charged_is_not_made_again() {
    let settings = Settings { credits: 100, ..Settings::default() };
    let proxy = TestProxy::start_with(settings, |router| router).await;
    let used = json!({
        "product_slug": "letter-printer", "action_slug": "print-letter", "parameters": { "text": "x" },
    });
    let mut failed = tool(&proxy, "tool_invoke", used.clone()).await;
    assert_eq!(failed["isError"], true, "{failed}");
    assert_eq!(tool(&proxy, "tool_invoke", used.clone()).await["isError"], true);
    assert_eq!(good(&proxy, "balance", json!({})).await["balance_credits"], 80);
    let mut anew = used;
    anew["idempotency_key"] = "anew".into();
    failed = tool(&proxy, "tool_invoke", anew).await;
    assert_eq!(failed["isError"], true, "{failed}");
    assert_eq!(good(&proxy, "balance", json!({})).await["balance_credits"], 60);
}

#[tokio::test]
async fn a_reserve_that_was_refused_is_sent_again() {
    let proxy = TestProxy::start().await;
    let job = json!({ "job_id": "none" });
    for _ in 0..2 {
        let sent = proxy.sandbox.counts().requests;
        assert_eq!(tool(&proxy, RESERVE, job.clone()).await["isError"], true);
        assert!(proxy.sandbox.counts().requests > sent);
    }
}

#[tokio::test]
async fn a_reserve_is_sent_again_once_its_reservation_is_over() {
    let reservation = Duration::from_secs(1);
    let proxy = in_front_of(Settings { reservation, ..Settings::default() }).await;
    let job = json!({ "job_id": GENERAL_JOB });
    let first = good(&proxy, RESERVE, job.clone()).await;
    while good(&proxy, "reservations", json!({})).await["reservations"] != json!([]) {}
    let second = good(&proxy, RESERVE, job).await;
    assert_ne!(first["job"]["reservation_id"], second["job"]["reservation_id"]);
}

#[tokio::test]
async fn a_tool_call_needs_the_token_and_the_rights_of_its_client() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "job_list"));
    let call = |name: &str| {
        let params = json!({ "name": name, "arguments": { "job_id": GENERAL_JOB } });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
    };
    let refused = message(&proxy, None, &call("job_list")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(problem(refused).await["code"], "unauthenticated");
    for (name, code) in [("job_list", Value::Null), (RESERVE, json!("not_allowed"))] {
        let text =
            message(&proxy, Some(agent.token.expose()), &call(name)).await.text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["result"]["structuredContent"]["code"], code, "{answer}");
    }
}

#[tokio::test]
async fn only_messages_are_taken_and_a_foreign_page_is_refused_first() {
    let proxy = TestProxy::start().await;
    let get = proxy.client.get(proxy.url("/mcp")).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    let page = proxy.client.post(proxy.url("/mcp")).header("origin", "http://127.0.0.1:1");
    assert_eq!(problem(page.send().await.unwrap()).await["code"], "foreign_page");
    let large = proxy.client.post(proxy.url("/mcp")).body("x".repeat(256 * 1024 + 1));
    assert_eq!(problem(large.send().await.unwrap()).await["code"], "body_too_large");
}
