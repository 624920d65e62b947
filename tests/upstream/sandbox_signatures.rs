//! Calls to the sandbox with signatures that prove nothing: those of Wycheproof, and a good one
//! after each of the changes that a careless verifier would not see.

use std::fs;

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use k256::{
    Scalar,
    ecdsa::{SigningKey, VerifyingKey},
    elliptic_curve::PrimeField,
};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sha3::Keccak256;

use crate::common::{client, json, serve_sandbox};

/// The number of points of the curve, in hex.
const N: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

struct Upstream {
    url: String,
    client: Client,
}

impl Upstream {
    async fn start() -> Self {
        let address = serve_sandbox(&Sandbox::new(Settings::default())).await;
        Self { url: format!("http://{address}/api/external"), client: client() }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    }

    async fn session(&self, wallet: &str) -> String {
        let (status, body) = self.post("/auth/session", &json!({"wallet_address": wallet})).await;
        assert_eq!(status, 200, "{body}");
        body["session_nonce"].as_str().unwrap().to_owned()
    }
}

fn address(key: &VerifyingKey) -> String {
    let hash = Keccak256::digest(&key.to_sec1_point(false).as_bytes()[1..]);
    format!("0x{}", hex::encode(&hash[12..]))
}

/// A page of the list, of a wallet with a session, to be signed.
struct Unsigned {
    body: Value,
    message: String,
}

impl Unsigned {
    fn new(wallet: &str, nonce: &str, request: &str) -> Self {
        let body = json!({
            "limit": 5, "skip": 0,
            "wallet_address": wallet, "session_nonce": nonce, "request_id": request,
        });
        let hash = hex::encode(Sha256::digest(r#"{"limit":5,"skip":0}"#));
        let message = format!(
            "agentpmt-external\nwallet:{wallet}\nsession:{nonce}\nrequest:{request}\n\
             action:job_list\nproduct:-\npayload:{hash}"
        );
        Self { body, message }
    }

    fn with(&self, signature: &str) -> Value {
        let mut body = self.body.clone();
        body["signature"] = signature.into();
        body
    }

    fn digest(&self) -> [u8; 32] {
        let (length, message) = (self.message.len(), &self.message);
        Keccak256::digest(format!("\x19Ethereum Signed Message:\n{length}{message}")).into()
    }
}

#[track_caller]
fn assert_refused((status, body): &(u16, Value), what: &str) {
    let code = body["detail"]["code"].as_str().unwrap_or_default();
    let codes = ["EXTERNAL_SIGNATURE_MALFORMED", "EXTERNAL_SIGNATURE_WALLET_MISMATCH"];
    assert!(*status == 401 && codes.contains(&code), "{what}: {status} {body}");
}

#[tokio::test]
async fn no_signature_of_wycheproof_is_taken_not_even_for_the_wallet_of_its_key() {
    let upstream = Upstream::start().await;
    let path = "tests/vectors/wycheproof/ecdsa_secp256k1_sha256_p1363.json";
    let groups: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for group in groups.as_array().unwrap() {
        let key = hex::decode(group["key"].as_str().unwrap()).unwrap();
        let wallet = address(&VerifyingKey::from_sec1_bytes(&key).unwrap());
        let nonce = upstream.session(&wallet).await;
        for test in group["tests"].as_array().unwrap() {
            for v in ["1b", "1c"] {
                let call = Unsigned::new(&wallet, &nonce, &format!("{}-{v}", test["id"]));
                let signature = format!("0x{}{v}", test["sig"].as_str().unwrap());
                let answer = upstream.post("/jobs/list", &call.with(&signature)).await;
                assert_refused(&answer, &test.to_string());
            }
        }
    }
}

/// A good signature, and what a careless verifier might take for one: each with its name.
fn changed(key: &SigningKey, call: &Unsigned) -> (String, Vec<(&'static str, String)>) {
    let sign = |digest: &[u8]| {
        let (signature, id) = key.sign_prehash_recoverable(digest);
        let hex = hex::encode(signature.to_bytes());
        (signature, hex[..64].to_owned(), hex[64..].to_owned(), 27 + id.to_byte())
    };
    let wire = |r: &str, s: &str, v: u8| format!("0x{r}{s}{v:02x}");
    let (signature, r, s, v) = sign(&call.digest());
    let (zero, one) = ("0".repeat(64), format!("{:064x}", 1));
    let other_v = if v == 27 { 28 } else { 27 };
    let high = hex::encode((-*signature.s()).to_bytes());
    let half = hex::encode(Scalar::TWO_INV.to_bytes());
    let max = "f".repeat(64);
    let other = |digest: &[u8]| {
        let (_, r, s, v) = sign(digest);
        wire(&r, &s, v)
    };
    let text = &call.message;
    let mut changed = vec![
        ("r is 0", wire(&zero, &s, v)),
        ("s is 0", wire(&r, &zero, v)),
        ("both are 0", wire(&zero, &zero, v)),
        ("r is n", wire(N, &s, v)),
        ("s is n", wire(&r, N, v)),
        ("both are n", wire(N, N, v)),
        ("r is the largest number", wire(&max, &s, v)),
        ("s is the largest number", wire(&r, &max, v)),
        ("r is 1", wire(&one, &s, v)),
        ("s is 1", wire(&r, &one, v)),
        ("both are 1", wire(&one, &one, v)),
        ("s is the half of n, rounded up", wire(&r, &half, v)),
        ("r and s are swapped", wire(&s, &r, v)),
        ("the other s", wire(&r, &high, v)),
        ("the other s and v", wire(&r, &high, other_v)),
        ("the other v", wire(&r, &s, other_v)),
        ("no v", format!("0x{r}{s}")),
        ("no s", format!("0x{r}{v:02x}")),
        ("one byte more", format!("{}00", wire(&r, &s, v))),
        ("v goes first", format!("0x{v:02x}{r}{s}")),
        ("SHA-256 in place of Keccak", other(&Sha256::digest(text))),
        ("the text without its prefix", other(&Keccak256::digest(text))),
        (
            "a prefix without the length",
            other(&Keccak256::digest(format!("\x19Ethereum Signed Message:\n{text}"))),
        ),
    ];
    let wrong_v = (0..=u8::MAX).filter(|wrong| ![27, 28].contains(wrong));
    changed.extend(wrong_v.map(|wrong| ("v is neither 27 nor 28", wire(&r, &s, wrong))));
    (wire(&r, &s, v), changed)
}

#[tokio::test]
async fn a_good_signature_is_taken_and_none_of_its_changes() {
    let upstream = Upstream::start().await;
    let key = SigningKey::from_slice(&[0x42; 32]).unwrap();
    let wallet = address(key.verifying_key());
    let nonce = upstream.session(&wallet).await;
    let call = Unsigned::new(&wallet, &nonce, "r-1");
    let (good, changed) = changed(&key, &call);
    for (what, signature) in changed {
        assert_refused(&upstream.post("/jobs/list", &call.with(&signature)).await, what);
    }
    let (status, body) = upstream.post("/jobs/list", &call.with(&good)).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn a_good_signature_is_taken_for_no_other_wallet() {
    let upstream = Upstream::start().await;
    let key = SigningKey::from_slice(&[0x42; 32]).unwrap();
    let other = address(SigningKey::from_slice(&[0x43; 32]).unwrap().verifying_key());
    let call = Unsigned::new(&other, &upstream.session(&other).await, "r-1");
    let (signature, id) = key.sign_prehash_recoverable(&call.digest());
    let wire = format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + id.to_byte());
    assert_refused(&upstream.post("/jobs/list", &call.with(&wire)).await, "another wallet");
}
