//! How many credits a client may spend.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use super::spend_limit::SpendWindow;
use crate::types::CreditAmount;

/// In how many parts a window moves on: what was spent counts until the end of its part.
const PARTS: i64 = 96;

/// A number of credits in a rolling window, as in `500/day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditLimit {
    /// The most credits.
    pub credits: CreditAmount,
    /// The time in which they are the most.
    pub window: SpendWindow,
}

/// A text is no limit of credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of credits and its period, such as 500/day or 5000/month")]
pub struct InvalidCreditLimit;

impl CreditLimit {
    /// When credits that are spent at this time no longer count: a window later, and up to a 96th of it.
    pub(crate) fn ends(self, at: Timestamp) -> Timestamp {
        let part = self.window.length().as_secs() / PARTS;
        let seconds = self.window.end_of(at).as_second();
        Timestamp::from_second((seconds / part + 1).saturating_mul(part)).unwrap_or(Timestamp::MAX)
    }
}

impl FromStr for CreditLimit {
    type Err = InvalidCreditLimit;

    fn from_str(text: &str) -> Result<Self, InvalidCreditLimit> {
        let (credits, window) = text.split_once('/').ok_or(InvalidCreditLimit)?;
        let credits = credits.parse().map_err(|_| InvalidCreditLimit)?;
        let window = SpendWindow::named(window).ok_or(InvalidCreditLimit)?;
        Ok(Self { credits, window })
    }
}

impl fmt::Display for CreditLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.credits, self.window.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_credits_and_a_window() {
        for text in ["500/day", "0.5/month", "0/day"] {
            assert_eq!(text.parse::<CreditLimit>().unwrap().to_string(), text);
        }
        for text in ["", "500", "/day", "500/", "-5/day", "500/year", "500 /day", "5e2/day"] {
            assert_eq!(text.parse::<CreditLimit>(), Err(InvalidCreditLimit), "{text:?}");
        }
    }

    #[test]
    fn what_is_spent_counts_for_a_window_and_at_most_a_96th_more() {
        let limit: CreditLimit = "500/day".parse().unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(limit.ends(at(0)), at(24 * 3600 + 900));
        assert_eq!(limit.ends(at(899)), at(24 * 3600 + 900));
        assert_eq!(limit.ends(at(900)), at(24 * 3600 + 1800));
        assert_eq!(limit.ends(Timestamp::MAX), Timestamp::MAX);
    }
}
