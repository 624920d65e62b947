//! From a permitted call to its signature.

use agentpmt_proxy::{
    action::ACTIONS,
    call::Call,
    message::Message,
    policy::{Client, Permit},
    signer::LocalKey,
    types::{Address, RequestId, SessionNonce},
};
use criterion::Criterion;
use jiff::Timestamp;

pub(crate) fn bench(criterion: &mut Criterion) {
    let signer = LocalKey::random();
    let permit = permit(signer.address());
    let nonce: SessionNonce = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let request_id = RequestId::random();
    let message = || Message::new(permit.signed().unwrap(), &nonce, &request_id);

    let mut group = criterion.benchmark_group("signing");
    // With the canonical payload, `{"limit":10,"skip":0}`, and its hash.
    group.bench_function("message", |b| b.iter(message));
    let message = message();
    group.bench_function("eip191_digest", |b| b.iter(|| message.eip191_digest()));
    // With the digest, and as the text that is sent.
    group.bench_function("signature", |b| b.iter(|| signer.sign(&message).to_hex()));
    group.finish();
}

/// That the local client may list jobs.
fn permit(wallet: Address) -> Permit {
    let action = ACTIONS.iter().find(|action| action.name == "job_list").unwrap();
    let call = Call::new(action, [], br#"{"limit": 10}"#).unwrap();
    Client::local().permit(call, wallet, None, Timestamp::now()).unwrap()
}
