//! The credits of wallets, and everything that changed them (protocol §6, §9).

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::types::Address;

use super::{
    charge::{Charge, usd},
    error::ApiError,
};

/// A change of a wallet's credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// When it took effect.
    pub at: String,
    /// The wallet, in lower case.
    pub wallet: String,
    /// The credits that were added, or taken if negative.
    pub credits: i64,
    /// The credits that the wallet had then.
    pub balance_credits: i64,
    /// The job, tool or purchase that changed them.
    pub reason: String,
}

/// The credits of all wallets. A balance is the sum of its wallet's entries.
pub(super) struct Credits {
    /// The credits that a wallet has at first.
    first: i64,
    entries: Vec<LedgerEntry>,
    balances: HashMap<Address, i64>,
    /// Credits that wallets will have later.
    due: Vec<(Timestamp, Address, i64, String)>,
}

impl Credits {
    pub(super) fn new(first: i64) -> Self {
        Self { first, entries: Vec::new(), balances: HashMap::new(), due: Vec::new() }
    }

    /// Gives credits to a wallet, at a time that may lie ahead.
    pub(super) fn earn(&mut self, wallet: Address, credits: i64, at: Timestamp, reason: String) {
        self.due.push((at, wallet, credits, reason));
    }

    /// Takes the price of something from a wallet.
    ///
    /// # Errors
    /// [`ApiError::TooFewCredits`] if it has less; nothing is taken then.
    pub(super) fn spend(
        &mut self,
        wallet: Address,
        price: i64,
        now: Timestamp,
        reason: String,
    ) -> Result<Charge, ApiError> {
        let balance = self.balance(wallet, now);
        if balance < price {
            return Err(ApiError::TooFewCredits { price, balance });
        }
        if price > 0 {
            self.book(now, wallet, -price, reason);
        }
        Ok(Charge { price, balance: balance - price })
    }

    pub(super) fn balance(&mut self, wallet: Address, now: Timestamp) -> i64 {
        self.settle(now);
        self.open(wallet, now);
        self.balances.get(&wallet).copied().unwrap_or_default()
    }

    /// The answer to a question for the balance.
    pub(super) fn answer(&mut self, wallet: Address, now: Timestamp) -> Value {
        let balance = self.balance(wallet, now);
        json!({
            "wallet_address": wallet.to_string(),
            "balance_credits": balance,
            "balance_usd": usd(balance),
        })
    }

    /// Every change so far, in order.
    pub(super) fn ledger(&mut self, now: Timestamp) -> &[LedgerEntry] {
        self.settle(now);
        &self.entries
    }

    /// Books what is due, in the order of time.
    fn settle(&mut self, now: Timestamp) {
        let mut due: Vec<_> = self.due.extract_if(.., |(at, ..)| *at <= now).collect();
        due.sort_by_key(|(at, ..)| *at);
        for (at, wallet, credits, reason) in due {
            self.book(at, wallet, credits, reason);
        }
    }

    /// Gives a wallet what it has at first.
    fn open(&mut self, wallet: Address, now: Timestamp) {
        if self.first > 0 && !self.balances.contains_key(&wallet) {
            self.change(now, wallet, self.first, "gift".to_owned());
        }
    }

    fn book(&mut self, at: Timestamp, wallet: Address, credits: i64, reason: String) {
        self.open(wallet, at);
        self.change(at, wallet, credits, reason);
    }

    fn change(&mut self, at: Timestamp, wallet: Address, credits: i64, reason: String) {
        let balance = self.balances.entry(wallet).or_default();
        *balance += credits;
        let (at, wallet, balance_credits) = (at.to_string(), wallet.to_string(), *balance);
        self.entries.push(LedgerEntry { at, wallet, credits, balance_credits, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn credits_count_from_their_time_on_and_are_spent_once() {
        let (one, other) = (Address::new([1; 20]), Address::new([2; 20]));
        let mut credits = Credits::new(0);
        credits.earn(one, 30, at(9), "job b".into());
        credits.earn(one, 20, at(5), "job a".into());
        assert_eq!(credits.balance(one, at(4)), 0);
        assert!(credits.spend(one, 1, at(4), "tool".into()).is_err());
        assert_eq!(credits.spend(one, 15, at(8), "tool".into()).unwrap().balance, 5);
        assert!(credits.spend(one, 6, at(8), "tool".into()).is_err());
        assert!(credits.spend(other, 1, at(100), "tool".into()).is_err());
        assert_eq!(credits.spend(one, 0, at(100), "free".into()).unwrap().balance, 35);

        let entries = credits.ledger(at(100));
        let changes: Vec<_> = entries.iter().map(|e| (e.credits, e.balance_credits)).collect();
        assert_eq!(changes, [(20, 20), (-15, 5), (30, 35)]);
    }
}
