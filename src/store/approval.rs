//! Payments that wait for the word of a person: rules over rows, which read and write nothing.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{payment::PaymentTerms, types::ClientId};

/// How long a payment waits for an answer, and how long the answer counts.
pub(super) const STANDS: SignedDuration = SignedDuration::from_hours(1);

/// The number of an approval, at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalId(Uuid);

/// A payment that a person was asked about, once for all calls of a client that are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Its number.
    pub id: ApprovalId,
    /// The client that wants to pay.
    pub client: ClientId,
    /// The name of that client.
    pub client_name: String,
    /// The name of the call.
    pub action: String,
    /// The payment.
    pub terms: PaymentTerms,
    /// When it was asked for.
    pub asked: Timestamp,
    /// When its waiting is over, or when its answer counts no longer.
    pub ends: Timestamp,
    /// The answer and the user who gave it.
    pub answer: Option<(ApprovalAnswer, String)>,
    /// A hash of all that makes it the same payment of the same call.
    pub(super) fingerprint: [u8; 32],
    /// The seal of an answer that approves.
    pub(super) seal: Option<Vec<u8>>,
}

/// The answer of a person, and whether it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalAnswer {
    /// It may be paid, once.
    Approved,
    /// It is not paid.
    Denied,
    /// It was approved, and that was used.
    Used,
}

/// How an approval stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalState {
    /// There is no answer yet.
    Waiting,
    /// It was answered.
    Answered(ApprovalAnswer),
    /// Its time is over.
    Expired,
}

impl ApprovalId {
    /// A new one.
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl Approval {
    /// How it stands.
    pub fn state(&self, now: Timestamp) -> ApprovalState {
        match self.answer {
            Some((ApprovalAnswer::Used, _)) => ApprovalState::Answered(ApprovalAnswer::Used),
            _ if self.ends <= now => ApprovalState::Expired,
            Some((answer, _)) => ApprovalState::Answered(answer),
            None => ApprovalState::Waiting,
        }
    }

    /// All that an answer that approves is sealed for: another payment, or a longer time, has another seal.
    pub(super) fn sealed_words(&self, ends: Timestamp) -> String {
        format!("{} {}", hex::encode(self.fingerprint), ends.as_millisecond())
    }

    /// The approval as its client sees it.
    pub fn to_json(&self, now: Timestamp) -> Value {
        let PaymentTerms { resource, network, asset, payee, amount } = &self.terms;
        json!({
            "id": self.id.to_string(),
            "state": self.state(now).as_str(),
            "client": self.client_name,
            "action": self.action,
            "resource": resource,
            "network": network.to_string(),
            "asset": asset.to_string(),
            "payee": payee.to_string(),
            "amount": amount.to_string(),
            "asked": self.asked.to_string(),
            "until": self.ends.to_string(),
        })
    }
}

impl ApprovalState {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Answered(answer) => answer.as_str(),
            Self::Expired => "expired",
        }
    }
}

impl ApprovalAnswer {
    /// As it is stored.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Used => "used",
        }
    }

    pub(super) fn from_str(text: &str) -> Option<Self> {
        [Self::Approved, Self::Denied, Self::Used]
            .into_iter()
            .find(|answer| answer.as_str() == text)
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ApprovalId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text.parse().map_err(|_| "the id of an approval is a UUID, as in its list");
        id.map(Self)
    }
}
