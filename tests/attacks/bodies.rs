//! Bodies that are read in two ways, bring their own proof, or forge a line of the message.

use std::sync::{Arc, Mutex};

use agentpmt_proxy::{json::CanonicalJson, sandbox::Settings};
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
};
use serde_json::Value;

use crate::common::{GENERAL_JOB, TestProxy, WORKFLOW_JOB};

/// The bodies that reached the sandbox, without those of sessions.
type Seen = Arc<Mutex<Vec<String>>>;

fn call(path: &str, body: &str) -> String {
    let length = crate::wire::bytes(body, "").len();
    format!(
        "POST /api/external{path} HTTP/1.1\nhost: $HOST\nconnection: close\n\
         content-length: {length}\n\n{body}"
    )
}

fn status(body: &str) -> String {
    call(&format!("/jobs/{GENERAL_JOB}/status"), body)
}

/// A proxy whose upstream is watched.
async fn watched() -> (TestProxy, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let watch = from_fn(move |request: Request, next: Next| {
        let record = record.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            if !parts.uri.path().ends_with("/auth/session") {
                record.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            }
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
    });
    (TestProxy::start_with(Settings::default(), |router| router.layer(watch)).await, seen)
}

#[tokio::test]
async fn a_body_that_has_no_canonical_form_is_refused() {
    let proxy = TestProxy::start().await;
    let nested = |open: &str, close: &str, depth| {
        format!(r#"{{"a":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let deep = [nested("[", "]", 128), nested(r#"{"a":"#, "}", 128), nested("[", "]", 50_000)];
    let unclosed = format!(r#"{{"a":{}"#, "[".repeat(100_000));
    let mut bodies = vec![
        "a=b",
        "[]",
        "[{}]",
        "\"{}\"",
        "1",
        "null",
        "true",
        "{}{}",
        "{},{}",
        "{} x",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":+1}",
        "{\"a\":0x1}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-Infinity}",
        "{\"a\":1e400}",
        "{\"a\":-1e999999999}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\\ud800\"}",
        "{\"\\ud800\":1}",
        "{\"a\":\"\\x41\"}",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"␊\"}",
        "{\"a\":\"␀\"}",
        "{\"a\":1}␀",
        "{\"a\":\"\u{c0}\u{af}\"}",
        "{\"a\":\"\u{ed}\u{a0}\u{80}\"}",
        "{\"a\":\"\u{ff}\"}",
        "{\"a\":1/*b*/}",
        "{\"a\":1}//",
        "\u{ff}\u{fe}{␀}␀",
    ];
    bodies.extend(deep.iter().chain([&unclosed]).map(String::as_str));
    proxy.repels(bodies.iter().map(|body| (body, status(body), "400 invalid_body"))).await;
}

#[tokio::test]
async fn a_field_with_a_value_that_servers_read_differently_is_refused() {
    let proxy = TestProxy::start().await;
    let bodies = [
        r#"{"limit":-1}"#,
        r#"{"limit":0}"#,
        r#"{"limit":1.5}"#,
        r#"{"limit":"1"}"#,
        r#"{"limit":"1\nproduct:x"}"#,
        r#"{"limit":[1]}"#,
        r#"{"limit":{"$gt":0}}"#,
        r#"{"limit":true}"#,
        r#"{"skip":-9223372036854775809}"#,
        r#"{"limit":1,"limit":"x"}"#,
        r#"{"\u006cimit":0}"#,
    ];
    let text = |body| call("/jobs/list", body);
    proxy.repels(bodies.map(|body| (body, text(body), "400 invalid_field"))).await;
}

#[tokio::test]
async fn a_proof_of_the_clients_own_never_goes_upstream_on_a_call_that_is_signed() {
    let (proxy, seen) = watched().await;
    let own = [
        r#"{"signature":"0xbad","request_id":"mine","session_nonce":"mine","wallet_address":null}"#,
        r#"{"signature":"0xbad","signature":"0xbad"}"#,
        r#"{"\u0073ignature":"0xbad","sign\u0061ture":"0xbad"}"#,
        r#"{"signature":{"signature":"0xbad"},"request_id":["mine"],"session_nonce":null}"#,
        r#"{"request_id":"x\naction:job_complete","session_nonce":"x\nrequest:mine"}"#,
    ];
    proxy.signs(own.map(|body| (body, status(body), "200"))).await;
    let reserve = |job: &str| call(&format!("/jobs/{job}/reserve"), own[0]);
    let jobs = [GENERAL_JOB, WORKFLOW_JOB];
    proxy.signs(jobs.map(|job| (job, reserve(job), "200"))).await;
    // Here the whole body is hashed: it is understood, and has no proof_text.
    let complete = |body| call(&format!("/jobs/{GENERAL_JOB}/complete"), body);
    proxy.signs(own.map(|body| (body, complete(body), "422"))).await;
    // Here nothing is signed, and these are fields like any other.
    let create = |body| call(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), body);
    proxy.signs(own.map(|body| (body, create(body), "422"))).await;
    let mut seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3 * own.len() + jobs.len());
    let canonical = |body: &str| String::from(CanonicalJson::parse(body.as_bytes()).unwrap());
    assert_eq!(seen.split_off(2 * own.len() + jobs.len()), own.map(canonical));
    for body in seen.iter() {
        assert!(!body.contains("mine") && !body.contains("\"0xbad\""), "{body}");
        for name in ["signature", "request_id", "session_nonce", "wallet_address"] {
            assert_eq!(body.matches(&format!("\"{name}\":")).count(), 1, "{body}");
        }
    }
}

#[tokio::test]
async fn what_is_hashed_is_what_is_sent_whatever_the_spelling() {
    let (proxy, seen) = watched().await;
    // The sandbox hashes what it reads, so a good answer shows that both read the same.
    let complete = |body: &str| call(&format!("/jobs/{GENERAL_JOB}/complete"), body);
    proxy.signs([("reserve", call(&format!("/jobs/{GENERAL_JOB}/reserve"), ""), "200")]).await;
    let huge = "9".repeat(4_300);
    let bodies = [
        r#"{"proof_text":"a","proof_text":""}"#.to_owned(),
        r#"{"a":{"b":1,"b":2},"a":{"c":[{"d":1,"d":2}]}}"#.to_owned(),
        r#"{"__proto__":{"signature":"x"},"constructor":1}"#.to_owned(),
        r#"{"deep":{"signature":"x","request_id":"y"},"Signature":"z","signature ":"w"}"#
            .to_owned(),
        r#"{"a":"\u2028\u2029\u0000\r\nproduct:x\npayload:y"}"#.to_owned(),
        "{\"a\":\"\u{e2}\u{80}\u{a8}\u{f0}\u{9f}\u{99}\u{82}\"}".to_owned(),
        r#"{"a":1.0,"b":1e3,"c":-0,"d":-0.0,"e":1e-7,"f":12345678901234567890123}"#.to_owned(),
        r#"{"a":9007199254740993,"b":0.1e1,"c":5e-324}"#.to_owned(),
        format!(r#"{{"a":{huge},"b":-{huge},"c":0.{huge}}}"#),
        r#"{"$serde_json::private::Number":"1","$serde_json::private::RawValue":"{"}"#.to_owned(),
        format!(r#"{{"a":{}{}}}"#, "[".repeat(127), "]".repeat(127)),
        format!("{{{}}}", (0..5_000).map(|at| format!("\"{at}\":0")).collect::<Vec<_>>().join(",")),
    ];
    // It is signed and understood, and has no proof_text.
    proxy.signs(bodies.iter().map(|body| (body, complete(body), "422"))).await;
    let first = seen.lock().unwrap()[1].clone();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["proof_text"], "", "the last of two equal names counts");
}

#[tokio::test]
async fn the_same_without_the_trick_is_signed() {
    let proxy = TestProxy::start().await;
    let bodies = ["", "{}", " {}\n", "\u{ef}\u{bb}\u{bf}{}", "{\"a\":1}", "{\"a\":{\"b\":[]}}"];
    proxy.signs(bodies.map(|body| (body, status(body), "200"))).await;
}
