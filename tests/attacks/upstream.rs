//! An upstream that shows to clients what it was sent, or says more than an answer may.

use std::sync::{Arc, Mutex};

use agentpmt_proxy::sandbox::Settings;
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    agents::records,
    common::{self, GENERAL_JOB, TestProxy, WORKFLOW_JOB},
};

/// A call as it reached the upstream.
#[derive(Clone)]
struct Reached {
    head: String,
    body: String,
}

impl Reached {
    fn field(&self, name: &str) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body[name].as_str().unwrap().to_owned()
    }
}

type Seen = Arc<Mutex<Vec<Reached>>>;

/// A proxy in front of an upstream that answers calls with what it makes of them, except for
/// sessions and reservations.
async fn reflecting(reflect: fn(&Reached) -> Response) -> (TestProxy, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let mirror = from_fn(move |request: Request, next: Next| {
        let record = record.clone();
        async move {
            let path = request.uri().path();
            if path.ends_with("/auth/session") || path.ends_with("/reserve") {
                return next.run(request).await;
            }
            let (parts, body) = request.into_parts();
            let bytes = to_bytes(Body::new(body), usize::MAX).await.unwrap();
            let head = format!("{} {}\n{:#?}", parts.method, parts.uri, parts.headers);
            let reached = Reached { head, body: String::from_utf8(bytes.to_vec()).unwrap() };
            record.lock().unwrap().push(reached.clone());
            reflect(&reached)
        }
    });
    (TestProxy::start_with(Settings::default(), |router| router.layer(mirror)).await, seen)
}

fn same(reached: &Reached) -> Response {
    reached.body.clone().into_response()
}

fn quoted(reached: &Reached) -> Response {
    let answer = json!({"echo": reached.body, "headers": reached.head, "n": 1.0});
    answer.to_string().into_response()
}

fn page(reached: &Reached) -> Response {
    let text = format!("\u{0}<pre>{}\n\n{}</pre>", reached.head, reached.body);
    (StatusCode::UNPROCESSABLE_ENTITY, [&b"\xff"[..], text.as_bytes()].concat()).into_response()
}

fn expected(reached: &Reached) -> Response {
    let nonce = reached.field("session_nonce");
    let message = format!("agentpmt-external\nwallet:x\nsession:{nonce}\nrequest:y");
    let code = "EXTERNAL_SIGNATURE_WALLET_MISMATCH";
    let answer = json!({"detail": {"code": code, "expected_message": message}});
    (StatusCode::UNAUTHORIZED, answer.to_string()).into_response()
}

#[tokio::test]
async fn an_answer_that_repeats_the_request_shows_neither_signature_nor_nonce() {
    for reflect in [same, quoted, page, expected] {
        let (proxy, seen) = reflecting(reflect).await;
        let path = format!("/jobs/{GENERAL_JOB}/status");
        let answer = proxy.post(&path, r#"{"note":"é \u0000"}"#).await.bytes().await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let reached = seen.lock().unwrap()[0].clone();
        for name in ["signature", "session_nonce"] {
            assert!(!answer.contains(&reached.field(name)), "{name} in {answer}");
        }
        assert!(answer.contains("held-by-proxy"), "{answer}");
    }
}

#[tokio::test]
async fn the_rest_of_an_answer_that_repeats_the_request_stays() {
    let (proxy, seen) = reflecting(same).await;
    let path = format!("/jobs/{GENERAL_JOB}/status");
    let answer = proxy.post(&path, r#"{"note":"é \u0000","n":12345678901234567890}"#).await;
    let answer = answer.text().await.unwrap();
    let reached = seen.lock().unwrap()[0].clone();
    let [signature, nonce] = ["signature", "session_nonce"].map(|name| reached.field(name));
    let after = reached.body.replace(&signature, "held-by-proxy").replace(&nonce, "held-by-proxy");
    assert_eq!(answer, after);
}

#[tokio::test]
async fn an_answer_that_repeats_the_request_does_not_show_the_workflow_token() {
    for reflect in [quoted, page] {
        let (proxy, seen) = reflecting(reflect).await;
        proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
        let answer = proxy.post(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), "{}").await;
        let answer = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
        let reached = seen.lock().unwrap()[0].clone();
        // As headers print, which do not know that it is a secret there.
        let token = reached.head.split("Bearer ").nth(1).unwrap().split('"').next().unwrap();
        assert!(token.len() > 16 && !answer.contains(token), "{answer}");
        assert!(answer.contains("Bearer held-by-proxy"), "{answer}");
    }
}

/// Shows the message of another call, as if that were the one to sign.
fn luring(reached: &Reached) -> Response {
    let [wallet, nonce] = ["wallet_address", "session_nonce"].map(|name| reached.field(name));
    let message = format!(
        "agentpmt-external\nwallet:{wallet}\nsession:{nonce}\nrequest:theirs\n\
         action:job_complete\nproduct:{GENERAL_JOB}\npayload:"
    );
    let detail = json!({
        "code": "EXTERNAL_SIGNATURE_WALLET_MISMATCH", "expected_message": message,
        "expected_wallet": wallet, "accepted_paths": ["/external/a"],
    });
    (StatusCode::UNAUTHORIZED, json!({"detail": detail}).to_string()).into_response()
}

#[tokio::test]
async fn a_message_that_the_upstream_shows_is_neither_signed_nor_passed_on() {
    let (proxy, seen) = reflecting(luring).await;
    for (path, body) in [
        ("/jobs/list".to_owned(), "{}"),
        (format!("/jobs/{GENERAL_JOB}/status"), "{}"),
        (format!("/jobs/{GENERAL_JOB}/complete"), r#"{"proof_text":"done"}"#),
    ] {
        seen.lock().unwrap().clear();
        let answer = proxy.post(&path, body).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        let answer = common::json(answer).await;
        assert_eq!(answer["detail"]["expected_message"], "held-by-proxy", "{path}");
        assert_eq!(answer["detail"]["accepted_paths"], json!(["/external/a"]), "the rest stays");
        let reached = seen.lock().unwrap().clone();
        assert_eq!(reached.len(), 1, "{path} was made again");
        assert_ne!(reached[0].field("request_id"), "theirs");
    }
    // Of each call one message was signed: its own.
    let signed = records(&proxy, "signed").await;
    let actions: Vec<_> = signed.iter().filter_map(|record| record.text("action")).collect();
    assert_eq!(actions, ["job_list", "job_status", "job_complete"]);
}

#[tokio::test]
async fn what_to_do_about_a_refusal_is_told_beside_the_answer() {
    let large = r#"{"proof_text":"done","n":9007199254740993}"#;
    let refuse: [fn(&Reached) -> Response; 2] =
        [|_| (StatusCode::PAYMENT_REQUIRED, "{}").into_response(), luring];
    for (refuse, words) in refuse.into_iter().zip(["too few credits", "send it as text"]) {
        let (proxy, _) = reflecting(refuse).await;
        let answer = proxy.post(&format!("/jobs/{GENERAL_JOB}/complete"), large).await;
        assert!(answer.status().is_client_error());
        let headers = answer.headers();
        let advice = headers["x-agentpmt-proxy-advice"].to_str().unwrap();
        assert!(advice.contains(words), "{advice}");
        assert!(!headers.contains_key("x-agentpmt-proxy-error"), "it is the upstream's answer");
    }
}

#[tokio::test]
async fn a_call_that_is_not_signed_goes_up_with_every_field_that_its_client_sent() {
    let (proxy, seen) = reflecting(quoted).await;
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    let wallet = format!("0x{}", "11".repeat(20));
    let body = json!({
        "name": null, "request_id": "mine", "session_nonce": "s", "signature": 1,
        "wallet_address": wallet,
    });
    let path = format!("/jobs/{WORKFLOW_JOB}/workflow/create");
    proxy.ok(&path, body.to_string()).await;
    assert_eq!(seen.lock().unwrap()[0].body, body.to_string());
    // The same names on a signed call are its envelope.
    let signed = proxy.post(&format!("/jobs/{WORKFLOW_JOB}/status"), body.to_string()).await;
    assert_eq!(signed.status(), StatusCode::CONFLICT);
    assert_eq!(signed.headers()["x-agentpmt-proxy-error"], "other_wallet");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_gives_a_browser_no_rights_and_passes_for_none_of_ours() {
    let (proxy, _) = reflecting(|_| {
        let headers = [
            ("set-cookie", "session=theirs"),
            ("www-authenticate", "Basic realm=\"password?\""),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-private-network", "true"),
            ("location", "https://evil.example/"),
            ("refresh", "0; url=https://evil.example/"),
            ("link", "<https://evil.example/>; rel=preload"),
            ("clear-site-data", "\"*\""),
            ("service-worker-allowed", "/"),
            ("alt-svc", "h2=\"evil.example:443\""),
            ("x-agentpmt-proxy-error", "outcome_unknown"),
            ("x-request-id", "theirs"),
            ("proxy-authenticate", "Basic"),
        ];
        (StatusCode::UNAUTHORIZED, headers, "{}").into_response()
    })
    .await;
    let answer = proxy.post("/jobs/list", "").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_ne!(answer.headers()["x-request-id"], "theirs");
    let names = answer.headers().keys().map(|name| name.as_str());
    let known = ["x-request-id", "content-type", "content-length", "date"];
    let foreign: Vec<_> = names.filter(|name| !known.contains(name)).collect();
    assert_eq!(foreign, [""; 0]);
}
