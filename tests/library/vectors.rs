//! The protocol against vectors made with other programs: one directory a case, one file a step, so
//! that a red test names the step.

use std::{
    fs,
    path::{Path, PathBuf},
};

use agentpmt_proxy::{
    action::{Action, Payload, Proof, Signed},
    call::Call,
    config::{AssetConfig, SpendingConfig},
    json::{CanonicalJson, Object},
    message::Message,
    payment::{AuthorizationNonce, Challenge, Fresh, Payment, Purchase, Spender, Spending},
    policy::{Client, Permit},
    signer::LocalKey,
    types::{Address, ClientId},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(kind);
    let mut cases: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn read(case: &Path, step: &str) -> String {
    fs::read_to_string(case.join(step)).unwrap()
}

#[test]
fn canonical_text_and_hash_are_those_of_the_vectors() {
    for case in cases("canonical") {
        let json = CanonicalJson::parse(read(&case, "input.json").as_bytes()).unwrap();
        assert_eq!(json.as_str(), read(&case, "canonical.json"), "{case:?}: canonical text");
        assert_eq!(json.hash().to_string(), read(&case, "hash.txt"), "{case:?}: hash");
        // An object is written by way of its fields when something is sent.
        if let Ok(object) = Object::parse(read(&case, "input.json").as_bytes()) {
            assert_eq!(object.to_canonical(), json, "{case:?}: as an object");
        }
    }
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    for case in cases("refused") {
        let result = CanonicalJson::parse(&fs::read(case.join("input.json")).unwrap());
        assert!(result.is_err(), "{case:?}: {result:?}");
    }
}

#[derive(Deserialize)]
struct CallVector {
    private_key: String,
    address: String,
    session_nonce: String,
    request_id: String,
    action: String,
    product: String,
}

/// The body that a client sends so that the payload is the vector's.
fn body(signed: &Signed, payload: &str) -> String {
    match &signed.payload {
        Payload::Object(name) => format!("{{\"{name}\":{payload}}}"),
        _ => payload.to_owned(),
    }
}

#[test]
fn messages_and_signatures_are_those_of_the_vectors() {
    for case in cases("messages") {
        let vector: CallVector = serde_json::from_str(&read(&case, "call.json")).unwrap();
        let action = Action::named(&vector.action).unwrap();
        let Proof::Signature(signed) = &action.proof else { panic!("{case:?}: not signed") };
        let ids = action.id_names().map(|_| vector.product.as_str());
        let body = body(signed, &read(&case, "payload.json"));
        let call = Call::new(action, ids, body.as_bytes()).unwrap();

        let signed = call.signed().unwrap();
        let hash = signed.payload().map(|payload| payload.hash().to_string());
        assert_eq!(hash.unwrap_or_default(), read(&case, "hash.txt"), "{case:?}: hash");

        let signer = LocalKey::from_hex(&vector.private_key).unwrap();
        let permit = permit(call, signer.address());
        assert_eq!(signer.address(), vector.address.parse().unwrap(), "{case:?}: address");
        let nonce = vector.session_nonce.parse().unwrap();
        let request_id = vector.request_id.parse().unwrap();
        let message = Message::new(permit.signed().unwrap(), &nonce, &request_id);
        assert_eq!(message.to_string(), read(&case, "message.txt"), "{case:?}: message");

        let signature = signer.sign(&message).to_hex();
        assert_eq!(signature, read(&case, "signature.txt"), "{case:?}: signature");
    }
}

#[derive(Deserialize)]
struct PaymentVector {
    key: String,
    name: String,
    version: String,
    chain_id: u64,
    contract: String,
    to: String,
    value: String,
    valid_before: i64,
    nonce: String,
    digest: String,
    signature: String,
}

impl PaymentVector {
    fn signer(&self) -> LocalKey {
        LocalKey::from_hex(&self.key).unwrap()
    }

    /// The payment that the policy makes where it allows this one and no other.
    fn payment(&self, decimals: u8, purchase: Option<Purchase>) -> Payment {
        let Self { name, version, contract, to, value, .. } = self;
        let (url, network) =
            ("https://a.example/external/jobs/list", format!("eip155:{}", self.chain_id));
        let limit = Some(value.parse().unwrap());
        let asset = AssetConfig {
            address: contract.parse().unwrap(),
            decimals,
            name: name.clone(),
            version: version.clone(),
        };
        let spending = SpendingConfig {
            wallet: Some(self.signer().address()),
            networks: vec![network.parse().unwrap()],
            payees: vec![to.parse().unwrap()],
            resources: vec![url.to_owned()],
            max_per_call: limit,
            per_day: limit,
            per_month: limit,
            approve_above: None,
            assets: vec![asset],
        };
        let demand = json!({
            "x402Version": 2,
            "resource": { "url": url },
            "accepts": [{
                "scheme": "exact",
                "network": network,
                "amount": value,
                "asset": contract,
                "payTo": to,
                "maxTimeoutSeconds": 240,
                "extra": { "name": name, "version": version },
            }],
        });
        let challenge = Challenge::parse(demand.to_string().as_bytes()).unwrap();
        let mut nonce = [0; 32];
        hex::decode_to_slice(&self.nonce, &mut nonce).unwrap();
        let now = Timestamp::from_second(self.valid_before - 240).unwrap();
        let fresh = Fresh { nonce: AuthorizationNonce::new(nonce), now };
        let call = Call::new(Action::named("job_list").unwrap(), [], b"").unwrap();
        let permit = permit(call, self.signer().address());
        let spender =
            Spender { client: ClientId::LOCAL, limit: None, spent: &[], is_approved: false };
        let spending = Spending::of(&spending).unwrap();
        spending.pay(&permit, &challenge, purchase, spender, fresh).unwrap()
    }
}

/// The vectors are those of `tests/programs/payments.py`, the first that of protocol §10.
fn payment_vectors() -> Vec<PaymentVector> {
    let lines = include_str!("../vectors/payments/eth_account.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn payments_are_signed_as_eth_account_signs_them() {
    let vectors = payment_vectors();
    assert_eq!(vectors.len(), 201);
    for vector in vectors {
        let payment = vector.payment(0, None);
        assert_eq!(hex::encode(payment.digest()), vector.digest, "digest");
        let signature = vector.signer().sign_payment(&payment).to_hex();
        assert_eq!(signature, format!("0x{}", vector.signature), "signature");
    }
}

#[test]
fn the_message_of_a_sponsor_has_the_signature_of_the_protocol() {
    let vector = payment_vectors().remove(0);
    let recipient = Address::new([0x11; 20]);
    let payment = vector.payment(6, Some(Purchase { credits: 500, recipient }));
    let message = payment.sponsor_message().unwrap();
    let signature = "0xd66074931ec618a752e0c3f82ab8f067f6e56459a508a5bdb56ffed2f2c6d5d0\
                     69e226492b6b8f54da1802d01f5b9c2a77ae24a90a381211c43b72eebb31d0fd1c";
    assert_eq!(vector.signer().sign_sponsor_message(&message).to_hex(), signature);
}

fn permit(call: Call, wallet: Address) -> Permit {
    Client::local().permit(call, wallet, None, Timestamp::now()).unwrap()
}

/// The values are those of protocol §10.
#[test]
fn a_path_bound_message_names_method_and_path() {
    let action = Action::named("tool_invoke").unwrap();
    let ids = ["ai-writing-quality-check", "check-for-banned-phrases"];
    let body = br#"{"parameters":{"content":"Our customers love us. Ask our AI."},"beside":1}"#;
    let call = Call::new(action, ids, body).unwrap();
    let signer = LocalKey::from_hex(&"42".repeat(32)).unwrap();
    let nonce = "2d6c7d3f-0000-4000-8000-000000000001".parse().unwrap();
    let permit = permit(call, signer.address());
    let request_id = "invoke-1".parse().unwrap();
    let message = Message::new(permit.signed().unwrap(), &nonce, &request_id);
    let text = message.to_string();
    let lines: Vec<_> = text.split('\n').skip(4).collect();
    let path =
        "path:/external/tools/ai-writing-quality-check/actions/check-for-banned-phrases/invoke";
    let hash = "payload:d1685ec04ffa8d83e1363fb617cef21cb1055cf1b34965d5885ef99d8208f8d6";
    assert_eq!(lines, ["method:POST", path, hash]);
    let signature = "0x0ce45f0f33cb3aa9466e9696ca7966903139e544ece560840ef844cda7febb924994ed493b75d61ee6cb238dade63e388dfe5b8dd89d60708499964cfcb40fc41c";
    assert_eq!(signer.sign(&message).to_hex(), signature);
}
