//! What may arrive upstream: a row of the table, canonical, and signed by the wallet. It is rebuilt
//! here from the protocol (§2 to §5), not with the code that signs.

use agentpmt_proxy::{
    action::{ACTIONS, Action, ENVELOPE, Proof},
    json::{CanonicalJson, Object},
    types::{Address, Slug},
};
use http::request::Parts;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use sha3::{Digest, Keccak256};

pub(super) fn check(head: &Parts, body: &[u8], wallet: Address) -> Result<(), String> {
    let path = head.uri.path();
    let fault = |what: &str| format!("{} {path}: {what}: {}", head.method, body.escape_ascii());
    let (action, ids) = row(head).ok_or_else(|| fault("no row of the table"))?;
    if head.uri.query().is_some() {
        return Err(fault("a query"));
    }
    let object = Object::parse(body).map_err(|error| fault(&error.to_string()))?;
    if object.to_canonical().as_str().as_bytes() != body {
        return Err(fault("not canonical"));
    }
    if head.headers.contains_key("authorization") || head.headers.contains_key("cookie") {
        return Err(fault("a header of the client"));
    }
    match action.proof {
        Proof::None | Proof::Payment => Ok(()),
        Proof::WorkflowToken if head.headers.contains_key("x-job-workflow-token") => Ok(()),
        Proof::WorkflowToken => Err(fault("no token")),
        Proof::Signature(_) => {
            let signer = signer(action, ids.first(), &object);
            if signer == Some(wallet) { Ok(()) } else { Err(fault("the wallet did not sign it")) }
        }
    }
}

/// The row whose path it is, and the ids in it. A word of a row comes before an id.
fn row(head: &Parts) -> Option<(&'static Action, Vec<Slug>)> {
    let fits = |action: &&'static Action| action.method == head.method;
    let mut rows: Vec<_> = ACTIONS.iter().filter(fits).collect();
    rows.sort_by_key(|action| action.id_names().count());
    rows.into_iter().find_map(|action| Some((action, ids(action.path, head.uri.path())?)))
}

fn ids(template: &str, path: &str) -> Option<Vec<Slug>> {
    let mut ids = Vec::new();
    let (mut names, mut parts) = (template.split('/'), path.split('/'));
    loop {
        match (names.next(), parts.next()) {
            (None, None) => return Some(ids),
            (Some(name), Some(part)) if name.starts_with('{') => ids.push(part.parse().ok()?),
            (Some(name), Some(part)) if name == part => {}
            _ => return None,
        }
    }
}

/// Whose signature it is.
fn signer(action: &Action, id: Option<&Slug>, body: &Object) -> Option<Address> {
    let [wallet, nonce, request, signature] = [
        body.text("wallet_address")?,
        body.text("session_nonce")?,
        body.text("request_id")?,
        body.text("signature")?,
    ];
    let product = id.map_or("-", Slug::as_str);
    let payload = payload(action, body).hash();
    let text = format!(
        "agentpmt-external\nwallet:{wallet}\nsession:{nonce}\nrequest:{request}\n\
         action:{}\nproduct:{product}\npayload:{payload}",
        action.name
    );
    let signed = format!("\x19Ethereum Signed Message:\n{}{text}", text.len());
    recovered(&Keccak256::digest(signed), &signature).filter(|signer| signer.to_string() == wallet)
}

fn payload(action: &Action, body: &Object) -> CanonicalJson {
    let mut payload = body.clone();
    payload.retain(|name, _| match action.name {
        "job_list" => ["limit", "skip"].contains(&name),
        "job_complete" => !ENVELOPE.contains(&name),
        _ => false,
    });
    payload.to_canonical()
}

fn recovered(digest: &[u8], signature: &str) -> Option<Address> {
    let bytes = hex::decode(signature.strip_prefix("0x")?).ok()?;
    let (v, rest) = bytes.split_last()?;
    let id = RecoveryId::from_byte(v.checked_sub(27)?)?;
    let signature = Signature::from_slice(rest).ok()?;
    let key = VerifyingKey::recover_from_prehash(digest, &signature, id).ok()?;
    let hash = Keccak256::digest(&key.to_sec1_point(false).as_bytes()[1..]);
    Some(Address::new(hash[12..].try_into().ok()?))
}
