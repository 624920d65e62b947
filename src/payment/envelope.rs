//! A payment that may be made, and its forms on the wire.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, value::RawValue};

use super::typed_data::{self, Authorization, Domain};
use crate::{
    call::PaymentProof,
    message::eip191_digest,
    types::{Address, Signature},
};

const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");

/// A payment that the policy allows: the one typed data that a wallet signs. Only `Spending` makes one.
#[derive(Debug, Clone)]
pub struct Payment {
    pub(super) domain: Domain,
    pub(super) authorization: Authorization,
    /// The entry of the challenge, as it stood there.
    pub(super) accepted: Box<RawValue>,
    /// The resource of the challenge, as it stood there.
    pub(super) resource: Box<RawValue>,
    /// The wallet that gets the credits, if that is another one, and how many.
    pub(super) sponsored: Option<(Address, u64)>,
}

impl Payment {
    /// The contract that it is good for.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The payer, the payee, the amount and the time limit.
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// The EIP-712 digest, which is signed.
    pub fn digest(&self) -> [u8; 32] {
        typed_data::digest(&self.domain, &self.authorization)
    }

    /// The entry of the challenge that is paid, as it stood there.
    pub fn accepted(&self) -> &str {
        self.accepted.get()
    }

    /// The resource of the challenge, as it stood there.
    pub fn resource(&self) -> &str {
        self.resource.get()
    }

    /// The typed data as `eth_signTypedData_v4` takes it.
    pub fn typed_data(&self) -> Value {
        typed_data::to_json(&self.domain, &self.authorization)
    }

    /// The header that pays (protocol §9.1).
    ///
    /// # Panics
    /// Never: base64 is printable ASCII.
    pub fn header(&self, signature: &Signature) -> PaymentProof {
        let Self { accepted, resource, authorization, .. } = self;
        let envelope = format!(
            r#"{{"x402Version":2,"accepted":{accepted},"resource":{resource},"payload":{{"signature":"{}","authorization":{}}}}}"#,
            signature.to_hex(),
            authorization.to_json(),
        );
        let mut value = HeaderValue::from_str(&STANDARD.encode(envelope)).expect("base64");
        value.set_sensitive(true);
        PaymentProof { name: X_PAYMENT, value }
    }

    /// The message that a payer signs besides, if the credits are for another wallet (protocol §9.4).
    pub fn sponsor_message(&self) -> Option<SponsorMessage> {
        let (recipient, credits) = self.sponsored?;
        let Authorization { from, nonce, .. } = &self.authorization;
        Some(SponsorMessage(format!(
            "agentpmt-external-sponsor\n\
             payer:{from}\n\
             recipient:{recipient}\n\
             credits:{credits}\n\
             nonce:{nonce}"
        )))
    }
}

/// The five lines by which a payer gives the credits to another wallet (protocol §9.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SponsorMessage(String);

impl SponsorMessage {
    /// The digest of the EIP-191 personal message, which is signed.
    pub fn eip191_digest(&self) -> [u8; 32] {
        eip191_digest(&self.0)
    }
}

impl fmt::Display for SponsorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
