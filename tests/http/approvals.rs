//! Asking what became of a payment that waits for approval.

use std::{sync::Arc, time::Duration};

use agentpmt_proxy::{
    action::Action,
    call::Call,
    operation::Operation,
    policy::Client,
    store::{ApprovalAnswer, PaymentTerms, answer_approval},
    trace::Trace,
    types::Credential,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    agents::{Agent, may, records},
    common::{TestProxy, json as body},
};

/// A call of a client whose payment a person is asked about.
async fn paying(proxy: &TestProxy, agent: &Agent) -> Operation {
    let credential = Credential::Token(agent.token.hash());
    let store = proxy.proxy.store();
    Operation {
        call: Call::new(Action::named("credits_purchase").unwrap(), [], b"{}").unwrap(),
        client: store.client_by(credential, Timestamp::now()).await.unwrap().unwrap(),
        wallet: proxy.proxy.wallets()[0],
        key: None,
        price: None,
        known_at: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(60),
        trace: Arc::new(Trace::new("call-1".parse().unwrap())),
    }
}

fn terms() -> PaymentTerms {
    let address = |digit: &str| format!("0x{}", digit.repeat(40)).parse().unwrap();
    PaymentTerms {
        resource: "https://api.example/credits/purchase".to_owned(),
        network: "eip155:8453".parse().unwrap(),
        asset: address("8"),
        payee: address("1"),
        amount: "12.5".parse().unwrap(),
    }
}

async fn ask(proxy: &TestProxy, agent: &Agent, id: &str) -> (u16, Value) {
    let request = proxy.client.get(proxy.url(&format!("/proxy/approvals/{id}")));
    let response = request.bearer_auth(agent.token.expose()).send().await.unwrap();
    (response.status().as_u16(), body(response).await)
}

#[tokio::test]
async fn a_client_asks_after_its_own_payment_and_can_only_ask() {
    let proxy = TestProxy::start().await;
    let [ci, other] = ["ci", "other"].map(|name| Agent::add(&proxy, &may(name, "all")));
    let ops = Agent::add(&proxy, &Client { admin: true, ..may("ops", "all") });
    let (store, operation) = (proxy.proxy.store(), paying(&proxy, &ci).await);
    let asked = store.approval_of(&operation, [7; 32], terms(), Timestamp::now()).await;
    let asked = asked.unwrap().unwrap();
    let id = asked.id.to_string();
    let (status, shown) = ask(&proxy, &ci, &id).await;
    assert_eq!(
        (status, &shown["state"], &shown["amount"]),
        (200, &json!("waiting"), &json!("12.5"))
    );
    assert_eq!((&shown["action"], &shown["client"]), (&json!("credits_purchase"), &json!("ci")));
    assert_eq!(ask(&proxy, &ops, &id).await, (200, shown));
    for (agent, id) in [(&other, &*id), (&ci, "5ff41667-9cb0-4b43-a080-a7349a6b44ad"), (&ci, "x")] {
        let (status, refused) = ask(&proxy, agent, id).await;
        assert_eq!((status, &refused["code"]), (404, &json!("unknown_approval")), "{id}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let url = proxy.url(&format!("/proxy/approvals/{id}"));
        let request = proxy.client.request(method.parse().unwrap(), url);
        let response = request.bearer_auth(ops.token.expose()).body(r#"{"state":"approved"}"#);
        assert_eq!(response.send().await.unwrap().status(), 405, "{method}");
    }
    let path = proxy.folder().path().join("proxy.db");
    answer_approval(&path, asked.id, ApprovalAnswer::Approved, Timestamp::now()).unwrap().unwrap();
    assert_eq!(ask(&proxy, &ci, &id).await.1["state"], "approved");
    let deeds = records(&proxy, "admin").await;
    let deed = deeds.iter().find(|deed| deed.text("approval").as_deref() == Some(&*id)).unwrap();
    assert_eq!(deed.text("action").as_deref(), Some("payment_approve"));
}
