//! Sessions of wallets, and the request ids that were used in them (protocol §1).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::types::{Address, RequestId};

use super::{error::ApiError, time::end_of, verify::Envelope};

/// The sessions by nonce. An ended one is kept for as long as it lived, so that its nonce is called
/// expired and not unknown; its request ids are not.
pub(super) struct Nonces {
    lifetime: Duration,
    by_nonce: HashMap<String, Opened>,
    opened: u64,
}

/// A session of a wallet.
struct Opened {
    wallet: Address,
    end: Timestamp,
    used: HashSet<RequestId>,
}

impl Nonces {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, by_nonce: HashMap::new(), opened: 0 }
    }

    /// How many sessions were opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Opens a session and gives the answer with its nonce.
    pub(super) fn open(&mut self, wallet: Address, now: Timestamp) -> Value {
        // Only here does the table grow, so only here is it purged.
        self.purge(now);
        self.opened += 1;
        let nonce = Uuid::new_v4().simple().to_string();
        let end = end_of(now, self.lifetime);
        self.by_nonce.insert(nonce.clone(), Opened { wallet, end, used: HashSet::new() });
        json!({
            "session_nonce": nonce,
            "wallet_address": wallet.to_string(),
            // Rounded down, so that a client never counts on more than it has.
            "expires_in": self.lifetime.as_secs().max(1),
            "expires_at": end.to_string(),
        })
    }

    /// Ends all sessions; their nonces are unknown from now on.
    pub(super) fn forget_all(&mut self) {
        self.by_nonce.clear();
    }

    /// Checks that the session of an envelope is known, is its wallet's and has not ended.
    pub(super) fn check(&mut self, envelope: &Envelope, now: Timestamp) -> Result<(), ApiError> {
        self.running(envelope, now).map(drop)
    }

    /// Uses up the request id of an envelope. The session is checked again, since it may have ended
    /// while the signer was recovered.
    pub(super) fn use_once(&mut self, envelope: &Envelope, now: Timestamp) -> Result<(), ApiError> {
        let is_new = self.running(envelope, now)?.used.insert(envelope.request.clone());
        if is_new { Ok(()) } else { Err(ApiError::RequestReplay) }
    }

    fn running(&mut self, envelope: &Envelope, now: Timestamp) -> Result<&mut Opened, ApiError> {
        let session = self.by_nonce.get_mut(envelope.nonce.expose());
        match session.filter(|session| session.wallet == envelope.wallet) {
            None => Err(ApiError::SessionInvalid),
            Some(session) if session.end <= now => Err(ApiError::SessionExpired),
            Some(session) => Ok(session),
        }
    }

    fn purge(&mut self, now: Timestamp) {
        let lifetime = self.lifetime;
        self.by_nonce.retain(|_, session| {
            if session.end <= now {
                session.used = HashSet::new();
            }
            end_of(session.end, lifetime) > now
        });
    }
}
