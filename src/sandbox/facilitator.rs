//! The payments that were taken. An authorisation is good for one (protocol §9.1, §9.2).

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;
use sha3::{Digest, Keccak256};

use crate::types::Address;

use super::transfer::Transfer;

/// A payment that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenPayment {
    /// The hash of its transaction.
    pub transaction: String,
    /// The chain, such as `eip155:8453`.
    pub network: &'static str,
    /// The wallet that paid.
    pub payer: String,
    /// The amount in base units.
    pub value: String,
    /// The URL that was paid for.
    pub resource: String,
}

/// A purchase whose payment was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bought {
    pub(super) wallet: Address,
    pub(super) credits: i64,
    /// When the payment is settled.
    pub(super) settled: Timestamp,
}

/// The payments so far, and the nonces that they used up.
#[derive(Default)]
pub(super) struct Facilitator {
    used: HashSet<(Address, [u8; 32])>,
    taken: Vec<TakenPayment>,
    bought: Vec<(String, Bought)>,
}

impl Facilitator {
    /// Takes a payment that was checked.
    ///
    /// # Errors
    /// The word for the reason: its nonce is used up.
    pub(super) fn take(
        &mut self,
        transfer: &Transfer,
        resource: &str,
    ) -> Result<TakenPayment, &'static str> {
        if !self.used.insert((transfer.from, transfer.nonce)) {
            return Err("invalid_exact_evm_payload_nonce_used");
        }
        let payment = TakenPayment {
            transaction: format!("0x{}", hex::encode(Keccak256::digest(transfer.digest()))),
            network: transfer.coin.network,
            payer: transfer.from.to_string(),
            value: transfer.value.to_string(),
            resource: resource.to_owned(),
        };
        self.taken.push(payment.clone());
        Ok(payment)
    }

    /// Keeps what was bought by a transaction, for those who ask for it again.
    pub(super) fn keep(&mut self, transaction: &str, bought: Bought) {
        self.bought.push((transaction.to_owned(), bought));
    }

    /// The purchase that was paid by a transaction.
    pub(super) fn bought(&self, transaction: &str) -> Option<Bought> {
        let mut all = self.bought.iter();
        all.find(|(of, _)| of == transaction).map(|(_, bought)| *bought)
    }

    /// Every payment that was taken, in order.
    pub(super) fn taken(&self) -> &[TakenPayment] {
        &self.taken
    }
}
