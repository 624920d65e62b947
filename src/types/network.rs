//! The chain on which a payment settles.

use std::{fmt, str::FromStr};

use super::invalid_value::InvalidValue;

/// An EVM chain by its CAIP-2 name: `eip155:8453`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(u64);

impl Network {
    /// The chain with this number.
    pub const fn new(chain_id: u64) -> Self {
        Self(chain_id)
    }

    /// The number of the chain, which a signature is bound to.
    pub const fn chain_id(self) -> u64 {
        self.0
    }
}

impl FromStr for Network {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let digits = text.strip_prefix("eip155:").ok_or(InvalidValue::Network)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        let number = digits.parse().ok().filter(|_| is_plain);
        number.map(Self).ok_or(InvalidValue::Network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_eip155_and_the_number_of_the_chain() {
        assert_eq!("eip155:8453".parse(), Ok(Network(8453)));
        assert_eq!(Network(84532).to_string(), "eip155:84532");
        for text in
            ["", "8453", "base", "eip155:", "eip155:0", "eip155:08", "eip155:+1", "solana:1"]
        {
            assert_eq!(text.parse::<Network>(), Err(InvalidValue::Network), "{text:?}");
        }
    }
}
