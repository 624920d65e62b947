//! The prices of tool calls, from the lists of tools that passed through.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use crate::{
    action::{Action, Effect},
    call::Call,
    credits,
    types::{CreditAmount, Slug},
};

/// How many prices are remembered.
const MOST: usize = 10_000;

/// The last price that was told of each path.
#[derive(Debug, Default)]
pub(super) struct Prices(RwLock<HashMap<String, CreditAmount>>);

impl Prices {
    /// The price of a call, if it spends credits and was told.
    pub(super) fn of(&self, call: &Call) -> Option<CreditAmount> {
        if call.action().effect != Effect::Spends {
            return None;
        }
        // Nothing here panics while it holds the lock, nor below.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&call.path()).copied()
    }

    /// Remembers the prices in a list of tools, in place of those of an earlier one.
    pub(super) fn learn(&self, list: &[u8]) {
        let Some(action) = Action::named("tool_invoke") else { return };
        let priced = credits::prices(list).into_iter().take(MOST);
        let priced = priced.filter_map(|([product, name], price)| {
            let ids: [Slug; 2] = [product.parse().ok()?, name.parse().ok()?];
            Some((action.path_with(&ids), price))
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = priced.collect();
    }
}
