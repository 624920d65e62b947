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

/// The dearest price that was told of each call, by its path.
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
        known.get(&plain(&call.path())).copied()
    }

    /// Whether no price was told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Remembers the prices in a list of tools beside those of earlier ones. Of two prices the dearer counts, as
    /// a client chooses which part of the list it asks for.
    pub(super) fn learn(&self, list: &[u8]) {
        let [current, older] = ["tool_invoke", "invoke"].map(Action::named);
        let priced = credits::prices(list).into_iter().filter_map(|(ids, price)| {
            let action = if ids.len() == 1 { older } else { current };
            let ids: Result<Vec<Slug>, _> = ids.iter().map(|id| id.parse()).collect();
            Some((plain(&action?.path_with(&ids.ok()?)), price))
        });
        let priced: Vec<_> = priced.collect();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (path, price) in priced {
            if known.len() < MOST || known.contains_key(&path) {
                let told = known.entry(path).or_default();
                *told = price.max(*told);
            }
        }
    }

    /// Raises the price of a call, if it is known, to what was charged.
    pub(super) fn raise(&self, call: &Call, charged: CreditAmount) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(price) = known.get_mut(&plain(&call.path())) {
            *price = charged.max(*price);
        }
    }
}

/// One spelling of a path whose slugs servers take in several.
fn plain(path: &str) -> String {
    path.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The price of a call with these ids: a tool and its action, or the tool alone.
    fn price(prices: &Prices, ids: &[&str]) -> Option<String> {
        let name = if ids.len() == 1 { "invoke" } else { "tool_invoke" };
        let action = Action::named(name).unwrap();
        let call = Call::new(action, ids.iter().copied(), br#"{"parameters":{}}"#).unwrap();
        prices.of(&call).map(|price| price.to_string())
    }

    #[test]
    fn prices_are_merged_and_found_however_a_tool_is_named() {
        let prices = Prices::default();
        assert!(prices.is_empty());
        prices.learn(
            br#"[{"product_slug":"big_Tool","product_id":"64aB","actions":[
                {"slug":"do-it","price_credits":1000}, {"slug":"look","price_credits":1}]}]"#,
        );
        for other in
            ["[]", r#"[{"slug":"big-tool","actions":[{"slug":"do_it","price_credits":2}]}]"#]
        {
            prices.learn(other.as_bytes());
            for ids in
                [&["big-tool", "do-it"][..], &["BIG_TOOL", "Do_It"], &["64ab"], &["big-tool"]]
            {
                assert_eq!(price(&prices, ids).as_deref(), Some("1000"), "{ids:?}");
            }
        }
        assert_eq!(price(&prices, &["other", "do-it"]), None);
        assert!(!prices.is_empty());
    }

    #[test]
    fn a_known_price_is_raised_to_what_was_charged() {
        let prices = Prices::default();
        prices.learn(br#"[{"slug":"a","actions":[{"slug":"b","price_credits":5}]}]"#);
        let action = Action::named("tool_invoke").unwrap();
        for (ids, charged, known) in
            [(["a", "b"], "9", Some("9")), (["a", "b"], "1", Some("9")), (["a", "c"], "9", None)]
        {
            let call = Call::new(action, ids, br#"{"parameters":{}}"#).unwrap();
            prices.raise(&call, charged.parse().unwrap());
            assert_eq!(price(&prices, &ids).as_deref(), known, "{charged}");
        }
    }
}
