//! Amounts of a token (protocol §9.1): whole numbers of its base units, and decimals for people. There
//! are no floats, since a float would round money.

use std::{fmt, str::FromStr};

use super::invalid_value::InvalidValue;

/// The most digits behind the point. A token has 18 at most.
const MAX_DECIMALS: u8 = 18;

/// A number of base units of a token: 1 USDC has 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUnits(u128);

impl BaseUnits {
    /// This number of base units.
    pub const fn new(units: u128) -> Self {
        Self(units)
    }

    /// The number.
    pub const fn number(self) -> u128 {
        self.0
    }

    /// The same as a decimal, for a token with these decimals.
    pub fn to_amount(self, decimals: u8) -> Amount {
        Amount { units: self.0, decimals: decimals.min(MAX_DECIMALS) }.shortest()
    }
}

impl FromStr for BaseUnits {
    type Err = InvalidValue;

    /// Takes digits only, without leading zeros.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_plain = text == "0" || !text.starts_with('0');
        number(text).filter(|_| is_plain).map(Self).ok_or(InvalidValue::BaseUnits)
    }
}

impl fmt::Display for BaseUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An amount of a token as people write it: `5`, `0.05`. Amounts are compared in base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount {
    units: u128,
    /// How many of the digits stand behind the point. The last one is not zero.
    decimals: u8,
}

impl Amount {
    /// The base units of a token with these decimals; `None` if the amount is finer than they are, or too
    /// large.
    pub fn to_base_units(self, decimals: u8) -> Option<BaseUnits> {
        let factor = 10_u128.checked_pow(decimals.checked_sub(self.decimals)?.into())?;
        self.units.checked_mul(factor).map(BaseUnits)
    }

    fn shortest(mut self) -> Self {
        while self.decimals > 0 && self.units.is_multiple_of(10) {
            self.units /= 10;
            self.decimals -= 1;
        }
        self
    }
}

impl FromStr for Amount {
    type Err = InvalidValue;

    /// Takes digits with or without a point between them: no sign, no exponent, no space.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let amount = match text.split_once('.') {
            None => number(text).map(|units| Self { units, decimals: 0 }),
            Some((whole, fraction)) => {
                let decimals = u8::try_from(fraction.len()).ok();
                let decimals = decimals.filter(|count| *count <= MAX_DECIMALS);
                let both = number(whole).and(number(fraction));
                let units = both.and_then(|_| number(&format!("{whole}{fraction}")));
                units.zip(decimals).map(|(units, decimals)| Self { units, decimals })
            }
        };
        amount.map(Self::shortest).ok_or(InvalidValue::Amount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 10^18 fits.
        let factor = 10_u128.pow(self.decimals.into());
        write!(f, "{}", self.units / factor)?;
        match usize::from(self.decimals) {
            0 => Ok(()),
            width => write!(f, ".{:0width$}", self.units % factor),
        }
    }
}

/// The number of a text that holds digits and nothing else.
fn number(text: &str) -> Option<u128> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    #[test]
    fn an_amount_becomes_base_units_by_the_decimals_of_its_token() {
        for (text, decimals, units) in [
            ("5", 6, 5_000_000),
            ("0.05", 6, 50_000),
            ("0.000001", 6, 1),
            ("1.50", 1, 15),
            ("007", 0, 7),
            ("0", 18, 0),
            ("340282366920938463463374607431768211455", 0, u128::MAX),
            ("340282366920938463463.374607431768211455", 18, u128::MAX),
        ] {
            assert_eq!(amount(text).to_base_units(decimals), Some(BaseUnits(units)), "{text}");
        }
        assert_eq!(amount("0.0000001").to_base_units(6), None, "finer than a base unit");
        assert_eq!(amount("1000000000000000000000").to_base_units(18), None, "too large");
    }

    #[test]
    fn base_units_are_shown_as_the_shortest_decimal() {
        for (units, decimals, text) in [
            (5_000_000, 6, "5"),
            (50_000, 6, "0.05"),
            (1, 6, "0.000001"),
            (10, 0, "10"),
            (0, 6, "0"),
        ] {
            assert_eq!(BaseUnits(units).to_amount(decimals).to_string(), text);
            assert_eq!(amount(text).to_base_units(decimals), Some(BaseUnits(units)));
        }
    }

    #[test]
    fn anything_but_digits_and_one_point_is_no_amount() {
        for text in [
            "",
            ".",
            "5.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,5",
            "1 ",
            " 1",
            "0x1",
            "1_000",
            "NaN",
            "1.2.3",
            "٣",
            "0.0000000000000000001",
            "340282366920938463463374607431768211456",
        ] {
            assert_eq!(text.parse::<Amount>(), Err(InvalidValue::Amount), "{text:?}");
        }
        for text in ["", "01", "00", "-1", "+1", "1.0", "1e3", "0x1", " 1", "٣"] {
            assert_eq!(text.parse::<BaseUnits>(), Err(InvalidValue::BaseUnits), "{text:?}");
        }
        assert_eq!("0".parse(), Ok(BaseUnits(0)));
    }
}
