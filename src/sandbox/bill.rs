//! The bill of a call, and the check of a payment against it (protocol §9.1).

use std::str::FromStr;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::types::Address;

use super::{
    fault::Twist,
    header::decoded,
    transfer::{COINS, Coin, Transfer},
};

/// The wallet that is paid.
pub(super) const PAYEE: Address = Address::new([0x11; 20]);

/// How long a payment may be valid, in seconds.
const MAX_TIMEOUT: u64 = 300;

/// Base units of a credit: 100 credits are 1 USD, which has 6 decimals.
const UNITS_OF_A_CREDIT: i64 = 10_000;

/// The price of something, and the URL that it is paid for.
pub(super) struct Bill {
    pub(super) url: String,
    amount: u128,
}

impl Bill {
    /// The price of as many credits at a path. The URL is that of the live server, so that a
    /// configuration for it fits the sandbox.
    pub(super) fn new(path: &str, credits: i64) -> Self {
        let amount = credits.saturating_mul(UNITS_OF_A_CREDIT).unsigned_abs().into();
        Self { url: format!("https://www.agentpmt.com{path}"), amount }
    }

    /// The challenge of a 402.
    pub(super) fn challenge(&self, twist: Option<Twist>) -> Value {
        let offers: Vec<_> = COINS.iter().map(|coin| self.offer(coin, twist)).collect();
        json!({"x402Version": 2, "error": "payment required", "resource": self.resource(),
               "accepts": offers})
    }

    fn resource(&self) -> Value {
        json!({"url": self.url, "mimeType": "application/json"})
    }

    fn offer(&self, coin: &Coin, twist: Option<Twist>) -> Value {
        let is = |other| twist == Some(other);
        let amount = if is(Twist::Amount) { self.amount.saturating_mul(10) } else { self.amount };
        let payee = if is(Twist::Payee) { Address::new([0x22; 20]) } else { PAYEE };
        json!({
            "scheme": "exact",
            "network": coin.network,
            "amount": amount.to_string(),
            "asset": coin.contract,
            "payTo": payee.to_string(),
            "maxTimeoutSeconds": MAX_TIMEOUT,
            "extra": {
                "name": if is(Twist::Domain) { "Coin of another" } else { coin.name },
                "version": coin.version,
            },
        })
    }

    /// The transfer in a payment header, if it pays this bill now.
    ///
    /// # Errors
    /// The word for the reason, as x402 has it.
    pub(super) fn check(&self, header: &[u8], now: Timestamp) -> Result<Transfer, &'static str> {
        let envelope = decoded(header).ok_or("invalid_payload")?;
        let coin = self.chosen(&envelope)?;
        let transfer = transfer(coin, &envelope["payload"]).ok_or("invalid_payload")?;
        let now = u64::try_from(now.as_second()).unwrap_or_default();
        if transfer.to != PAYEE {
            return Err("invalid_exact_evm_payload_recipient_mismatch");
        }
        if transfer.value != self.amount {
            return Err("invalid_exact_evm_payload_authorization_value");
        }
        if transfer.valid_after > now {
            return Err("invalid_exact_evm_payload_authorization_valid_after");
        }
        if transfer.valid_before <= now || transfer.valid_before > now + MAX_TIMEOUT {
            return Err("invalid_exact_evm_payload_authorization_valid_before");
        }
        if transfer.is_signed() { Ok(transfer) } else { Err("invalid_exact_evm_payload_signature") }
    }

    /// The token of the entry that was chosen: verbatim, or by the older envelope with its network.
    fn chosen(&self, envelope: &Value) -> Result<&'static Coin, &'static str> {
        let is_chosen = |coin: &&Coin| match &envelope["accepted"] {
            Value::Null => envelope["network"] == coin.network && envelope["scheme"] == "exact",
            accepted => *accepted == self.offer(coin, None),
        };
        let is_verbatim = envelope["accepted"].is_null() || envelope["resource"] == self.resource();
        let coin = COINS.iter().find(is_chosen).filter(|_| is_verbatim);
        coin.ok_or("invalid_payment_requirements")
    }
}

fn transfer(coin: &'static Coin, payload: &Value) -> Option<Transfer> {
    let authorization = &payload["authorization"];
    Some(Transfer {
        coin,
        from: part(&authorization["from"])?,
        to: part(&authorization["to"])?,
        value: part(&authorization["value"])?,
        valid_after: part(&authorization["validAfter"])?,
        valid_before: part(&authorization["validBefore"])?,
        nonce: nonce(authorization["nonce"].as_str()?)?,
        signature: part(&payload["signature"])?,
    })
}

fn part<T: FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

fn nonce(text: &str) -> Option<[u8; 32]> {
    let mut nonce = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut nonce).ok()?;
    Some(nonce)
}
