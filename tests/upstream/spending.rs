//! Calls that spend credits, and the calls of workflows.

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use http::StatusCode;
use serde_json::json;

use crate::common::{
    FREE_TOOL, Options, PUBLISHED_WORKFLOW, TestProxy, json as json_of, problem, serve_sandbox,
};

/// A tool that costs 5 credits.
const PRICED_TOOL: &str = "/tools/ai-writing-quality-check/actions/check-for-banned-phrases/invoke";

async fn proxy() -> TestProxy {
    let sandbox = Sandbox::new(Settings { credits: 100, ..Settings::default() });
    let upstream = serve_sandbox(&sandbox).await;
    TestProxy::in_front_of(sandbox, upstream, |_: &mut Options| {}).await
}

async fn invoke(proxy: &TestProxy, key: &str) -> reqwest::Response {
    let url = proxy.url(&format!("/api/external{PRICED_TOOL}"));
    let request = proxy.client.post(url).header("idempotency-key", key);
    request.body(r#"{"parameters":{"text":"x"}}"#).send().await.unwrap()
}

#[tokio::test]
async fn a_call_without_input_is_signed_in_the_form_that_the_server_takes() {
    let proxy = proxy().await;
    // The sandbox takes `{}` for the one and an empty line for the other.
    let start = format!("/workflows/{PUBLISHED_WORKFLOW}/start");
    for (path, requests) in [("/workflows/active", 2), (&start, 4)] {
        proxy.ok(path, "").await;
        assert_eq!(proxy.sandbox.counts().requests, requests, "{path}");
    }
    proxy.sandbox.inject("wrong_signature".parse().unwrap());
    for (body, tries) in [("", 2), (r#"{"instance_id":"i"}"#, 1), (r#"{"parameters":{}}"#, 1)] {
        let before = proxy.sandbox.counts().requests;
        let response = proxy.post(&start, body).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{body}");
        assert_eq!(proxy.sandbox.counts().requests - before, tries, "{body}");
    }
}

#[tokio::test]
async fn a_tool_call_without_an_object_of_parameters_is_refused_with_an_example() {
    let proxy = proxy().await;
    for body in ["", r#"{"text":"x"}"#, r#"{"parameters":null}"#, r#"{"parameters":[1]}"#] {
        for path in [FREE_TOOL, "/tools/one/invoke"] {
            let problem = problem(proxy.post(path, body).await).await;
            assert_eq!(problem["code"], "invalid_field", "{body}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(r#"{"parameters": {…}}"#), "{detail}");
        }
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_lost_answer_of_a_call_that_spends_is_told_with_the_balance_and_sends_nothing_again() {
    let proxy = proxy().await;
    proxy.ok("/credits/balance", "").await;
    proxy.sandbox.inject("cut_after:tool_invoke:1".parse().unwrap());
    for (requests, before) in [(4, json!(100)), (5, json!(null))] {
        let problem = problem(invoke(&proxy, "one").await).await;
        assert_eq!(problem["code"], "outcome_unknown");
        assert_eq!((&problem["retry"], &problem["processed"]), (&"check_first".into(), &().into()));
        assert!(
            problem["detail"].as_str().unwrap().contains("may have spent credits"),
            "{problem}"
        );
        assert_eq!((&problem["balance_before"], &problem["balance_now"]), (&before, &95.into()));
        // The balance is asked each time; the call itself is not made again.
        assert_eq!(proxy.sandbox.counts().requests, requests);
    }
    assert_eq!(invoke(&proxy, "two").await.status(), StatusCode::OK);
    assert_eq!(proxy.ok("/credits/balance", "").await["balance_credits"], 90);
}

#[tokio::test]
async fn a_tool_that_fails_after_it_charged_is_told_as_it_is_and_not_called_again() {
    let proxy = proxy().await;
    let failing = proxy.url("/api/external/tools/letter-printer/actions/print-letter/invoke");
    for is_replayed in [false, true] {
        let call = proxy.client.post(&failing).header("idempotency-key", "one");
        let response = call.body(r#"{"parameters":{"text":"x"}}"#).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers().contains_key("idempotency-replayed"), is_replayed);
        let detail = &json_of(response).await["detail"];
        assert_eq!(
            (&detail["code"], &detail["charged_credits"]),
            (&"TOOL_FAILED".into(), &20.into())
        );
    }
    assert_eq!(proxy.sandbox.counts().requests, 2, "one for the session");
    let lost = problem({
        proxy.sandbox.inject("cut_after:tool_invoke:1".parse().unwrap());
        invoke(&proxy, "two").await
    });
    assert_eq!(lost.await["balance_before"], 80);
}
