//! How much a client may pay.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp};

use crate::types::Amount;

/// An amount in a rolling window, as in `5/day` or `50/month`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendLimit {
    /// The most, in the unit of the token.
    pub amount: Amount,
    /// The time in which it is the most.
    pub window: SpendWindow,
}

/// The time over which payments are summed: it ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendWindow {
    /// 24 hours.
    Day,
    /// 30 days.
    Month,
}

/// A text is no limit of payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an amount and its period, such as 5/day or 12.50/month")]
pub struct InvalidSpendLimit;

impl SpendWindow {
    const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// The window of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// How long it is.
    pub fn length(self) -> SignedDuration {
        SignedDuration::from_hours(match self {
            Self::Day => 24,
            Self::Month => 30 * 24,
        })
    }

    /// When a payment of this time counts no longer.
    pub fn end_of(self, at: Timestamp) -> Timestamp {
        at.saturating_add(self.length()).unwrap_or(Timestamp::MAX)
    }
}

impl FromStr for SpendLimit {
    type Err = InvalidSpendLimit;

    fn from_str(text: &str) -> Result<Self, InvalidSpendLimit> {
        let (amount, name) = text.split_once('/').ok_or(InvalidSpendLimit)?;
        let (Ok(amount), Some(window)) = (amount.parse(), SpendWindow::named(name)) else {
            return Err(InvalidSpendLimit);
        };
        Ok(Self { amount, window })
    }
}

impl fmt::Display for SpendLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, self.window.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_an_amount_and_a_window() {
        for text in ["5/day", "12.5/month"] {
            assert_eq!(text.parse::<SpendLimit>().unwrap().to_string(), text);
        }
        for text in ["", "5", "5/", "/day", "5/hour", "-5/day", "5 /day", "5/day/day", "5e1/day"] {
            assert_eq!(text.parse::<SpendLimit>(), Err(InvalidSpendLimit), "{text:?}");
        }
    }
}
