//! Calls that are paid for by x402, in front of an upstream that keeps what it is sent.

use std::sync::{Arc, Mutex};

use agentpmt_proxy::{
    sandbox::{Sandbox, Settings},
    store::FreezeOf,
};
use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    agents::records,
    common::{TestProxy, json as body_of, problem, serve},
};

const PURCHASE: &str = "/credits/purchase";
const TOOL: &str = "/tools/writer/actions/check/invoke";
const PAYMENT: &str = "eyJ4NDAyVmVyc2lvbiI6Mn0=";

/// A request as it came.
#[derive(Debug, Clone)]
struct Seen {
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An upstream that answers every call but that for a session by `answer`, and what it was sent.
async fn upstream(
    answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
) -> (TestProxy, Arc<Mutex<Vec<Seen>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = all.clone();
    let handle = move |method: Method, uri: Uri, request: Request| {
        let (answer, kept) = (answer.clone(), kept.clone());
        async move {
            let (parts, body) = request.into_parts();
            if uri.path().ends_with("/auth/session") {
                return r#"{"session_nonce":"n-1","expires_in":900}"#.into_response();
            }
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let seen = Seen { target: format!("{method} {uri}"), headers: parts.headers, body };
            kept.lock().unwrap().push(seen.clone());
            answer(&seen)
        }
    };
    let address = serve(Router::new().fallback(handle)).await;
    let sandbox = Sandbox::new(Settings::default());
    (TestProxy::in_front_of(sandbox, address, |_| {}).await, all)
}

fn good(_: &Seen) -> Response {
    ([("payment-response", "cGFpZA==")], r#"{"success":true}"#).into_response()
}

async fn pay(proxy: &TestProxy, path: &str, header: &str, body: &str) -> reqwest::Response {
    let url = proxy.url(&format!("/api/external{path}"));
    let call = proxy.client.post(url).header(header, PAYMENT).body(body.to_owned());
    call.send().await.unwrap()
}

#[tokio::test]
async fn a_client_that_pays_by_itself_passes_through_byte_for_byte() {
    let (proxy, seen) = upstream(good).await;
    let body = "\n{ \"credits\" : 5.00e2, \"wallet_address\":null,\"session_nonce\":\"x\" }\t";
    for (path, header) in [
        (PURCHASE, "x-payment"),
        (PURCHASE, "payment-signature"),
        (TOOL, "payment"),
        (TOOL, "x-payment"),
    ] {
        let response = pay(&proxy, path, header, body).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} {header}");
        assert_eq!(response.headers()["payment-response"], "cGFpZA==");
        let sent = seen.lock().unwrap().pop().unwrap();
        assert_eq!(sent.target, format!("POST /api/external{path}"));
        assert_eq!(sent.headers[header], PAYMENT);
        assert_eq!(sent.body, body);
        assert!(seen.lock().unwrap().is_empty(), "it is sent once");
    }
}

#[tokio::test]
async fn the_journal_has_the_hash_of_a_payment_and_not_the_payment() {
    let (proxy, _) = upstream(good).await;
    pay(&proxy, PURCHASE, "x-payment", "{}").await;
    let records = records(&proxy, "signed").await;
    let text = format!("{records:?}");
    // Of Python: hashlib.sha256(b"eyJ4NDAyVmVyc2lvbiI6Mn0=").hexdigest()
    assert!(
        text.contains("c77c2a8972bd822f3ae02172ed3155b99c226102a5985f8a19b653cb79b9e586"),
        "{text}"
    );
    assert!(!text.contains(PAYMENT), "{text}");
}

#[tokio::test]
async fn a_request_with_a_payment_is_never_sent_again() {
    let busy = |_: &Seen| {
        let head = [("retry-after", "0"), ("content-type", "application/json")];
        (StatusCode::SERVICE_UNAVAILABLE, head, r#"{"detail":"busy"}"#).into_response()
    };
    let (proxy, seen) = upstream(busy).await;
    let response = pay(&proxy, PURCHASE, "x-payment", "{}").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body_of(response).await, json!({ "detail": "busy" }));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

/// A call under the key `k`, with a payment if that is given.
async fn keyed(proxy: &TestProxy, path: &str, payment: Option<&str>) -> reqwest::Response {
    let url = proxy.url(&format!("/api/external{path}"));
    let call = proxy.client.post(url).header("idempotency-key", "k").body("{}");
    let paid = payment.iter().fold(call, |call, payment| call.header("x-payment", *payment));
    paid.send().await.unwrap()
}

#[tokio::test]
async fn an_answer_that_says_nothing_of_a_payment_keeps_its_key_in_doubt() {
    let page = (StatusCode::OK, "<html>");
    let failed = (StatusCode::BAD_GATEWAY, r#"{"detail":"timeout"}"#);
    for answer in [page, failed, (StatusCode::PERMANENT_REDIRECT, "")] {
        let answered = move |_: &Seen| answer.into_response();
        let (proxy, seen) = upstream(answered).await;
        let first = keyed(&proxy, PURCHASE, Some(PAYMENT)).await;
        if answer.0 != StatusCode::PERMANENT_REDIRECT {
            assert_eq!(first.status(), answer.0);
            assert_eq!(first.text().await.unwrap(), answer.1);
        }
        // As of a client that signs another one.
        let again = problem(keyed(&proxy, PURCHASE, Some("eyJ4IjoxfQ==")).await).await;
        assert_eq!(again["code"], "outcome_unknown", "{answer:?}");
        assert!(again["detail"].as_str().unwrap().contains("sign no other before"), "{again}");
        assert_eq!(seen.lock().unwrap().len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_pays_for_a_demand_under_the_key_of_its_first_request() {
    let demand = |seen: &Seen| match seen.headers.contains_key("x-payment") {
        true => good(seen),
        false => (StatusCode::PAYMENT_REQUIRED, r#"{"accepts":[]}"#).into_response(),
    };
    let (proxy, seen) = upstream(demand).await;
    let first = keyed(&proxy, PURCHASE, None).await;
    assert_eq!(first.status(), StatusCode::PAYMENT_REQUIRED);
    for replayed in [false, true] {
        let paid = keyed(&proxy, PURCHASE, Some(PAYMENT)).await;
        assert_eq!(paid.headers().contains_key("idempotency-replayed"), replayed);
        assert_eq!(body_of(paid).await, json!({ "success": true }));
    }
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_demand_reaches_the_client_as_it_is_where_nothing_is_paid() {
    let demand = |_: &Seen| {
        let head = [("payment-required", "e30="), ("content-type", "application/json")];
        (StatusCode::PAYMENT_REQUIRED, head, r#"{ "accepts": [] }"#).into_response()
    };
    let (proxy, seen) = upstream(demand).await;
    for path in [PURCHASE.to_owned(), format!("{TOOL}?pay=x402")] {
        let response = proxy.post(&path, r#"{ "a": 1 }"#).await;
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
        assert_eq!(response.headers()["payment-required"], "e30=");
        let advice = response.headers()["x-agentpmt-proxy-advice"].to_str().unwrap();
        assert!(advice.contains("[spending]"), "{advice}");
        assert_eq!(response.text().await.unwrap(), r#"{ "accepts": [] }"#);
        let sent = seen.lock().unwrap().pop().unwrap();
        assert_eq!(sent.body, r#"{ "a": 1 }"#);
        assert!(!sent.target.contains('?'), "{}", sent.target);
    }
}

#[tokio::test]
async fn a_tool_is_paid_with_credits_or_by_x402_and_anything_else_is_told_both_ways() {
    let (proxy, seen) = upstream(good).await;
    proxy.ok(TOOL, r#"{"parameters":{"a":1}}"#).await;
    let sent: Value = serde_json::from_slice(&seen.lock().unwrap().pop().unwrap().body).unwrap();
    assert!(sent["signature"].is_string(), "{sent}");

    let bare = format!("{TOOL}?pay=x402");
    for body in [r#"{"a":1}"#, r#"{"parameters":{"a":1},"b":2}"#, r#"{"parameters":1}"#] {
        proxy.ok(&bare, body).await;
        assert_eq!(seen.lock().unwrap().pop().unwrap().body, body);
    }
    // The form of the signed call, left over: it would be paid for, and the tool would get the wrong input.
    let wrapped = problem(proxy.post(&bare, r#"{"parameters":{"a":1}}"#).await).await;
    assert_eq!(wrapped["code"], "invalid_field");
    assert!(wrapped["detail"].as_str().unwrap().contains("send the parameters bare"), "{wrapped}");
    for body in [r#"{"a":1}"#, r#"{"parameters":1}"#, "{}", ""] {
        let problem = problem(proxy.post(TOOL, body).await).await;
        assert_eq!(problem["code"], "invalid_field");
        let detail = problem["detail"].as_str().unwrap();
        for way in ["an object in parameters", "?pay=x402", "payment header"] {
            assert!(detail.contains(way), "{detail}");
        }
    }
    for query in ["?pay=usd", "?pay=X402", "?pay=x402&a=b", "?a=b"] {
        let problem = problem(proxy.post(&format!("{TOOL}{query}"), "{}").await).await;
        assert_eq!(problem["code"], "query_not_taken", "{query}");
        assert!(problem["detail"].as_str().unwrap().contains("but ?pay=x402"), "{problem}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_tools_result_that_is_not_json_reaches_the_client_that_was_charged_for_it() {
    for result in ["a,b\n1,2\n", ""] {
        let (proxy, seen) = upstream(move |_| result.into_response()).await;
        for path in [TOOL, "/tools/one/invoke"] {
            let response = proxy.post(path, r#"{"parameters":{}}"#).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.text().await.unwrap(), result, "{path}");
        }
        let calls =
            seen.lock().unwrap().iter().filter(|seen| seen.target.ends_with("/invoke")).count();
        assert_eq!(calls, 2, "each is made once");
    }
}

#[tokio::test]
async fn a_refused_request_id_of_a_clients_own_is_told_as_it_is() {
    let refusal = r#"{"detail":{"code":"EXTERNAL_SIGNATURE_REQUEST_REPLAY"}}"#;
    let (proxy, seen) = upstream(move |_| (StatusCode::CONFLICT, refusal).into_response()).await;
    for is_replayed in [false, true] {
        let url = proxy.url(&format!("/api/external{PURCHASE}"));
        let purchase = proxy.client.post(url).header("idempotency-key", "one");
        let response = purchase.body(r#"{"request_id":"mine"}"#).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers().contains_key("idempotency-replayed"), is_replayed);
        assert_eq!(response.text().await.unwrap(), refusal);
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_is_asked_for_with_its_query_and_a_bare_question_mark_is_none() {
    let (proxy, seen) = upstream(good).await;
    for (list, sent) in [
        ("tools?limit=2&skip=%31", "tools?limit=2&skip=%31"),
        ("workflows?skip=1", "workflows?skip=1"),
        ("tools?", "tools"),
    ] {
        let url = proxy.url(&format!("/api/external/{list}"));
        assert_eq!(proxy.client.get(url).send().await.unwrap().status(), StatusCode::OK, "{list}");
        let target = seen.lock().unwrap().pop().unwrap().target;
        assert_eq!(target, format!("GET /api/external/{sent}"));
    }
    proxy.ok(&format!("{TOOL}?"), r#"{"parameters":{}}"#).await;
    assert_eq!(seen.lock().unwrap().pop().unwrap().target, format!("POST /api/external{TOOL}"));
}

#[tokio::test]
async fn an_answer_that_is_not_about_a_job_keeps_the_access_tokens_of_others() {
    let body = r#"{"result":{"access_token":"ya29-0123456789abcdef"},"a":"ya29-0123456789abcdef"}"#;
    let (proxy, _) = upstream(move |_| body.into_response()).await;
    let bare = format!("{TOOL}?pay=x402");
    for path in [TOOL, &bare, "/tools/one/invoke", PURCHASE, "/workflows/one/fetch"] {
        let response = proxy.post(path, r#"{"parameters":{},"more":1}"#).await;
        assert_eq!(response.text().await.unwrap(), body, "{path}");
    }
    for list in ["tools", "workflows"] {
        let url = proxy.url(&format!("/api/external/{list}"));
        let response = proxy.client.get(url).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), body, "{list}");
    }
}

#[tokio::test]
async fn a_call_with_two_proofs_is_refused() {
    let (proxy, seen) = upstream(good).await;
    let envelope = r#"{"session_nonce":"n","signature":"0x"}"#;
    for path in [PURCHASE, TOOL] {
        let problem = problem(pay(&proxy, path, "x-payment", envelope).await).await;
        assert_eq!(problem["code"], "two_proofs");
    }
    for path in ["/tools/one/invoke", "/jobs/list", "/workflows/one/start"] {
        let problem = problem(pay(&proxy, path, "x-payment", r#"{"parameters":{}}"#).await).await;
        assert_eq!(problem["code"], "two_proofs", "{path}");
    }
    let url = proxy.url(&format!("/api/external{PURCHASE}"));
    let twice = proxy.client.post(url).header("x-payment", PAYMENT).header("payment", PAYMENT);
    let problem = problem(twice.body("{}").send().await.unwrap()).await;
    assert_eq!(problem["code"], "two_proofs");
    assert!(!problem.to_string().contains(PAYMENT));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_freeze_of_payments_stops_those_of_clients_and_no_other_call() {
    let (proxy, seen) = upstream(good).await;
    proxy.proxy.store().freeze(FreezeOf::Payments, "ops").await.unwrap();
    let problem = problem(pay(&proxy, PURCHASE, "x-payment", "{}").await).await;
    assert_eq!(problem["code"], "frozen");
    assert!(seen.lock().unwrap().is_empty());
    proxy.ok(PURCHASE, "{}").await;
    proxy.ok(TOOL, r#"{"parameters":{}}"#).await;
}
