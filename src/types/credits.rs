//! Amounts of credits (protocol §9). There are no floats, since a float would round money.

use std::{fmt, str::FromStr};

use super::invalid_value::InvalidValue;

/// How many digits behind the point count.
const DECIMALS: usize = 6;

/// The most credits that an amount can be.
const MOST: u64 = 1_000_000_000;

/// An amount of credits, in millionths of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct CreditAmount(u64);

impl CreditAmount {
    /// So many millionths.
    pub(crate) const fn from_millionths(millionths: u64) -> Self {
        Self(millionths)
    }

    /// The number of millionths.
    pub(crate) const fn millionths(self) -> u64 {
        self.0
    }

    /// The sum, or the largest amount.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing.
    #[must_use]
    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl FromStr for CreditAmount {
    type Err = InvalidValue;

    /// Takes digits with or without a point between them, as in a JSON number without exponent. Less than a
    /// millionth counts as one.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if !is_number(whole) || !is_number(fraction) {
            return Err(InvalidValue::Credits);
        }
        let whole: u64 = whole.parse().map_err(|_| InvalidValue::Credits)?;
        let (counted, rest) = fraction.split_at(fraction.len().min(DECIMALS));
        // Six digits are a number.
        let millionths: u64 = format!("{counted:0<DECIMALS$}").parse().unwrap_or_default();
        let more = u64::from(rest.bytes().any(|digit| digit != b'0'));
        let all = whole.checked_mul(1_000_000).map(|all| all + millionths + more);
        let all = all.filter(|all| *all <= MOST * 1_000_000);
        all.map(Self).ok_or(InvalidValue::Credits)
    }
}

impl fmt::Display for CreditAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{fraction:0DECIMALS$}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_decimals_and_what_is_finer_counts_as_more() {
        for (text, millionths, shown) in [
            ("0", 0, "0"),
            ("500", 500_000_000, "500"),
            ("0.5", 500_000, "0.5"),
            ("12.340", 12_340_000, "12.34"),
            ("1.0000001", 1_000_001, "1.000001"),
            ("1.9999999", 2_000_000, "2"),
            ("1000000000", 1_000_000_000_000_000, "1000000000"),
        ] {
            let credits: CreditAmount = text.parse().unwrap();
            assert_eq!((credits.0, &*credits.to_string()), (millionths, shown), "{text}");
        }
        let huge = "9".repeat(40);
        for text in ["", ".5", "5.", "-1", "+1", "1e3", " 1", "1000000001", "1000000000.1", &huge] {
            assert_eq!(text.parse::<CreditAmount>(), Err(InvalidValue::Credits), "{text}");
        }
    }
}
