//! The token by which a client is known, and its hash.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use k256::elliptic_curve::{Generate, subtle::ConstantTimeEq};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The start of every token, so that scanners for secrets find one that leaked.
pub(crate) const PREFIX: &str = "apmt_";

/// The random part of a token, in bytes.
const RANDOM: usize = 24;

/// The checksum at the end of a token, in bytes.
const CHECKSUM: usize = 4;

/// The length of a token, in bytes of text.
const LENGTH: usize = PREFIX.len() + 2 * (RANDOM + CHECKSUM);

/// Why a text is no token. Its text says what to do; it never repeats the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It does not look like one of ours.
    #[error("it is no token of this proxy, which begins with apmt_")]
    Foreign,
    /// There is one, but not where it belongs.
    #[error(
        "put `Bearer ` and nothing else in front of the token, as in Authorization: Bearer apmt_…"
    )]
    Misplaced,
    /// There is more than one header.
    #[error("it is given more than once; send one, as in Authorization: Bearer apmt_…")]
    Several,
    /// It was one before a character was lost, added or changed.
    #[error("a character of the token was lost, added or changed; copy all of it again")]
    Mistyped,
}

/// The secret of a client: `apmt_`, 48 hexadecimal digits of randomness, and 8 of a checksum over
/// the text before it. It does not print: only [`ClientToken::expose`] shows it.
#[derive(Clone)]
pub struct ClientToken(SecretString);

impl ClientToken {
    /// A new one.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn random() -> Self {
        let random = Zeroizing::new(<[u8; RANDOM]>::generate());
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(PREFIX);
        text.push_str(&Zeroizing::new(hex::encode(random)));
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Self(text.as_str().into())
    }

    /// The text, to be shown to the client alone.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether its checksum fits. If it does not, a character was lost, added or changed.
    pub fn is_intact(&self) -> bool {
        let parts = self.expose().split_at_checked(LENGTH - 2 * CHECKSUM);
        parts.is_some_and(|(body, given)| given == checksum(body))
    }

    /// Its hash, which is kept in its place.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.expose()).into())
    }
}

impl FromStr for ClientToken {
    type Err = InvalidToken;

    /// Checks the beginning alone; whether a client has the token is for the store to say.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.starts_with(PREFIX) { Ok(Self(text.into())) } else { Err(InvalidToken::Foreign) }
    }
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken([REDACTED])")
    }
}

/// The hexadecimal digits of the first bytes of SHA-256.
fn checksum(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..CHECKSUM])
}

/// SHA-256 of a token's text. A token is random enough that its hash needs neither salt nor work.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Takes the same time whatever the bytes.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Python: t = "apmt_" + "42" * 24; t + sha256(t.encode()).hexdigest()[:8]
    const TOKEN: &str =
        concat!("apmt_", "424242424242424242424242424242424242424242424242", "9ef01982");

    fn parse(text: &str) -> Result<String, InvalidToken> {
        match text.parse::<ClientToken>()? {
            token if token.is_intact() => Ok(token.expose().to_owned()),
            _ => Err(InvalidToken::Mistyped),
        }
    }

    #[test]
    fn a_token_is_its_prefix_its_digits_and_their_checksum() {
        assert_eq!(parse(TOKEN).as_deref(), Ok(TOKEN));
        let random = ClientToken::random();
        assert_eq!((random.expose().len(), parse(random.expose()).is_ok()), (61, true));
        assert_ne!(random.expose(), ClientToken::random().expose());
    }

    #[test]
    fn every_mistyped_character_is_found() {
        for at in PREFIX.len()..TOKEN.len() {
            let digit = if &TOKEN[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{digit}{}", &TOKEN[..at], &TOKEN[at + 1..]);
            assert_eq!(parse(&changed), Err(InvalidToken::Mistyped), "{at}");
            let lost = format!("{}{}", &TOKEN[..at], &TOKEN[at + 1..]);
            assert_eq!(parse(&lost), Err(InvalidToken::Mistyped), "{at}");
        }
        for text in ["apmt_", &format!("{TOKEN}0"), &TOKEN.replacen('4', "é", 1)] {
            assert_eq!(parse(text), Err(InvalidToken::Mistyped), "{text}");
        }
    }

    #[test]
    fn what_has_another_beginning_is_no_token() {
        let upper = TOKEN.to_uppercase();
        for text in ["", "apmt", "ghp_1234", &TOKEN[1..], &upper, &format!(" {TOKEN}")] {
            assert_eq!(parse(text), Err(InvalidToken::Foreign), "{text}");
        }
    }

    #[test]
    fn equal_tokens_and_no_others_have_equal_hashes() {
        let token: ClientToken = TOKEN.parse().unwrap();
        assert_eq!(token.hash(), TOKEN.parse::<ClientToken>().unwrap().hash());
        assert_ne!(token.hash(), ClientToken::random().hash());
        assert_eq!(
            hex::encode(token.hash().as_bytes()),
            "9979e7f6abfe99c2ac3260097f9f9fa66cd6238b1252315c36aa69d82f69d147"
        );
    }

    #[test]
    fn neither_token_nor_hash_prints() {
        let token: ClientToken = TOKEN.parse().unwrap();
        let printed = format!("{token:?} {:?}", token.hash());
        assert_eq!(printed, "ClientToken([REDACTED]) TokenHash([REDACTED])");
    }
}
