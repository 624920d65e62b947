//! The credits of wallets.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::types::Address;

/// The credits that each wallet earned, with the time from which it has them.
#[derive(Default)]
pub(super) struct Credits(HashMap<Address, Vec<(Timestamp, u64)>>);

impl Credits {
    /// Pays a wallet at a time, which may lie ahead.
    pub(super) fn earn(&mut self, wallet: Address, credits: u64, at: Timestamp) {
        self.0.entry(wallet).or_default().push((at, credits));
    }

    pub(super) fn balance(&self, wallet: Address, now: Timestamp) -> u64 {
        let entries = self.0.get(&wallet).into_iter().flatten();
        entries.filter(|(at, _)| *at <= now).map(|(_, credits)| credits).sum()
    }
}
