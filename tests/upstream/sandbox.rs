//! The sandbox over real sockets, with a signer of its own.

mod envelope;
mod jobs;
mod workflows;

// Clippy knows test functions, not their helpers; a panic in either is the report.
use std::{slice, sync::Once, time::Duration};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use k256::ecdsa::{RecoveryId, Signature, SigningKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;
use tokio::net::TcpListener;

pub(crate) const GENERAL: &str = "68f0a1c27b3e4d5f60718201";
const WORKFLOW: &str = "68f0a1c27b3e4d5f60718202";
const OTHER_WORKFLOW: &str = "68f0a1c27b3e4d5f60718205";
const SOCIAL: &str = "68f0a1c27b3e4d5f6071820d";

pub(crate) struct Upstream {
    pub(crate) sandbox: Sandbox,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/external", listener.local_addr().unwrap());
        let sandbox = Sandbox::new(settings);
        let served = sandbox.clone();
        tokio::spawn(async move { served.serve(listener).await });
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { sandbox, url, client }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, None, body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        request = request.header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("X-Job-Workflow-Token", token);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_eq!(response.headers()["content-type"], "application/json");
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    /// A wallet with a session of its own.
    pub(crate) async fn agent(&self, seed: u8) -> Agent<'_> {
        let wallet = Wallet::new(seed);
        let nonce = self.session(&wallet).await;
        Agent { upstream: self, wallet, nonce }
    }

    async fn session(&self, wallet: &Wallet) -> String {
        let body = json!({"wallet_address": wallet.address()});
        let session = ok(self.post("/auth/session", &body).await);
        session["session_nonce"].as_str().unwrap().to_owned()
    }
}

pub(crate) struct Wallet(SigningKey);

impl Wallet {
    pub(crate) fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub(crate) fn address(&self) -> String {
        let point = self.0.verifying_key().to_sec1_point(false);
        format!("0x{}", hex::encode(&Keccak256::digest(&point.as_bytes()[1..])[12..]))
    }

    pub(crate) fn sign(&self, text: &str) -> (Signature, RecoveryId) {
        let signed = format!("\x19Ethereum Signed Message:\n{}{text}", text.len());
        self.sign_digest(&Keccak256::digest(signed).into())
    }

    pub(crate) fn sign_digest(&self, digest: &[u8; 32]) -> (Signature, RecoveryId) {
        self.0.sign_prehash_recoverable(digest)
    }
}

pub(crate) fn wire(signature: &Signature, v: u8) -> String {
    format!("0x{}{v:02x}", hex::encode(signature.to_bytes()))
}

/// What is called and what is signed; tests change one of the two to make a call wrong.
pub(crate) struct Call<'a> {
    pub(crate) path: String,
    /// With none, method and path are signed.
    pub(crate) action: &'a str,
    pub(crate) product: &'a str,
    /// With `null`, the line is empty.
    pub(crate) payload: Value,
    /// What is sent, if it is not the payload.
    pub(crate) body: Option<Value>,
}

impl<'a> Call<'a> {
    fn list(payload: Value) -> Self {
        Self { path: "/jobs/list".into(), action: "job_list", product: "-", payload, body: None }
    }

    fn page(limit: u64, skip: u64) -> Self {
        Self::list(json!({"limit": limit, "skip": skip}))
    }

    fn job(action: &'a str, job_id: &'a str, payload: Value) -> Self {
        let verb = action.strip_prefix("job_").unwrap();
        Self {
            path: format!("/jobs/{job_id}/{verb}"),
            action,
            product: job_id,
            payload,
            body: None,
        }
    }

    /// A use of a tool by its slug and that of its action.
    pub(crate) fn tool(slugs: &str, parameters: Value) -> Self {
        let (tool, action) = slugs.split_once('/').unwrap();
        let path = format!("/tools/{tool}/actions/{action}/invoke");
        let body = Some(json!({"parameters": parameters}));
        Self { path, action: "", product: "", payload: parameters, body }
    }
}

pub(crate) struct Agent<'a> {
    upstream: &'a Upstream,
    pub(crate) wallet: Wallet,
    nonce: String,
}

impl Agent<'_> {
    /// The payloads here are plain ASCII without floats, and the maps of `serde_json` are sorted,
    /// so their text is canonical.
    fn message(&self, call: &Call<'_>, request_id: &str) -> String {
        let payload = match &call.payload {
            Value::Null => String::new(),
            payload => hex::encode(Sha256::digest(payload.to_string())),
        };
        self.message_with(call, request_id, &payload)
    }

    fn message_over(&self, call: &Call<'_>, request_id: &str, canonical: &str) -> String {
        self.message_with(call, request_id, &hex::encode(Sha256::digest(canonical)))
    }

    fn message_with(&self, call: &Call<'_>, request_id: &str, payload: &str) -> String {
        let (address, nonce) = (self.wallet.address(), &self.nonce);
        let bound = match call {
            Call { action: "", path, .. } => format!("method:POST\npath:/external{path}"),
            Call { action, product, .. } => format!("action:{action}\nproduct:{product}"),
        };
        format!(
            "agentpmt-external\nwallet:{address}\nsession:{nonce}\nrequest:{request_id}\n{bound}\n\
             payload:{payload}"
        )
    }

    pub(crate) fn body(&self, call: &Call<'_>, request_id: &str) -> Value {
        self.body_signed_over(call, request_id, &self.message(call, request_id))
    }

    fn body_signed_over(&self, call: &Call<'_>, request_id: &str, message: &str) -> Value {
        let (signature, id) = self.wallet.sign(message);
        let mut body = call.body.clone().unwrap_or_else(|| call.payload.clone());
        body["wallet_address"] = self.wallet.address().into();
        body["session_nonce"] = self.nonce.clone().into();
        body["request_id"] = request_id.into();
        body["signature"] = wire(&signature, 27 + id.to_byte()).into();
        body
    }

    pub(crate) async fn call(&self, call: Call<'_>) -> (StatusCode, Value) {
        let request_id = uuid::Uuid::new_v4().to_string();
        self.upstream.post(&call.path, &self.body(&call, &request_id)).await
    }

    async fn list(&self) -> Value {
        ok(self.call(Call::page(50, 0)).await)
    }

    pub(crate) async fn reserve(&self, job_id: &str) -> (StatusCode, Value) {
        self.call(Call::job("job_reserve", job_id, json!({}))).await
    }

    async fn status(&self, job_id: &str) -> Value {
        ok(self.call(Call::job("job_status", job_id, json!({}))).await)
    }

    pub(crate) async fn complete(&self, job_id: &str, payload: Value) -> (StatusCode, Value) {
        self.call(Call::job("job_complete", job_id, payload)).await
    }

    /// Reserves the general job; the reservation's id.
    async fn reserve_general(&self) -> String {
        reservation_id(&ok(self.reserve(GENERAL).await))
    }

    /// Reserves the workflow job; the reservation's id and the value of the token's header.
    async fn reserve_workflow(&self) -> (String, String) {
        let reservation = ok(self.reserve(WORKFLOW).await);
        let token = reservation["workflow_access"]["access_token"].as_str().unwrap();
        (reservation_id(&reservation), format!("Bearer {token}"))
    }

    /// A call on the workflow job's workflows.
    async fn workflow(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let path = format!("/jobs/{WORKFLOW}/workflow/{path}");
        self.upstream.send(method, &path, Some(token), body.to_string()).await
    }

    async fn create(&self, token: &str, body: &Value) -> (StatusCode, Value) {
        self.workflow(Method::POST, "create", token, body).await
    }

    async fn publish(&self, token: &str, workflow_id: &str) -> (StatusCode, Value) {
        self.workflow(Method::POST, &format!("{workflow_id}/publish"), token, &json!({})).await
    }

    async fn draft(&self, token: &str) -> String {
        let draft = ok(self.create(token, &definition()).await);
        assert_eq!(draft["status"], "draft");
        draft["workflow_id"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn reservation_id(reservation: &Value) -> String {
    reservation["job"]["reservation_id"].as_str().unwrap().to_owned()
}

fn definition() -> Value {
    json!({
        "name": "Ticket",
        "description": "Files a ticket",
        "nodes": [node("read"), {"id": "file", "type": "prompt", "label": "File", "prompt": {}}],
        "edges": [{"id": "e1", "from": "read", "to": "file"}],
    })
}

/// A node with a tool.
fn node(id: &str) -> Value {
    let tool = json!({"product_id": "p1", "product_name": "Mail", "parameters": r#"{"to": 1}"#});
    json!({"id": id, "type": "tool", "label": id, "tool": tool})
}

fn job_ids(list: &Value) -> Vec<&str> {
    list["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect()
}

#[track_caller]
pub(crate) fn ok((status, body): (StatusCode, Value)) -> Value {
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

#[track_caller]
pub(crate) fn assert_refused((status, body): &(StatusCode, Value), expected: u16, code: &str) {
    assert_eq!((status.as_u16(), &body["detail"]["code"]), (expected, &json!(code)), "{body}");
    assert!(body["detail"]["message"].is_string(), "{body}");
}

/// That the answer is FastAPI's list and names exactly these places.
#[track_caller]
pub(crate) fn assert_fields((status, body): &(StatusCode, Value), places: &[Value]) {
    assert_eq!(status.as_u16(), 422, "{body}");
    let errors = body["detail"].as_array().unwrap();
    let found: Vec<&Value> = errors.iter().map(|error| &error["loc"]).collect();
    assert_eq!(found, places.iter().collect::<Vec<_>>(), "{body}");
    assert!(errors.iter().all(|error| error["msg"].is_string() && error["type"].is_string()));
}

/// Asks again until there is an answer.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let upstream = Upstream::start().await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let texts = ["", "[]", "7", "{", "null", r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#, &deep];
    for body in texts.map(str::as_bytes).into_iter().chain([b"{\"a\":\"\xff\"}".as_slice()]) {
        let refused = upstream.send(Method::POST, "/jobs/list", None, body.to_vec()).await;
        assert_fields(&refused, &[json!(["body"])]);
    }
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused() {
    let upstream = Upstream::start().await;
    let body = json!({"wallet_address": "x".repeat(1024 * 1024)});
    let (status, body) = upstream.post("/auth/session", &body).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body["detail"].is_string());
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_the_servers_words() {
    let upstream = Upstream::start().await;
    for path in ["/jobs", "/jobs/list/", "/jobs/a/b"] {
        let refused = upstream.post(path, &json!({})).await;
        assert_eq!(refused, (StatusCode::NOT_FOUND, json!({"detail": "Not Found"})));
    }
    let refused = upstream.send(Method::GET, "/jobs/list", None, "").await;
    let detail = json!({"detail": "Method Not Allowed"});
    assert_eq!(refused, (StatusCode::METHOD_NOT_ALLOWED, detail));
}

#[tokio::test]
async fn every_request_is_counted() {
    let upstream = Upstream::start().await;
    upstream.agent(1).await.list().await;
    upstream.post("/nowhere", &json!({})).await;
    let counts = upstream.sandbox.counts();
    assert_eq!((counts.requests, counts.sessions), (3, 1));
}
