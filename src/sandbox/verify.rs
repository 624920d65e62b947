//! Who signed a call: the envelope taken out, the text rebuilt, the signer recovered (protocol
//! §2–§5).
//!
//! The message and the recovery of the signer are written here a second time, so that a mistake of
//! the code that signs shows. Canonical JSON is shared: vectors and a verifier in Python hold it.

use std::str::FromStr;

use k256::ecdsa::{RecoveryId, Signature as EcdsaSignature, VerifyingKey};
use sha3::{Digest, Keccak256};

use crate::{
    canonical::{CanonicalJson, Object},
    types::{Address, RequestId, SessionNonce, Signature},
};

use super::refusal::Refusal;

/// The proof that stands in a body beside the payload.
pub(super) struct Envelope {
    pub(super) wallet: Address,
    pub(super) nonce: SessionNonce,
    pub(super) request: RequestId,
    signature: Signature,
}

impl Envelope {
    /// Takes the envelope out of a body; what is left is the completion of a job, or the like.
    ///
    /// # Errors
    /// [`Refusal::SignatureMalformed`] with the name of the field that is missing or unusable.
    pub(super) fn take(body: &mut Object) -> Result<Self, Refusal> {
        let envelope = Self {
            wallet: part(body, "wallet_address")?,
            nonce: part(body, "session_nonce")?,
            request: part(body, "request_id")?,
            signature: part(body, "signature")?,
        };
        body.retain(|name, _| {
            !["wallet_address", "session_nonce", "request_id", "signature"].contains(&name)
        });
        Ok(envelope)
    }
}

/// A signed call, with the job's id as it stood in the path.
#[derive(Clone, Copy)]
pub(super) enum Route<'a> {
    List,
    Reserve(&'a str),
    Complete(&'a str),
    Status(&'a str),
}

impl<'a> Route<'a> {
    fn named(action: &str, job_id: &'a str) -> Option<Self> {
        let routes =
            [Self::List, Self::Reserve(job_id), Self::Complete(job_id), Self::Status(job_id)];
        routes.into_iter().find(|route| route.action_and_product().0 == action)
    }

    fn action_and_product(&self) -> (&'static str, &str) {
        match self {
            Self::List => ("job_list", "-"),
            Self::Reserve(job_id) => ("job_reserve", job_id),
            Self::Complete(job_id) => ("job_complete", job_id),
            Self::Status(job_id) => ("job_status", job_id),
        }
    }

    /// What the signature must cover, out of a body without its envelope.
    fn payload(&self, body: &Object) -> CanonicalJson {
        let mut payload = body.clone();
        match self {
            Self::List => payload.retain(|name, _| name == "limit" || name == "skip"),
            Self::Reserve(_) | Self::Status(_) => payload = Object::default(),
            Self::Complete(_) => {}
        }
        payload.to_canonical()
    }
}

/// Recovers the signer of a call and compares it with the envelope's wallet.
///
/// # Errors
/// [`Refusal::SignatureMalformed`] if the signature is none; [`Refusal::WalletMismatch`] if
/// someone else signed, or another text was signed.
pub(super) fn signer(envelope: &Envelope, route: Route<'_>, body: &Object) -> Result<(), Refusal> {
    let text = expected_message(envelope, route, body);
    let signer = recover(&eip191_digest(&text), envelope.signature.as_bytes())?;
    if signer == envelope.wallet {
        Ok(())
    } else {
        Err(Refusal::WalletMismatch { expected_message: text })
    }
}

/// The text that a call's signature must cover, if it is a signed call with its envelope.
pub(super) fn rebuilt_message(action: &str, job_id: &str, mut body: Object) -> Option<String> {
    let envelope = Envelope::take(&mut body).ok()?;
    Some(expected_message(&envelope, Route::named(action, job_id)?, &body))
}

fn expected_message(envelope: &Envelope, route: Route<'_>, body: &Object) -> String {
    let (action, product) = route.action_and_product();
    let lines = [
        "agentpmt-external".to_owned(),
        format!("wallet:{}", envelope.wallet),
        format!("session:{}", envelope.nonce.expose()),
        format!("request:{}", envelope.request),
        format!("action:{action}"),
        format!("product:{product}"),
        format!("payload:{}", route.payload(body).hash()),
    ];
    lines.join("\n")
}

fn eip191_digest(text: &str) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    hasher.update(b"\x19Ethereum Signed Message:\n");
    hasher.update(text.len().to_string());
    hasher.update(text);
    hasher.finalize().into()
}

/// Of the two values of `s` that fit a signature only the lower is taken, and of the ways to write
/// `v` only 27 and 28: the strictest servers take no others.
fn recover(digest: &[u8; 32], signature: &[u8; 65]) -> Result<Address, Refusal> {
    let malformed = Refusal::SignatureMalformed;
    let id = match signature[64] {
        27 => RecoveryId::new(false, false),
        28 => RecoveryId::new(true, false),
        _ => return Err(malformed("v must be 27 or 28")),
    };
    let signature = EcdsaSignature::from_slice(&signature[..64])
        .map_err(|_| malformed("r or s is out of range"))?;
    if signature.normalize_s() != signature {
        return Err(malformed("s is in the upper half of its range"));
    }
    let key = VerifyingKey::recover_from_prehash(digest, &signature, id)
        .map_err(|_| malformed("no key can have made it"))?;
    Ok(address_of(&key))
}

fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    // The first byte says that the point is uncompressed and is not part of the key.
    let hash: [u8; 32] = Keccak256::digest(&point.as_bytes()[1..]).into();
    let mut address = [0; 20];
    address.copy_from_slice(&hash[12..]);
    Address::new(address)
}

fn part<T: FromStr>(body: &Object, name: &'static str) -> Result<T, Refusal> {
    let text = body.text(name).ok_or(Refusal::SignatureMalformed(name))?;
    text.parse().map_err(|_| Refusal::SignatureMalformed(name))
}

#[cfg(test)]
mod tests;
