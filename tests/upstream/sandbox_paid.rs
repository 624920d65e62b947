//! The sandbox's challenges and its facilitator, with a signer of the tests' own.

use std::time::Duration;

use agentpmt_proxy::{
    config::{AssetConfig, SpendingConfig},
    payment::Spending,
    sandbox::{FaultKind, InjectedFault, KINDS, Sandbox, Settings},
    types::Address,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};

use crate::{
    common::{TestProxy, serve_sandbox},
    sandbox::{Call, Upstream, Wallet, assert_fields, assert_refused, ok, until, wire},
};

const TOOL: &str = "/tools/ai-writing-quality-check/actions/check-for-banned-phrases/invoke";

/// What a payer signs; tests change a part of it.
#[derive(Clone)]
struct Cheque {
    name: &'static str,
    chain: u64,
    to: [u8; 20],
    value: u128,
    /// In seconds from now on.
    valid_for: i64,
    nonce: [u8; 32],
}

impl Cheque {
    fn of(value: u128) -> Self {
        let nonce = rand_nonce();
        Self { name: "USD Coin", chain: 8453, to: [0x11; 20], value, valid_for: 200, nonce }
    }

    fn valid_before(&self) -> u64 {
        u64::try_from(Timestamp::now().as_second() + self.valid_for).unwrap()
    }

    fn digest(&self, from: &str, contract: &str, valid_before: u64) -> [u8; 32] {
        let domain = [
            keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
            keccak(self.name.as_bytes()),
            keccak(b"2"),
            left(&self.chain.to_be_bytes()),
            left(&hex::decode(&contract[2..]).unwrap()),
        ];
        let typed = "TransferWithAuthorization(address from,address to,uint256 value,\
                     uint256 validAfter,uint256 validBefore,bytes32 nonce)";
        let message = [
            keccak(typed.as_bytes()),
            left(&hex::decode(&from[2..]).unwrap()),
            left(&self.to),
            left(&self.value.to_be_bytes()),
            [0; 32],
            left(&valid_before.to_be_bytes()),
            self.nonce,
        ];
        keccak(
            &[b"\x19\x01".as_slice(), &keccak(&domain.concat()), &keccak(&message.concat())]
                .concat(),
        )
    }

    /// The envelope for the first entry of a challenge.
    fn envelope(&self, payer: &Wallet, challenge: &Value) -> Value {
        let accepted = &challenge["accepts"][0];
        let (from, before) = (payer.address(), self.valid_before());
        let digest = self.digest(&from, accepted["asset"].as_str().unwrap(), before);
        let (signature, id) = payer.sign_digest(&digest);
        json!({
            "x402Version": 2,
            "accepted": accepted,
            "resource": challenge["resource"],
            "payload": {
                "signature": wire(&signature, 27 + id.to_byte()),
                "authorization": {
                    "from": from,
                    "to": format!("0x{}", hex::encode(self.to)),
                    "value": self.value.to_string(),
                    "validAfter": "0",
                    "validBefore": before.to_string(),
                    "nonce": format!("0x{}", hex::encode(self.nonce)),
                },
            },
        })
    }
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

fn left(bytes: &[u8]) -> [u8; 32] {
    let mut word = [0; 32];
    word[32 - bytes.len()..].copy_from_slice(bytes);
    word
}

fn rand_nonce() -> [u8; 32] {
    keccak(uuid::Uuid::new_v4().as_bytes())
}

impl Upstream {
    async fn pay(&self, path: &str, body: &Value, payment: Option<&Value>) -> Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body.to_string());
        if let Some(payment) = payment {
            request = request.header("x-payment", STANDARD.encode(payment.to_string()));
        }
        request.send().await.unwrap()
    }

    /// The challenge that a call without a payment gets.
    async fn challenge(&self, path: &str, body: &Value) -> Value {
        let response = self.pay(path, body, None).await;
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
        let challenge = told(&response, "payment-required");
        assert_eq!(body_of(response).await, challenge);
        challenge
    }

    fn arm(&self, fault: &str) {
        self.sandbox.inject(fault.parse::<InjectedFault>().unwrap());
    }

    fn bought(&self) -> i64 {
        self.sandbox.ledger().iter().map(|entry| entry.credits).sum()
    }
}

fn told(response: &Response, name: &str) -> Value {
    let header = response.headers()[name].as_bytes();
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

async fn body_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn order(wallet: &Wallet) -> Value {
    json!({"wallet_address": wallet.address(), "credits": 500, "payment_method": "x402"})
}

const PURCHASE: &str = "/credits/purchase";

/// The price of 500 credits.
const PRICE: u128 = 5_000_000;

#[tokio::test]
async fn credits_are_bought_with_one_authorisation_once() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let challenge = upstream.challenge(PURCHASE, &order(&wallet)).await;
    assert_eq!(
        challenge["resource"]["url"],
        "https://www.agentpmt.com/api/external/credits/purchase"
    );
    let offer = &challenge["accepts"][0];
    assert_eq!((&offer["network"], &offer["amount"]), (&"eip155:8453".into(), &"5000000".into()));
    assert_eq!(challenge["accepts"][1]["network"], "eip155:84532");

    let envelope = Cheque::of(PRICE).envelope(&wallet, &challenge);
    let response = upstream.pay(PURCHASE, &order(&wallet), Some(&envelope)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let receipt = told(&response, "payment-response");
    let answer = body_of(response).await;
    assert_eq!((&answer["status"], &answer["balance_credits"]), (&"completed".into(), &500.into()));
    assert_eq!(receipt["transaction"], answer["transaction_hash"]);
    assert_eq!((&receipt["success"], &receipt["payer"]), (&true.into(), &wallet.address().into()));

    let again = upstream.pay(PURCHASE, &order(&wallet), Some(&envelope)).await;
    assert_eq!(again.status(), StatusCode::PAYMENT_REQUIRED);
    let why = &told(&again, "payment-response")["errorReason"];
    assert_eq!(why, "invalid_exact_evm_payload_nonce_used");
    assert_eq!((upstream.bought(), upstream.sandbox.payments().len()), (500, 1));
}

#[tokio::test]
async fn a_payment_that_does_not_fit_its_bill_is_refused_with_the_reason() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let challenge = upstream.challenge(PURCHASE, &order(&wallet)).await;
    let good = Cheque::of(PRICE);
    let changed = |change: fn(&mut Value)| {
        let mut envelope = good.envelope(&wallet, &challenge);
        change(&mut envelope);
        envelope
    };
    let signed = |cheque: Cheque| cheque.envelope(&wallet, &challenge);
    let mut stranger = good.envelope(&Wallet::new(2), &challenge);
    stranger["payload"]["authorization"]["from"] = wallet.address().into();
    for (envelope, why) in [
        (signed(Cheque { to: [0x22; 20], ..good.clone() }), "payload_recipient_mismatch"),
        (signed(Cheque { value: PRICE - 1, ..good.clone() }), "payload_authorization_value"),
        (signed(Cheque { valid_for: 0, ..good.clone() }), "payload_authorization_valid_before"),
        (signed(Cheque { valid_for: 900, ..good.clone() }), "payload_authorization_valid_before"),
        (signed(Cheque { name: "USDC", ..good.clone() }), "payload_signature"),
        (signed(Cheque { chain: 1, ..good.clone() }), "payload_signature"),
        (stranger, "payload_signature"),
        (changed(|e| e["payload"]["authorization"]["nonce"] = "0x12".into()), "invalid_payload"),
        (changed(|e| e["payload"]["authorization"]["value"] = 5.into()), "invalid_payload"),
        (changed(|e| e["accepted"]["payTo"] = "0x22".into()), "invalid_payment_requirements"),
        (changed(|e| e["resource"]["url"] = "https://a.example".into()), "requirements"),
        (json!("x"), "requirements"),
    ] {
        let response = upstream.pay(PURCHASE, &order(&wallet), Some(&envelope)).await;
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED, "{why}");
        let reason = told(&response, "payment-response")["errorReason"].clone();
        assert!(reason.as_str().unwrap().ends_with(why), "{why}: {reason}");
        assert_eq!(told(&response, "payment-required"), challenge);
    }
    assert_eq!((upstream.bought(), upstream.sandbox.payments().len()), (0, 0));
    // The authorisation is still good.
    let response = upstream.pay(PURCHASE, &order(&wallet), Some(&signed(good))).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_older_envelope_is_taken_as_well() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let challenge = upstream.challenge(PURCHASE, &order(&wallet)).await;
    let payload = &Cheque::of(PRICE).envelope(&wallet, &challenge)["payload"];
    let older =
        json!({"x402Version": 2, "scheme": "exact", "network": "eip155:8453", "payload": payload});
    let response = upstream.pay(PURCHASE, &order(&wallet), Some(&older)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_purchase_needs_its_fields() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let mut body = order(&wallet);
    body["credits"] = 501.into();
    let refused = upstream.post(PURCHASE, &body).await;
    assert_refused(&refused, 400, "INVALID_CREDITS");
    assert_eq!(refused.1["detail"]["suggested_credits"], 1000);
    let fields = ["wallet_address", "credits", "payment_method"];
    let places = fields.map(|name| json!(["body", name]));
    assert_fields(&upstream.post(PURCHASE, &json!({})).await, &places);
}

/// A purchase whose payment is settled after a time: its answer, and the body to ask for it again.
async fn bought_late(upstream: &Upstream, wallet: &Wallet, delay: &str) -> Value {
    let challenge = upstream.challenge(PURCHASE, &order(wallet)).await;
    let fault = json!({"kind": "settles_late", "times": 1, "delay": delay});
    upstream.sandbox.inject(serde_json::from_value(fault).unwrap());
    let envelope = Cheque::of(PRICE).envelope(wallet, &challenge);
    let answer = body_of(upstream.pay(PURCHASE, &order(wallet), Some(&envelope)).await).await;
    let mut look = order(wallet);
    look["transaction_hash"] = answer["transaction_hash"].clone();
    look
}

#[tokio::test]
async fn until_a_payment_is_settled_its_purchase_is_pending() {
    let upstream = Upstream::start().await;
    let mut look = bought_late(&upstream, &Wallet::new(1), "1h").await;
    let (status, answer) = upstream.post(PURCHASE, &look).await;
    assert_eq!((status, &answer["status"]), (StatusCode::ACCEPTED, &"pending".into()));
    assert_eq!(answer["transaction_hash"], look["transaction_hash"]);
    look["credits"] = 1000.into();
    assert_refused(&upstream.post(PURCHASE, &look).await, 404, "TRANSACTION_NOT_FOUND");
    assert_eq!((upstream.bought(), upstream.sandbox.payments().len()), (0, 1));
}

#[tokio::test]
async fn a_purchase_is_done_once_its_payment_is_settled() {
    let upstream = Upstream::start().await;
    let look = bought_late(&upstream, &Wallet::new(1), "1ms").await;
    let done = until(async || {
        let (status, answer) = upstream.post(PURCHASE, &look).await;
        (status != StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert_eq!((&done["status"], &done["balance_credits"]), (&"completed".into(), &500.into()));
    assert_eq!(ok(upstream.post(PURCHASE, &look).await), done, "it is told again");
    assert_eq!((upstream.bought(), upstream.sandbox.payments().len()), (500, 1));
}

#[tokio::test]
async fn a_payment_may_be_taken_and_its_answer_cut() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    upstream.arm("paid_then_cut:credits_purchase:1");
    // The fault waits for a payment.
    let challenge = upstream.challenge(PURCHASE, &order(&wallet)).await;
    let envelope = Cheque::of(PRICE).envelope(&wallet, &challenge);
    let header = STANDARD.encode(envelope.to_string());
    let request = upstream.client.post(format!("{}{PURCHASE}", upstream.url));
    let request = request.header("payment-signature", header).body(order(&wallet).to_string());
    assert!(request.send().await.is_err());
    assert_eq!(upstream.bought(), 500);
    assert_eq!(upstream.sandbox.faults(), []);
}

#[tokio::test]
async fn a_challenge_is_wrong_as_its_fault_says() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let usual = upstream.challenge(PURCHASE, &order(&wallet)).await;
    for (fault, place, value) in [
        ("wrong_domain", "/accepts/0/extra/name", json!("Coin of another")),
        ("amount_raised", "/accepts/0/amount", json!("50000000")),
    ] {
        upstream.arm(&format!("{fault}:credits_purchase:1"));
        let twisted = upstream.challenge(PURCHASE, &order(&wallet)).await;
        assert_eq!(*twisted.pointer(place).unwrap(), value);
        assert_eq!(upstream.challenge(PURCHASE, &order(&wallet)).await, usual, "once");
    }
    upstream.arm("challenge_changed:credits_purchase:1");
    assert_eq!(upstream.challenge(PURCHASE, &order(&wallet)).await, usual);
    let envelope = Cheque::of(PRICE).envelope(&wallet, &usual);
    let response = upstream.pay(PURCHASE, &order(&wallet), Some(&envelope)).await;
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    let payee = &told(&response, "payment-required")["accepts"][0]["payTo"];
    assert_eq!(*payee, format!("0x{}", "22".repeat(20)));
    assert_eq!(upstream.sandbox.payments(), []);
}

#[tokio::test]
async fn a_tool_is_paid_for_one_use_by_its_bare_parameters() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let body = json!({"content": "Ask our AI."});
    let free = upstream.post("/tools/word-count/actions/count-words/invoke", &body).await;
    assert_eq!(ok(free)["response"]["parameters"], body);

    let challenge = upstream.challenge(TOOL, &body).await;
    assert_eq!(challenge["accepts"][0]["amount"], "50000");
    let envelope = Cheque::of(50_000).envelope(&wallet, &challenge);
    let response = upstream.pay(TOOL, &body, Some(&envelope)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer = body_of(response).await;
    assert_eq!((&answer["success"], &answer["response"]["parameters"]), (&true.into(), &body));
    assert_eq!(answer["x402"]["resource_url"], challenge["resource"]["url"]);
    assert_eq!(upstream.sandbox.payments()[0].value, "50000");
    assert_eq!(upstream.sandbox.ledger(), [], "no credits are touched");

    let failing = "/tools/letter-printer/actions/print-letter/invoke";
    let challenge = upstream.challenge(failing, &body).await;
    let envelope = Cheque::of(200_000).envelope(&wallet, &challenge);
    let response = upstream.pay(failing, &body, Some(&envelope)).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(upstream.sandbox.payments().len(), 2);
}

#[tokio::test]
async fn a_signature_and_a_payment_are_one_proof_too_many() {
    let settings = Settings { credits: 100, ..Settings::default() };
    let upstream = Upstream::with(settings).await;
    let agent = upstream.agent(1).await;
    let slugs = "ai-writing-quality-check/check-for-banned-phrases";
    let signed = agent.body(&Call::tool(slugs, json!({})), "r1");
    let challenge = upstream.challenge(TOOL, &json!({})).await;
    let envelope = Cheque::of(50_000).envelope(&agent.wallet, &challenge);
    let response = upstream.pay(TOOL, &signed, Some(&envelope)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(upstream.sandbox.payments(), []);
    assert_eq!(ok(upstream.post(TOOL, &signed).await)["balance_credits"], 95);
}

#[tokio::test]
async fn whoever_pays_for_another_wallet_signs_that_as_well() {
    let upstream = Upstream::start().await;
    let (payer, recipient) = (Wallet::new(1), Wallet::new(2));
    let challenge = upstream.challenge(PURCHASE, &order(&recipient)).await;
    let cheque = Cheque::of(PRICE);
    let envelope = cheque.envelope(&payer, &challenge);
    let message = |credits: u32| {
        format!(
            "agentpmt-external-sponsor\npayer:{}\nrecipient:{}\ncredits:{credits}\nnonce:0x{}",
            payer.address(),
            recipient.address(),
            hex::encode(cheque.nonce),
        )
    };
    let signed = |by: &Wallet, credits| {
        let (signature, id) = by.sign(&message(credits));
        wire(&signature, 27 + id.to_byte())
    };
    let mut body = order(&recipient);
    body["payer_wallet_address"] = payer.address().into();
    for signature in [None, Some(signed(&payer, 501)), Some(signed(&recipient, 500))] {
        body["sponsor_signature"] = signature.into();
        let response = upstream.pay(PURCHASE, &body, Some(&envelope)).await;
        let reason = &told(&response, "payment-response")["errorReason"];
        assert_eq!(reason, "sponsor_signature_mismatch");
    }
    body["sponsor_signature"] = signed(&payer, 500).into();
    assert_eq!(upstream.pay(PURCHASE, &body, Some(&envelope)).await.status(), StatusCode::OK);
    assert_eq!(upstream.sandbox.ledger()[0].wallet, recipient.address());
    assert_eq!(upstream.sandbox.payments()[0].payer, payer.address());
}

#[tokio::test]
async fn of_many_payments_with_one_nonce_at_once_one_is_taken() {
    let upstream = Upstream::start().await;
    let wallet = Wallet::new(1);
    let challenge = upstream.challenge(PURCHASE, &order(&wallet)).await;
    let envelope = Cheque::of(PRICE).envelope(&wallet, &challenge);
    let order = order(&wallet);
    let payments = (0..8).map(|_| upstream.pay(PURCHASE, &order, Some(&envelope)));
    let answers = futures_util::future::join_all(payments).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == StatusCode::OK).count(), 1);
    assert_eq!(upstream.bought(), 500);
}

/// A policy that fits the challenges of the sandbox.
fn spending() -> Spending {
    let resource = |path: &str| format!("https://www.agentpmt.com/api/external{path}");
    let config = SpendingConfig {
        wallet: Some("0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025".parse().unwrap()),
        networks: vec!["eip155:8453".parse().unwrap()],
        payees: vec![Address::new([0x11; 20])],
        resources: vec![resource(PURCHASE), resource(TOOL)],
        max_per_call: Some("5".parse().unwrap()),
        per_day: Some("100".parse().unwrap()),
        per_month: Some("100".parse().unwrap()),
        approve_above: None,
        assets: vec![AssetConfig {
            address: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".parse().unwrap(),
            decimals: 6,
            name: "USD Coin".to_owned(),
            version: "2".to_owned(),
        }],
    };
    Spending::of(&config).unwrap()
}

/// Sends a call that is paid until it is good, at most twice; whether it was, and the payments.
async fn paid_under(fault: String, path: String) -> (String, bool, usize) {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
        let upstream = &mut options.upstream;
        upstream.timeout = Duration::from_secs(4);
        upstream.change_timeout = Duration::from_secs(4);
        upstream.spend_timeout = Duration::from_secs(4);
        options.spending = Some(spending());
    })
    .await;
    proxy.sandbox.inject(fault.parse().unwrap());
    let wallet = proxy.proxy.wallets()[0];
    let body =
        json!({"wallet_address": wallet.to_string(), "credits": 500, "payment_method": "x402"});
    let mut is_good = false;
    for _ in 0..2 {
        let response = proxy.post(&path, body.to_string()).await;
        let status = response.status();
        let answer = serde_json::from_slice::<Value>(&response.bytes().await.unwrap());
        is_good = status == StatusCode::OK && answer.is_ok();
        if is_good {
            break;
        }
    }
    (fault, is_good, proxy.sandbox.payments().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_every_fault_the_proxy_pays_at_most_once_and_tells_success_of_what_was_paid() {
    let calls =
        [("credits_purchase", PURCHASE.to_owned()), ("tool_pay", format!("{TOOL}?pay=x402"))];
    let cells = calls.iter().flat_map(|(action, path)| {
        let cell =
            move |kind: &FaultKind| paid_under(format!("{}:{action}:1", kind.name()), path.clone());
        KINDS.iter().map(cell)
    });
    let cells: Vec<_> = cells.collect();
    let done: Vec<_> = stream::iter(cells).buffer_unordered(24).collect().await;
    assert_eq!(done.len(), 2 * KINDS.len());
    for (fault, is_good, payments) in &done {
        assert!(*payments <= 1, "{fault}: paid {payments} times");
        assert!(!is_good || *payments == 1, "{fault}: told success and not paid");
    }
    let good = done.iter().filter(|(_, is_good, _)| *is_good).count();
    assert!(good > done.len() / 2, "{done:?}");
}
