//! How many credits a client has left, and how many a call holds: rules over rows, which read and write
//! nothing.

use jiff::Timestamp;

use crate::{
    policy::{Client, CreditLimit, Denied},
    types::CreditAmount,
};

/// Credits that count against a client's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CountedCredits {
    pub(super) credits: CreditAmount,
    /// When they no longer count.
    pub(super) ends: Timestamp,
    /// Whether they are held for a call whose charge is not known: it is under way, or its answer was lost.
    pub(super) is_held: bool,
}

/// All that counts against a client's limit, the first to end first.
#[derive(Debug)]
pub(super) struct CreditUse(pub(super) Vec<CountedCredits>);

impl CreditUse {
    /// How many credits are left.
    pub(super) fn left(&self, limit: CreditLimit) -> CreditAmount {
        limit.credits.minus(self.sum())
    }

    fn sum(&self) -> CreditAmount {
        self.0.iter().fold(CreditAmount::default(), |sum, counted| sum.plus(counted.credits))
    }

    /// How many credits a call holds before it is made: its price, or all that are left if that is not known.
    /// So only one call of unknown price is under way at a time.
    ///
    /// # Errors
    /// Fewer are left, or none: then a call of price 0 is not made either, as it may be charged all the same.
    pub(super) fn hold(
        &self,
        client: &Client,
        limit: CreditLimit,
        price: Option<CreditAmount>,
    ) -> Result<CreditAmount, Denied> {
        let left = self.left(limit);
        let is_enough = |left: CreditAmount| {
            left > CreditAmount::default() && price.is_none_or(|price| price <= left)
        };
        if is_enough(left) {
            return Ok(price.unwrap_or(left));
        }
        let mut still = self.sum();
        let until = self.0.iter().find_map(|counted| {
            still = still.minus(counted.credits);
            is_enough(limit.credits.minus(still)).then_some(counted.ends)
        });
        let is_held = self.0.iter().any(|counted| counted.is_held);
        let client = client.name.clone();
        Err(Denied::CreditLimit { client, limit, left, price, until, is_held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credits(text: &str) -> CreditAmount {
        text.parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Credits that end at these times.
    fn used(all: &[(&str, i64)]) -> CreditUse {
        let counted = |(text, ends): &(&str, i64)| CountedCredits {
            credits: credits(text),
            ends: at(*ends),
            is_held: false,
        };
        CreditUse(all.iter().map(counted).collect())
    }

    /// The credits that a call holds of 100 a day, or the rest and until when it lasts.
    fn hold(
        used: &CreditUse,
        price: Option<&str>,
    ) -> Result<CreditAmount, (CreditAmount, Option<Timestamp>)> {
        let limit = "100/day".parse().unwrap();
        used.hold(&Client::local(), limit, price.map(credits)).map_err(|denied| match denied {
            Denied::CreditLimit { left, until, .. } => (left, until),
            other => panic!("{other}"),
        })
    }

    #[test]
    fn a_call_holds_its_price_or_else_all_that_is_left() {
        let none = used(&[]);
        assert_eq!(hold(&none, Some("30")), Ok(credits("30")));
        assert_eq!(hold(&none, Some("100")), Ok(credits("100")));
        assert_eq!(hold(&none, None), Ok(credits("100")));
        let some = used(&[("40", 10), ("59.5", 20)]);
        assert_eq!(hold(&some, Some("0.5")), Ok(credits("0.5")));
        assert_eq!(hold(&some, None), Ok(credits("0.5")));
        assert_eq!(hold(&some, Some("0")), Ok(credits("0")));
    }

    #[test]
    fn a_call_that_does_not_fit_is_told_when_it_does() {
        let some = used(&[("40", 10), ("59.5", 20)]);
        let left = credits("0.5");
        assert_eq!(hold(&some, Some("40.5")), Err((left, Some(at(10)))));
        assert_eq!(hold(&some, Some("41")), Err((left, Some(at(20)))));
        assert_eq!(hold(&some, Some("101")), Err((left, None)), "it never fits");
        let full = used(&[("60", 10), ("100", 20)]);
        assert_eq!(hold(&full, None), Err((credits("0"), Some(at(20)))), "more than the limit");
        assert_eq!(hold(&full, Some("0")), Err((credits("0"), Some(at(20)))), "a free call too");
        let none = "0/day".parse().unwrap();
        for price in [None, Some(credits("0"))] {
            let held = used(&[]).hold(&Client::local(), none, price);
            assert!(matches!(held, Err(Denied::CreditLimit { until: None, .. })), "{held:?}");
        }
    }
}
