//! Verification of a signed call: the envelope is taken out, the text rebuilt, and the signer recovered
//! (protocol §2–§5).
//!
//! The message and the recovery of the signer are written here a second time, so that a mistake of
//! the code that signs shows. Canonical JSON and the table of calls are shared: vectors hold both, and
//! so does a verifier in Python.

use std::str::FromStr;

use k256::ecdsa::{RecoveryId, Signature as EcdsaSignature, VerifyingKey};
use sha3::{Digest, Keccak256};

use crate::{
    action::{Action, Binds, ENVELOPE, Payload, Signed},
    json::{CanonicalJson, Object},
    types::{Address, RequestId, SessionNonce, Signature},
};

use super::error::ApiError;

/// The proof that stands in a body beside the payload.
pub(super) struct Envelope {
    pub(super) wallet: Address,
    pub(super) nonce: SessionNonce,
    pub(super) request: RequestId,
    signature: Signature,
}

/// A signed call that has arrived.
pub(super) struct Arrived<'a> {
    action: &'a Action,
    signed: &'a Signed,
    path: &'a str,
    pub(super) envelope: Envelope,
    /// The body without the envelope.
    pub(super) body: Object,
}

impl<'a> Arrived<'a> {
    /// Takes the envelope out of the body of a call.
    ///
    /// # Errors
    /// [`ApiError::SignatureMalformed`] with the name of the field that is missing or unusable.
    pub(super) fn new(
        action: &'a Action,
        signed: &'a Signed,
        path: &'a str,
        mut body: Object,
    ) -> Result<Self, ApiError> {
        let envelope = Envelope {
            wallet: part(&body, "wallet_address")?,
            nonce: part(&body, "session_nonce")?,
            request: part(&body, "request_id")?,
            signature: part(&body, "signature")?,
        };
        body.retain(|name, _| !ENVELOPE.contains(&name));
        Ok(Self { action, signed, path, envelope, body })
    }

    /// Recovers the signer and compares it with the envelope's wallet.
    ///
    /// # Errors
    /// [`ApiError::SignatureMalformed`] if the signature is none; [`ApiError::WalletMismatch`] if
    /// another wallet signed, or it signed another text.
    pub(super) fn check_signer(&self) -> Result<(), ApiError> {
        let text = self.expected_message();
        let signer = personal_signer(&text, &self.envelope.signature)?;
        if signer == self.envelope.wallet {
            Ok(())
        } else {
            Err(ApiError::WalletMismatch { expected_message: text })
        }
    }

    /// The text that the signature must cover.
    pub(super) fn expected_message(&self) -> String {
        let Self { action, signed, envelope, .. } = self;
        let bound = match signed.binds {
            Binds::Action => format!("action:{action}\nproduct:-"),
            Binds::ActionAndId => format!("action:{action}\nproduct:{}", self.first_id()),
            Binds::MethodAndPath => {
                let path = self.path.strip_prefix("/api").unwrap_or(self.path);
                format!("method:{}\npath:{path}", action.method)
            }
        };
        let hash = self.payload().map(|payload| payload.hash().to_string());
        let lines = [
            "agentpmt-external".to_owned(),
            format!("wallet:{}", envelope.wallet),
            format!("session:{}", envelope.nonce.expose()),
            format!("request:{}", envelope.request),
            bound,
            format!("payload:{}", hash.unwrap_or_default()),
        ];
        lines.join("\n")
    }

    fn first_id(&self) -> &str {
        let mut segments = self.action.path.split('/').zip(self.path.split('/'));
        segments.find(|(name, _)| name.starts_with('{')).map_or("", |(_, id)| id)
    }

    fn is_empty(&self) -> bool {
        self.action.body.iter().all(|field| self.body.field(field.name).is_none())
    }

    fn payload(&self) -> Option<CanonicalJson> {
        let mut payload = self.body.clone();
        match self.signed.payload {
            Payload::Empty => return None,
            Payload::Object(name) => return self.body.field(name).cloned(),
            Payload::Given if self.body.field("parameters").is_some() => {
                return self.body.field("parameters").cloned();
            }
            // Servers differ in the form of nothing, so one call is taken in each.
            Payload::Given if self.action.name == "workflow_start" && self.is_empty() => {
                return None;
            }
            Payload::Fields | Payload::Given => {
                let fields = self.action.body;
                payload.retain(|name, _| fields.iter().any(|field| field.name == name));
            }
            Payload::Body => {}
        }
        Some(payload.to_canonical())
    }
}

/// The signer of an EIP-191 message.
pub(super) fn personal_signer(text: &str, signature: &Signature) -> Result<Address, ApiError> {
    recover(&eip191_digest(text), signature.as_bytes())
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
pub(super) fn recover(digest: &[u8; 32], signature: &[u8; 65]) -> Result<Address, ApiError> {
    let malformed = ApiError::SignatureMalformed;
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

fn part<T: FromStr>(body: &Object, name: &'static str) -> Result<T, ApiError> {
    let text = body.text(name).ok_or(ApiError::SignatureMalformed(name))?;
    text.parse().map_err(|_| ApiError::SignatureMalformed(name))
}

#[cfg(test)]
mod tests;
