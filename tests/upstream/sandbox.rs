//! The sandbox over real sockets, with a signer of its own.

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
async fn a_general_job_goes_from_open_to_submitted() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    assert!(job_ids(&agent.list().await).contains(&GENERAL));

    let reservation = ok(agent.reserve(GENERAL).await);
    assert!(reservation["job"]["job_instructions"].is_string());
    assert_eq!(reservation["job"]["status"], "reserved");
    assert_eq!(reservation["workflow_access"], Value::Null);
    let status = agent.status(GENERAL).await;
    assert_eq!(
        (&status["has_active_reservation"], &status["can_submit"]),
        (&true.into(), &true.into())
    );
    assert_eq!(status["submission"], Value::Null);

    let proof = json!({
        "proof_text": "Three links lead nowhere",
        "reservation_id": reservation_id(&reservation),
        "social_posts": [{"url": "https://post.example/1", "likes": 3}],
    });
    let done = ok(agent.complete(GENERAL, proof).await);
    assert_eq!(done["job"], json!({"job_id": GENERAL, "status": "submitted"}));
    assert_eq!(done["submission"]["status"], "submitted");
    let status = agent.status(GENERAL).await;
    assert_eq!(status["has_active_reservation"], false);
    assert_eq!(status["submission"]["submission_id"], done["submission"]["submission_id"]);
    assert_eq!(upstream.sandbox.submissions(GENERAL), 1);
}

#[tokio::test]
async fn a_workflow_job_takes_a_published_workflow() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (reservation_id, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    ok(agent.workflow(Method::PUT, &id, &token, &definition()).await);
    assert_eq!(ok(agent.publish(&token, &id).await)["status"], "published");

    let proof = json!({"proof_text": "x", "reservation_id": reservation_id, "workflow_id": id});
    ok(agent.complete(WORKFLOW, proof).await);
    let late = agent.create(&token, &definition()).await;
    assert_refused(&late, 403, "WORKFLOW_TOKEN_INVALID");
}

#[tokio::test]
async fn a_submission_turns_approved_and_pays() {
    let review = Duration::from_millis(50);
    let upstream = Upstream::with(Settings { review, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    let reservation = ok(agent.reserve(GENERAL).await);
    let proof = json!({"proof_text": "done", "reservation_id": reservation_id(&reservation)});
    ok(agent.complete(GENERAL, proof).await);
    let status = until(async || {
        let status = agent.status(GENERAL).await;
        (status["submission"]["status"] == "approved").then_some(status)
    })
    .await;
    assert_eq!(status["job"]["status"], "approved");
    let credits = &reservation["job"]["reward_credits"];
    let (payout, wallet) = (&status["payout"], json!(agent.wallet.address()));
    assert_eq!((&payout["status"], &status["wallet_address"]), (&json!("completed"), &wallet));
    assert_eq!((&payout["reward_credits"], &payout["wallet_balance_credits"]), (credits, credits));
    assert!(payout["paid_at"].is_string());
    assert_refused(&agent.reserve(GENERAL).await, 409, "JOB_NOT_OPEN");
}

#[tokio::test]
async fn a_session_states_its_wallet_and_its_end() {
    let upstream = Upstream::start().await;
    let address = Wallet::new(1).address();
    let upper = format!("0x{}", address[2..].to_uppercase());
    let session = ok(upstream.post("/auth/session", &json!({"wallet_address": upper})).await);
    assert_eq!(session["wallet_address"], json!(address));
    assert_eq!(session["expires_in"], 900);
    let end: jiff::Timestamp = session["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(end > jiff::Timestamp::now());

    for body in [json!({}), json!({"wallet_address": 5}), json!({"wallet_address": "0x12"})] {
        let refused = upstream.post("/auth/session", &body).await;
        assert_fields(&refused, &[json!(["body", "wallet_address"])]);
    }
}

#[tokio::test]
async fn the_list_shows_open_jobs_by_page() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let all = agent.list().await;
    let ids = job_ids(&all);
    assert_eq!((ids.len(), &all["total"]), (15, &json!(15)));
    assert!(ids.iter().all(|id| id.len() == 24 && hex::decode(id).is_ok()));
    let jobs = all["jobs"].as_array().unwrap();
    for job_type in ["general", "workflow_creation", "social_share"] {
        assert!(jobs.iter().any(|job| job["job_type"] == job_type), "{job_type}");
    }
    assert!(jobs.iter().all(|job| job.get("job_instructions").is_none()));

    ok(upstream.agent(2).await.reserve(ids[0]).await);
    let page = ok(agent.call(Call::page(2, 13)).await);
    assert_eq!(job_ids(&page), [ids[14]]);
    assert_eq!([&page["limit"], &page["skip"], &page["total"]], [2, 13, 14]);
}

#[tokio::test]
async fn a_page_outside_its_limits_is_refused_by_field() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (limit, skip) = (json!(["body", "limit"]), json!(["body", "skip"]));
    let cases = [
        (json!({"limit": 0, "skip": 0}), vec![limit.clone()]),
        (json!({"limit": 101, "skip": 0}), vec![limit.clone()]),
        (json!({"limit": true, "skip": 0}), vec![limit.clone()]),
        (json!({"limit": "5", "skip": -1}), vec![limit.clone(), skip.clone()]),
        (json!({}), vec![limit, skip]),
    ];
    for (payload, places) in cases {
        assert_fields(&agent.call(Call::list(payload)).await, &places);
    }
    assert_eq!(job_ids(&ok(agent.call(Call::page(100, i64::MAX as u64)).await)), [""; 0]);
}

#[tokio::test]
async fn fields_beside_a_fixed_payload_are_not_signed() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    for call in [Call::page(5, 0), Call::job("job_reserve", GENERAL, json!({}))] {
        let mut body = agent.body(&call, call.action);
        body["note"] = "not part of the payload".into();
        ok(upstream.post(&call.path, &body).await);
    }
}

#[tokio::test]
async fn text_outside_ascii_is_hashed_in_its_escaped_form() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let id = agent.reserve_general().await;
    let payload = json!({"proof_text": "grüß 😀", "reservation_id": id});
    let canonical =
        format!(r#"{{"proof_text":"gr\u00fc\u00df \ud83d\ude00","reservation_id":"{id}"}}"#);
    let call = Call::job("job_complete", GENERAL, payload);
    let message = agent.message_over(&call, "r1", &canonical);
    ok(upstream.post(&call.path, &agent.body_signed_over(&call, "r1", &message)).await);
}

#[tokio::test]
async fn an_incomplete_or_unreadable_envelope_is_malformed() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let good = agent.body(&Call::page(5, 0), "r1");
    for name in ["wallet_address", "session_nonce", "request_id", "signature"] {
        for value in [None, Some(json!(7)), Some(json!("")), Some(json!("a\nb"))] {
            let mut body = good.clone();
            match value {
                Some(value) => body[name] = value,
                None => drop(body.as_object_mut().unwrap().remove(name)),
            }
            let refused = upstream.post("/jobs/list", &body).await;
            assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_MALFORMED");
        }
    }
    ok(upstream.post("/jobs/list", &good).await);
}

#[tokio::test]
async fn only_a_low_s_with_v_27_or_28_is_a_signature() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let call = Call::page(5, 0);
    let (low, id) = agent.wallet.sign(&agent.message(&call, "r1"));
    let high = Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
    let (good, parity) = (wire(&low, 27 + id.to_byte()), id.to_byte());
    let wrong = [
        wire(&low, parity),
        wire(&low, 29 + parity),
        wire(&high, 27 + (parity ^ 1)),
        format!("0x{}1b", "00".repeat(64)),
        format!("0x{}1b", "ff".repeat(64)),
        good[2..].to_owned(),
        good[..130].to_owned(),
    ];
    let mut body = agent.body(&call, "r1");
    for signature in wrong {
        body["signature"] = signature.into();
        let refused = upstream.post("/jobs/list", &body).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_MALFORMED");
    }
    body["signature"] = good.into();
    ok(upstream.post("/jobs/list", &body).await);
}

#[tokio::test]
async fn a_signature_over_another_text_is_a_mismatch() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let reserve = || Call::job("job_reserve", GENERAL, json!({}));
    for call in [
        Call { action: "job_status", ..reserve() },
        Call { product: WORKFLOW, ..reserve() },
        Call { product: "-", ..reserve() },
    ] {
        let refused = agent.call(call).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    }
}

#[tokio::test]
async fn a_mismatch_shows_the_text_that_was_expected() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let mut body = agent.body(&Call::page(5, 0), "r1");
    body["limit"] = 6.into();
    let refused = upstream.post("/jobs/list", &body).await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    let expected = agent.message(&Call::page(6, 0), "r1");
    assert_eq!(refused.1["detail"]["expected_message"], json!(expected));
}

#[tokio::test]
async fn a_signature_of_another_wallet_is_a_mismatch() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let call = Call::page(5, 0);
    let (signature, id) = Wallet::new(2).sign(&agent.message(&call, "r1"));
    let mut body = agent.body(&call, "r1");
    body["signature"] = wire(&signature, 27 + id.to_byte()).into();
    let refused = upstream.post("/jobs/list", &body).await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
}

#[tokio::test]
async fn a_nonce_serves_only_its_wallet() {
    let upstream = Upstream::start().await;
    let mut agent = upstream.agent(1).await;
    for nonce in [upstream.session(&Wallet::new(2)).await, "never-issued".to_owned()] {
        agent.nonce = nonce;
        let refused = agent.call(Call::page(5, 0)).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID");
    }
}

#[tokio::test]
async fn an_ended_session_is_expired_and_later_unknown() {
    let session = Duration::from_millis(50);
    let upstream = Upstream::with(Settings { session, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    let refused = until(async || {
        let reply = agent.call(Call::page(5, 0)).await;
        (reply.0 != StatusCode::OK).then_some(reply)
    })
    .await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED");

    let refused = until(async || {
        upstream.session(&agent.wallet).await;
        let reply = agent.call(Call::page(5, 0)).await;
        let expired = reply.1["detail"]["code"] == "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED";
        (!expired).then_some(reply)
    })
    .await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID");
}

#[tokio::test]
async fn a_session_under_a_second_still_states_one() {
    let session = Duration::from_millis(10);
    let upstream = Upstream::with(Settings { session, ..Settings::default() }).await;
    let body = json!({"wallet_address": Wallet::new(1).address()});
    assert_eq!(ok(upstream.post("/auth/session", &body).await)["expires_in"], 1);
}

#[tokio::test]
async fn a_request_id_serves_once_within_its_session() {
    let upstream = Upstream::start().await;
    let mut agent = upstream.agent(1).await;
    let (list, status) = (Call::page(5, 0), Call::job("job_status", GENERAL, json!({})));
    ok(upstream.post(&list.path, &agent.body(&list, "r1")).await);
    for call in [&list, &status] {
        let refused = upstream.post(&call.path, &agent.body(call, "r1")).await;
        assert_refused(&refused, 409, "EXTERNAL_SIGNATURE_REQUEST_REPLAY");
    }
    agent.nonce = upstream.session(&agent.wallet).await;
    ok(upstream.post(&list.path, &agent.body(&list, "r1")).await);
}

#[tokio::test]
async fn only_a_correctly_signed_call_uses_up_its_request_id() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let good = agent.body(&Call::page(5, 0), "r1");
    let mut tampered = good.clone();
    tampered["skip"] = 1.into();
    let refused = upstream.post("/jobs/list", &tampered).await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    ok(upstream.post("/jobs/list", &good).await);
}

#[tokio::test]
async fn of_many_calls_with_one_request_id_one_gets_through() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let body = agent.body(&Call::page(5, 0), "r1");
    let calls = (0..8).map(|_| upstream.post("/jobs/list", &body));
    let replies = futures_util::future::join_all(calls).await;
    assert_eq!(replies.iter().filter(|reply| reply.0 == StatusCode::OK).count(), 1);
}

#[tokio::test]
async fn a_job_is_reserved_by_one_wallet() {
    let upstream = Upstream::start().await;
    let (first, second) = (upstream.agent(1).await, upstream.agent(2).await);
    let id = first.reserve_general().await;
    assert_refused(&first.reserve(GENERAL).await, 409, "JOB_ALREADY_RESERVED");
    assert_refused(&second.reserve(GENERAL).await, 409, "JOB_NOT_OPEN");
    assert!(!job_ids(&second.list().await).contains(&GENERAL));
    let own = first.list().await;
    assert_eq!((job_ids(&own)[0], &own["jobs"][0]["status"]), (GENERAL, &json!("reserved")));

    let seen = second.status(GENERAL).await;
    assert_eq!(seen["job"]["status"], "reserved");
    assert_eq!(seen["has_active_reservation"], false);
    let proof = json!({"proof_text": "mine", "reservation_id": id});
    assert_refused(&second.complete(GENERAL, proof).await, 409, "RESERVATION_NOT_ACTIVE");
}

#[tokio::test]
async fn an_unknown_job_is_not_found() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    for action in ["job_reserve", "job_status", "job_complete"] {
        let refused = agent.call(Call::job(action, "ffffffffffffffffffffffff", json!({}))).await;
        assert_refused(&refused, 404, "JOB_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_reservation_that_ends_opens_its_job_again() {
    let reservation = Duration::from_millis(50);
    let upstream = Upstream::with(Settings { reservation, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    let (old, token) = agent.reserve_workflow().await;
    until(async || {
        let list = agent.list().await;
        (list["jobs"][1]["status"] == "open").then_some(())
    })
    .await;

    let refused = agent.create(&token, &definition()).await;
    assert_refused(&refused, 403, "WORKFLOW_TOKEN_INVALID");
    let proof = json!({"proof_text": "late", "reservation_id": old, "workflow_id": "w1"});
    assert_refused(&agent.complete(WORKFLOW, proof).await, 409, "RESERVATION_NOT_ACTIVE");
    assert_eq!(agent.status(WORKFLOW).await["can_submit"], false);
    ok(upstream.agent(2).await.reserve(WORKFLOW).await);
}

#[tokio::test]
async fn a_proof_needs_its_fields() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let id = agent.reserve_general().await;
    let text = json!(["body", "proof_text"]);
    let both = [text.clone(), json!(["body", "reservation_id"])];
    assert_fields(&agent.complete(GENERAL, json!({})).await, &both);
    for wrong in [json!(""), json!("x".repeat(4001)), json!(["x"]), Value::Null] {
        let proof = json!({"proof_text": wrong, "reservation_id": id});
        assert_fields(&agent.complete(GENERAL, proof).await, slice::from_ref(&text));
    }
    let proof = json!({"proof_text": "x", "reservation_id": "another"});
    assert_refused(&agent.complete(GENERAL, proof).await, 409, "RESERVATION_MISMATCH");
    let longest = json!({"proof_text": "x".repeat(4000), "reservation_id": id});
    ok(agent.complete(GENERAL, longest).await);
}

#[tokio::test]
async fn a_proof_is_taken_once() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let proof = json!({"proof_text": "done", "reservation_id": agent.reserve_general().await});
    ok(agent.complete(GENERAL, proof.clone()).await);
    assert_refused(&agent.complete(GENERAL, proof).await, 409, "JOB_ALREADY_SUBMITTED");
    assert_refused(&agent.reserve(GENERAL).await, 409, "JOB_NOT_OPEN");
    assert_eq!(upstream.sandbox.submissions(GENERAL), 2);
    assert_eq!(upstream.sandbox.submissions(WORKFLOW), 0);
}

#[tokio::test]
async fn a_workflow_job_takes_no_draft_and_no_foreign_workflow() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (reservation_id, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    let complete = async |workflow: Value| {
        let proof =
            json!({"proof_text": "x", "reservation_id": reservation_id, "workflow_id": workflow});
        agent.complete(WORKFLOW, proof).await
    };
    assert_fields(&complete(Value::Null).await, &[json!(["body", "workflow_id"])]);
    assert_refused(&complete(json!("elsewhere")).await, 409, "WORKFLOW_MISMATCH");
    assert_refused(&complete(json!(id)).await, 409, "WORKFLOW_NOT_PUBLISHED");

    ok(agent.publish(&token, &id).await);
    ok(agent.workflow(Method::PUT, &id, &token, &definition()).await);
    assert_refused(&complete(json!(id)).await, 409, "WORKFLOW_NOT_PUBLISHED");
}

#[tokio::test]
async fn a_workflow_call_needs_the_token_of_its_job() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let refused = upstream.post(&format!("/jobs/{WORKFLOW}/workflow/create"), &definition()).await;
    assert_refused(&refused, 401, "WORKFLOW_TOKEN_MISSING");
    let bare = token.strip_prefix("Bearer ").unwrap();
    let refused = agent.create(bare, &definition()).await;
    assert_refused(&refused, 401, "WORKFLOW_TOKEN_MISSING");
    let refused = agent.create("Bearer other", &definition()).await;
    assert_refused(&refused, 403, "WORKFLOW_TOKEN_INVALID");

    ok(upstream.agent(2).await.reserve(OTHER_WORKFLOW).await);
    for job in [GENERAL, OTHER_WORKFLOW] {
        let path = format!("/jobs/{job}/workflow/create");
        let body = definition().to_string();
        let refused = upstream.send(Method::POST, &path, Some(&token), body).await;
        assert_refused(&refused, 403, "WORKFLOW_TOKEN_INVALID");
    }
}

#[tokio::test]
async fn an_unknown_workflow_is_not_found() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    assert_refused(&agent.publish(&token, "none").await, 404, "WORKFLOW_NOT_FOUND");
    let refused = agent.workflow(Method::PUT, "none", &token, &definition()).await;
    assert_refused(&refused, 404, "WORKFLOW_NOT_FOUND");
}

#[tokio::test]
async fn a_workflow_must_be_whole_and_its_edges_must_meet_nodes() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    let cases = [
        (json!({"name": null}), json!(["body", "name"])),
        (json!({"description": ""}), json!(["body", "description"])),
        (json!({"edges": {}}), json!(["body", "edges"])),
        (json!({"nodes": "read"}), json!(["body", "nodes"])),
        (json!({"nodes": [], "edges": []}), json!(["body", "nodes"])),
        (json!({"edges": [{"id": "e1", "to": "read"}]}), json!(["body", "edges", 0, "from"])),
        (
            json!({"edges": [{"id": "e1", "from": "read", "to": "gone"}]}),
            json!(["body", "edges", 0, "to"]),
        ),
        (json!({"edges": [{"from": "read", "to": "file"}]}), json!(["body", "edges", 0, "id"])),
    ];
    for (change, place) in cases {
        let mut body = definition();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        for (method, path) in [(Method::POST, "create"), (Method::PUT, id.as_str())] {
            let refused = agent.workflow(method, path, &token, &body).await;
            assert_fields(&refused, slice::from_ref(&place));
        }
    }
}

#[tokio::test]
async fn a_node_has_the_settings_of_its_type() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let cases = [
        (json!({"id": 1}), json!(["id"])),
        (json!({"label": ""}), json!(["label"])),
        (json!({"type": "magic"}), json!(["type"])),
        (json!({"type": "prompt"}), json!(["prompt"])),
        (json!({"tool": {"product_id": "p"}}), json!(["tool", "product_name"])),
        (json!({"tool": {"product_name": "P"}}), json!(["tool", "product_id"])),
        (
            json!({"tool": {"product_id": "p", "product_name": "P", "parameters": {}}}),
            json!(["tool", "parameters"]),
        ),
    ];
    for (change, place) in cases {
        let mut body = definition();
        body["edges"] = json!([]);
        body["nodes"][0].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let place = [json!(["body", "nodes", 0]), place].map(|p| p.as_array().unwrap().clone());
        assert_fields(&agent.create(&token, &body).await, &[json!(place.concat())]);
    }
}

#[tokio::test]
async fn nodes_have_ids_of_their_own_and_edges_lead_in_no_circle() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let create = async |ids: &[&str], edges: &[(&str, &str)]| {
        let mut body = definition();
        body["nodes"] = ids.iter().map(|id| node(id)).collect();
        let edges = edges.iter().map(|(from, to)| json!({"id": "e", "from": from, "to": to}));
        body["edges"] = edges.collect();
        agent.create(&token, &body).await
    };
    let forked = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")];
    ok(create(&["a", "b", "c", "d"], &forked).await);
    let circle = [("a", "b"), ("b", "c"), ("c", "b")];
    assert_fields(&create(&["a", "b", "c"], &circle).await, &[json!(["body", "edges"])]);
    assert_fields(&create(&["a"], &[("a", "a")]).await, &[json!(["body", "edges"])]);
    assert_fields(&create(&["a", "a"], &[]).await, &[json!(["body", "nodes", 1, "id"])]);
}

#[tokio::test]
async fn a_workflow_is_changed_in_part_and_published_with_a_tool() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    let update = async |change| agent.workflow(Method::PUT, &id, &token, &change).await;
    assert_eq!(ok(update(json!({"name": "Mail"})).await)["name"], "Mail");
    // The edges that are there lead to nodes that would be gone.
    let fewer = json!([{"id": "file", "type": "prompt", "label": "File", "prompt": {}}]);
    let refused = update(json!({"nodes": fewer})).await;
    assert_fields(&refused, &[json!(["body", "edges", 0, "from"])]);
    ok(update(json!({"nodes": fewer, "edges": []})).await);
    assert_refused(&agent.publish(&token, &id).await, 409, "WORKFLOW_NEEDS_TOOL");
    ok(update(json!({"nodes": [node("read")]})).await);
    ok(agent.publish(&token, &id).await);
}

#[tokio::test]
async fn a_social_share_takes_exactly_one_post() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let reservation = ok(agent.reserve(SOCIAL).await);
    assert!(reservation["job"]["tracked_link"].as_str().unwrap().starts_with("https://"));
    let id = reservation_id(&reservation);
    let post = json!({"url": "https://post.example/1", "likes": null, "tags": ["a", {"b": null}]});
    let complete = async |posts: Value| {
        let proof = json!({"proof_text": "Posted", "reservation_id": id, "social_posts": posts});
        agent.complete(SOCIAL, proof).await
    };
    for posts in [json!(null), json!([]), json!([post, post]), json!(post), json!(["text"])] {
        assert_fields(&complete(posts).await, &[json!(["body", "social_posts"])]);
    }
    assert_eq!(ok(complete(json!([post])).await)["submission"]["proof_text"], "Posted");
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

#[tokio::test]
async fn neither_nonce_nor_token_prints() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let printed = format!("{:?}", upstream.sandbox);
    assert!(!printed.contains(&agent.nonce));
    assert!(!printed.contains(token.strip_prefix("Bearer ").unwrap()));
}
