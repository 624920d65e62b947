//! The name of a client.

use std::{fmt, str::FromStr, sync::Arc};

use super::invalid_value::InvalidValue;

/// The longest name, in bytes.
const MAX: usize = 64;

/// The name of local callers while no client is added.
const LOCAL: &str = "local";

/// The name of a client: `[A-Za-z0-9._-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(Arc<str>);

impl ClientName {
    /// The name `local`, of local callers while no client is added. No added client may have it.
    pub fn local() -> Self {
        Self(LOCAL.into())
    }

    /// Whether it is `local`.
    pub fn is_local(&self) -> bool {
        &*self.0 == LOCAL
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.into())) } else { Err(InvalidValue::ClientName) }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_64_plain_characters() {
        for text in ["", "a b", "a:b", "a/b", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(text.parse::<ClientName>(), Err(InvalidValue::ClientName), "{text:?}");
        }
        for text in ["a", "Build-Agent_7.eu", &"x".repeat(64)] {
            assert_eq!(text.parse::<ClientName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn the_local_client_is_known_by_its_name() {
        assert_eq!("local".parse::<ClientName>(), Ok(ClientName::local()));
        assert!(ClientName::local().is_local());
        assert!(!"Local".parse::<ClientName>().unwrap().is_local());
    }
}
