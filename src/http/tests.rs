//! Calls whose signer fails, through HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    http::StatusCode,
    routing::{any, post},
};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    signer::{Script, Scripted, Signer},
    store::{Journal, Store},
    types::SealKey,
    upstream::Upstream,
};

/// A proxy with a scripted signer, in front of an upstream that counts what it is sent.
struct World {
    verdicts: UnboundedSender<Script>,
    sent: Arc<AtomicUsize>,
    url: String,
    proxy: Arc<Proxy>,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let answer = any(async move || {
            count.fetch_add(1, SeqCst);
            "{}"
        });
        let begin = post(async || r#"{"session_nonce":"n","expires_in":900}"#);
        let upstream = Router::new().route(SESSION_PATH, begin).fallback(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, upstream).await });
        let folder = tempfile::tempdir().unwrap();
        let seal_key = SealKey::new([1; 32].into());
        let store = Store::open(&folder.path().join("proxy.db"), &[seal_key]).unwrap();
        let (signer, verdicts) = Scripted::new();
        let upstream = Upstream::on_this_machine(port, Duration::from_secs(60));
        let proxy = Arc::new(Proxy::new(Signer::Scripted(signer), upstream, store, false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/external/jobs/j", listener.local_addr().unwrap());
        let live = Live::new(None, Guard::default());
        let instance = Instance::new(Vec::new(), false, live, || Err(String::new()));
        let limits = Limits::default();
        let router = router(proxy.clone(), limits, instance.clone());
        let (listeners, stop) = (vec![Listener::Tcp(listener)], CancellationToken::new());
        tokio::spawn(serve(listeners, router, limits, instance, Workers::current(), stop));
        Self { verdicts, sent, url, proxy, folder }
    }

    async fn reserve(&self) -> Response {
        let client = Client::builder().no_proxy().build().unwrap();
        let call = client.post(format!("{}/reserve", self.url)).header("idempotency-key", "k");
        call.send().await.unwrap()
    }

    /// The kinds of the records, or what came of a call.
    async fn records(&self) -> Vec<String> {
        self.proxy.flush().await;
        let journal = Journal::open(&self.folder.path().join("proxy.db")).unwrap();
        let records = journal.tail(100).unwrap();
        let fields = records.iter().map(|record| record.fields().unwrap());
        let word = |name| move |fields: &crate::json::Object| fields.text(name);
        fields.map(|f| word("outcome")(&f).or_else(|| word("kind")(&f)).unwrap()).collect()
    }
}

#[tokio::test]
async fn what_is_not_signed_is_not_sent_and_its_key_can_be_used_again() {
    let world = World::new().await;
    world.verdicts.send(Script::Fail).unwrap();
    let response = world.reserve().await;
    assert_eq!(
        (response.status(), response.headers()["retry-after"].as_bytes()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"1"[..])
    );
    let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!((&problem["code"], &problem["retry"]), (&json!("not_signed"), &json!("safe")));
    assert!(problem["detail"].as_str().unwrap().contains("no answer of the key service"));
    assert_eq!(world.sent.load(SeqCst), 0);
    assert_eq!(world.records().await, ["signed", "not_signed"]);

    world.verdicts.send(Script::Sign).unwrap();
    assert_eq!(world.reserve().await.status(), StatusCode::OK);
    assert_eq!(world.sent.load(SeqCst), 1);
    assert_eq!(world.records().await, ["signed", "not_signed", "signed", "answered"]);
}

#[tokio::test]
async fn a_panic_after_a_call_has_begun_leaves_its_key_usable_at_once() {
    let world = World::new().await;
    world.verdicts.send(Script::Panic).unwrap();
    let response = world.reserve().await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    // The key is in doubt, since the record says that the call was about to be sent; it is not in use. Here
    // nothing shows what became of it.
    world.verdicts.send(Script::Sign).unwrap();
    let problem: Value =
        serde_json::from_slice(&world.reserve().await.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["code"], "outcome_unknown");
}
