//! The journal, against what really reached the upstream.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentpmt_proxy::{
    json::{CanonicalJson, Object},
    policy::Client,
    sandbox::{Sandbox, Settings},
    store::Journal,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::common::{self, GENERAL_JOB, TestProxy, WORKFLOW, WORKFLOW_JOB, serve, serve_sandbox};

/// The records of a kind, in order.
fn records(folder: &Path, kind: &str) -> Vec<Object> {
    let journal = Journal::open(&folder.join("proxy.db")).unwrap();
    journal.verify().unwrap();
    let records = journal.tail(10_000).unwrap();
    let fields = records.iter().map(|record| record.fields().unwrap());
    fields.filter(|fields| fields.text("kind").as_deref() == Some(kind)).collect()
}

fn outcome_of(folder: &Path, request_id: &str) -> String {
    let outcomes = records(folder, "outcome");
    let of = |fields: &&Object| fields.text("request_id").as_deref() == Some(request_id);
    outcomes.iter().find(of).unwrap().text("outcome").unwrap()
}

/// A request that arrived at the sandbox.
#[derive(Clone)]
struct Arrived {
    path: String,
    body: Value,
    headers: http::HeaderMap,
    /// The request ids that were on record by then.
    on_record: Vec<String>,
}

type Seen = Arc<Mutex<Vec<Arrived>>>;

fn watched(router: Router, folder: Arc<TempDir>, seen: Seen) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (folder, seen) = (folder.clone(), seen.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            let signed = records(folder.path(), "signed");
            let arrived = Arrived {
                path: parts.uri.path().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap(),
                headers: parts.headers.clone(),
                on_record: signed.iter().filter_map(|fields| fields.text("request_id")).collect(),
            };
            seen.lock().unwrap().push(arrived);
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
    }))
}

/// A proxy whose calls are watched where they arrive, and what was seen.
async fn watched_proxy() -> (TestProxy, Seen) {
    let (folder, seen) = (Arc::new(tempfile::tempdir().unwrap()), Seen::default());
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(watched(sandbox.router(), folder.clone(), seen.clone())).await;
    let choose = |options: &mut common::Options| options.folder = folder;
    (TestProxy::in_front_of(sandbox, upstream, choose).await, seen)
}

async fn do_everything(proxy: &TestProxy) {
    proxy.ok("/jobs/list", r#"{"limit":3}"#).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    proxy
        .ok(&format!("/jobs/{GENERAL_JOB}/complete"), r#"{"proof_text":"the-secret-proof"}"#)
        .await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/status"), "").await;
    let refused = proxy.post("/jobs/nowhere/status", "").await;
    assert_eq!(refused.status().as_u16(), 404);
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
    proxy.proxy.drained().await;
}

#[tokio::test]
async fn every_call_is_on_record_with_the_request_id_that_arrived_and_its_outcome() {
    let (proxy, seen) = watched_proxy().await;
    do_everything(&proxy).await;
    let folder = proxy.folder();
    let (signed, outcomes) = (records(folder.path(), "signed"), records(folder.path(), "outcome"));
    let seen = seen.lock().unwrap().clone();
    let calls: Vec<_> = seen.iter().filter(|seen| !seen.path.ends_with("/session")).collect();
    assert_eq!((signed.len(), outcomes.len(), calls.len()), (7, 7, 7));
    let rows = [
        ("job_list", None, 200),
        ("job_reserve", Some(GENERAL_JOB), 200),
        ("job_complete", Some(GENERAL_JOB), 200),
        ("job_status", Some(GENERAL_JOB), 200),
        ("job_status", Some("nowhere"), 404),
        ("job_reserve", Some(WORKFLOW_JOB), 200),
        ("job_workflow_create", Some(WORKFLOW_JOB), 200),
    ];
    for (index, (action, product, status)) in rows.into_iter().enumerate() {
        let (entry, call) = (&signed[index], calls[index]);
        let text = |name: &str| entry.text(name);
        assert_eq!(text("client").unwrap(), "local");
        assert_eq!(text("wallet").unwrap(), proxy.proxy.wallet_of(&Client::local()).to_string());
        assert_eq!(text("action").unwrap(), action);
        assert_eq!(text("product").as_deref(), product);
        let id = text("request_id").unwrap();
        if let Some(arrived) = call.body["request_id"].as_str() {
            assert_eq!(id, arrived, "{action}");
        }
        let outcome = &outcomes[index];
        assert_eq!(outcome.text("request_id").unwrap(), id);
        assert_eq!(outcome.text("outcome").unwrap(), "answered");
        assert_eq!(outcome.field("status").unwrap().as_str(), status.to_string());
        assert!(outcome.field("milliseconds").is_some());
    }
    // What was signed of the completion is all that arrived but the envelope.
    let mut payload = calls[2].body.as_object().unwrap().clone();
    for name in ["wallet_address", "session_nonce", "request_id", "signature"] {
        payload.remove(name).unwrap();
    }
    let payload = CanonicalJson::parse(Value::Object(payload).to_string().as_bytes()).unwrap();
    assert_eq!(signed[2].text("payload_hash").unwrap(), payload.hash().to_string());
}

#[tokio::test]
async fn a_change_is_on_record_before_it_arrives() {
    let (proxy, seen) = watched_proxy().await;
    do_everything(&proxy).await;
    let seen = seen.lock().unwrap();
    let changes = ["/reserve", "/complete"];
    let is_change = |arrived: &&Arrived| changes.iter().any(|end| arrived.path.ends_with(end));
    let mut count = 0;
    for arrived in seen.iter().filter(is_change) {
        let id = arrived.body["request_id"].as_str().unwrap();
        assert!(arrived.on_record.iter().any(|on_record| on_record == id), "{}", arrived.path);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn neither_signatures_nor_nonces_nor_bodies_nor_tokens_are_in_the_files() {
    let (proxy, seen) = watched_proxy().await;
    do_everything(&proxy).await;
    let mut secrets = vec!["the-secret-proof".to_owned()];
    let mut id = String::new();
    for arrived in seen.lock().unwrap().iter() {
        let text = |name: &str| arrived.body[name].as_str().map(str::to_owned);
        secrets.extend(text("signature").map(|hex| hex.trim_start_matches("0x").to_owned()));
        secrets.extend(text("session_nonce"));
        id = text("request_id").unwrap_or(id);
        let token = arrived.headers.get("x-job-workflow-token");
        let token = token.map(|token| token.to_str().unwrap().trim_start_matches("Bearer "));
        secrets.extend(token.map(str::to_owned));
    }
    assert_eq!(secrets.len(), 1 + 2 * 6 + 1);
    let mut found_id = false;
    for file in fs::read_dir(proxy.folder().path()).unwrap() {
        let Ok(bytes) = fs::read(file.unwrap().path()) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        assert!(!secrets.iter().any(|secret| text.contains(secret.as_str())));
        found_id |= text.contains(&id);
    }
    assert!(found_id, "the search finds what is there in the clear");
}

#[tokio::test]
async fn what_found_no_upstream_was_not_sent() {
    let sandbox = Sandbox::new(Settings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = sandbox.clone();
    let server = tokio::spawn(async move { served.serve(listener).await });
    let proxy = TestProxy::in_front_of(sandbox, address, |options| {
        options.upstream.change_timeout = Duration::from_secs(1);
    })
    .await;
    proxy.ok("/jobs/list", "").await;
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());

    let response = proxy.post(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    assert_eq!(common::problem(response).await["retry"], "safe");
    proxy.proxy.drained().await;
    let folder = proxy.folder();
    let signed = records(folder.path(), "signed");
    assert!(signed.len() >= 2);
    for entry in &signed[1..] {
        assert_eq!(entry.text("action").unwrap(), "job_reserve");
        assert_eq!(outcome_of(folder.path(), &entry.text("request_id").unwrap()), "not_sent");
    }
}

#[tokio::test]
async fn of_what_was_cut_the_outcome_is_unknown() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    proxy.sandbox.inject("cut_after:job_reserve:1".parse().unwrap());
    proxy.post(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    proxy.proxy.drained().await;
    let folder = proxy.folder();
    let signed = records(folder.path(), "signed");
    let actions: Vec<_> = signed.iter().map(|entry| entry.text("action").unwrap()).collect();
    assert_eq!(actions, ["job_reserve", "job_status", "job_reserve"]);
    let outcomes = signed.iter().map(|entry| entry.text("request_id").unwrap());
    let outcomes: Vec<_> = outcomes.map(|id| outcome_of(folder.path(), &id)).collect();
    assert_eq!(outcomes, ["unknown", "answered", "answered"]);
}
