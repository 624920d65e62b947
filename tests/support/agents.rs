//! Clients of a proxy that are known by their tokens, and what the journal says of them.

#![allow(dead_code, clippy::unwrap_used)]

use agentpmt_proxy::{
    action::{ACTIONS, Action, Effect},
    json::Object,
    policy::Client,
    store::{Clients, Journal},
    types::{ClientName, ClientToken, Credential},
};
use jiff::Timestamp;
use reqwest::Response;
use serde_json::Value;

use crate::common::{TestProxy, WORKFLOW, json, problem};

/// A proof that every general job takes.
pub(crate) const PROOF: &str = r#"{"proof_text":"done"}"#;

/// A client with its token.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) name: ClientName,
    pub(crate) token: ClientToken,
    client: reqwest::Client,
    base: String,
}

/// A client that may make these calls, and has no limits.
pub(crate) fn may(name: &str, allow: &str) -> Client {
    let (name, allow) = (name.parse().unwrap(), allow.parse().unwrap());
    Client { name, allow, admin: false, ..Client::local() }
}

/// The clients of a proxy's store, as a command would open them.
pub(crate) fn clients(proxy: &TestProxy) -> Clients {
    Clients::open(&proxy.folder().path().join("proxy.db")).unwrap()
}

/// The records of a kind, in order, once all that was done is on record.
pub(crate) async fn records(proxy: &TestProxy, kind: &str) -> Vec<Object> {
    proxy.proxy.flush().await;
    let journal = Journal::open(&proxy.folder().path().join("proxy.db")).unwrap();
    journal.verify().unwrap();
    let records = journal.tail(u32::MAX).unwrap();
    let fields = records.iter().map(|record| record.fields().unwrap());
    fields.filter(|fields| fields.text("kind").as_deref() == Some(kind)).collect()
}

/// These fields of the records of denied calls, in order.
pub(crate) async fn denials<const N: usize>(
    proxy: &TestProxy,
    fields: [&str; N],
) -> Vec<[String; N]> {
    let denied = records(proxy, "denied").await;
    let text = |record: &Object, name| record.text(name).unwrap_or_else(|| "-".to_owned());
    denied.iter().map(|record| fields.map(|name| text(record, name))).collect()
}

impl Agent {
    /// Adds a client to a proxy.
    pub(crate) fn add(proxy: &TestProxy, client: &Client) -> Self {
        let token = ClientToken::random();
        let credential = Credential::Token(token.hash());
        clients(proxy).add(client, &credential, Timestamp::now()).unwrap();
        let name = client.name.clone();
        Self { name, token, client: proxy.client.clone(), base: proxy.url("") }
    }

    /// The same client, calling another proxy.
    pub(crate) fn at(&self, proxy: &TestProxy) -> Self {
        Self { client: proxy.client.clone(), base: proxy.url(""), ..self.clone() }
    }

    /// Posts a body to a path under `/api/external`.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Response {
        self.post_with("x-nothing", "", path, body).await
    }

    /// The same with one more header.
    pub(crate) async fn post_with(
        &self,
        name: &str,
        value: &str,
        path: &str,
        body: &str,
    ) -> Response {
        let request = self.client.post(format!("{}/api/external{path}", self.base));
        let request = request.bearer_auth(self.token.expose()).header(name, value);
        request.body(body.to_owned()).send().await.unwrap()
    }

    /// The answer to a call that has to be good.
    pub(crate) async fn ok(&self, path: &str, body: &str) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let value = json(response).await;
        assert!(status.is_success(), "{} at {path}: {status} {value}", self.name);
        value
    }

    /// The status and the code of a call that has to be refused by the proxy.
    pub(crate) async fn refused(&self, path: &str, body: &str) -> (u16, String) {
        let problem = problem(self.post(path, body).await).await;
        let status = problem["status"].as_u64().unwrap();
        (status.try_into().unwrap(), problem["code"].as_str().unwrap().to_owned())
    }

    /// The jobs that it is shown as reserved.
    pub(crate) async fn held(&self) -> Vec<String> {
        let rows = self.reservations().await;
        rows.iter().map(|row| row["job_id"].as_str().unwrap().to_owned()).collect()
    }

    /// The reservations that it is shown.
    pub(crate) async fn reservations(&self) -> Vec<Value> {
        let request = self.client.get(format!("{}/proxy/reservations", self.base));
        let response = request.bearer_auth(self.token.expose()).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        json(response).await["reservations"].as_array().unwrap().clone()
    }

    pub(crate) async fn reserve(&self, job: &str) -> Response {
        self.post(&format!("/jobs/{job}/reserve"), "").await
    }

    /// Completes a general job under an idempotency key.
    pub(crate) async fn complete(&self, job: &str, key: &str) -> Response {
        self.post_with("idempotency-key", key, &format!("/jobs/{job}/complete"), PROOF).await
    }

    /// Makes a call of the table on a job, with a body that would do.
    pub(crate) async fn call(&self, action: &'static Action, job: &str) -> Response {
        let ids = [job, "w1"].map(|id| id.parse().unwrap());
        let query = if action.is_paid_row(ACTIONS) { "?pay=x402" } else { "" };
        let url = format!("{}{}{query}", self.base, action.path_with(&ids));
        let request = self.client.request(action.method.clone(), url);
        let request = request.bearer_auth(self.token.expose());
        let has = |name| action.body.iter().any(|field| field.name == name);
        let body = match action.effect {
            Effect::Submits => PROOF,
            _ if has("parameters") => r#"{"parameters":{}}"#,
            _ if has("nodes") => WORKFLOW,
            _ => "",
        };
        request.body(body).send().await.unwrap()
    }
}
