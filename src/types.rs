//! The values that enter a signed message or a payment, and those by which a client is known, each
//! parsed once and trusted from then on.
//!
//! A value that carried a line break could forge another line of the message, so what enters it
//! holds printable ASCII without space and nothing else (protocol §2).

mod client_id;
mod client_token;
mod invalid_value;
mod seal_key;

mod client_name;
mod credential;
mod credits;
mod money;
mod network;

use std::{fmt, str::FromStr, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

pub(crate) use self::client_token::PREFIX as TOKEN_PREFIX;
pub use self::{
    client_id::ClientId,
    client_name::ClientName,
    client_token::{ClientToken, InvalidToken, TokenHash},
    credential::{CertificateHash, Credential},
    credits::CreditAmount,
    invalid_value::InvalidValue,
    money::{Amount, BaseUnits},
    network::Network,
    seal_key::SealKey,
};

/// The longest id of a path, in bytes.
const MAX_SLUG: usize = 128;

/// The longest other value of a line, in bytes: room for a nonce that is a signed token.
const MAX_LINE: usize = 1024;

fn is_line_value(text: &str) -> bool {
    (1..=MAX_LINE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(bytes)
}

/// Writes bytes as lower-case hexadecimal digits, without a string in between.
pub(crate) fn write_hex(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.chunks(64).try_for_each(|part| {
        let mut pairs = [[0; 2]; 64];
        for (pair, byte) in pairs.iter_mut().zip(part) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        let digits = str::from_utf8(pairs[..part.len()].as_flattened());
        out.write_str(digits.map_err(|_| fmt::Error)?)
    })
}

/// An Ethereum address: 20 bytes, written as `0x` and 40 lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address([u8; 20]);

impl Address {
    /// The address with these bytes.
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl FromStr for Address {
    type Err = InvalidValue;

    /// Takes any case; the mixed-case checksum of EIP-55 is not asked for.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse_hex(text).map(Self).ok_or(InvalidValue::Address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of one request: used once within a session, and for `x-request-id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A fresh id: a random UUID (version 4).
    pub fn random() -> Self {
        let mut text = Uuid::encode_buffer();
        Self(Arc::from(&*Uuid::new_v4().hyphenated().encode_lower(&mut text)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if is_line_value(text) { Ok(Self(text.into())) } else { Err(InvalidValue::Line) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key under which a client wants a change to be made at most once: the header
/// `Idempotency-Key` of the IETF's draft, with its quotes or, as many send it, without.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if is_line_value(bare) { Ok(Self(bare.to_owned())) } else { Err(InvalidValue::Line) }
    }
}

/// The nonce of a wallet's session. With it and a signature one can call as the wallet, so it
/// does not print.
#[derive(Debug, Clone)]
pub struct SessionNonce(Arc<SecretString>);

impl SessionNonce {
    /// The nonce as text, for the message and the envelope only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for SessionNonce {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl FromStr for SessionNonce {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if is_line_value(text) { Ok(Self(Arc::new(text.into()))) } else { Err(InvalidValue::Line) }
    }
}

/// An id that is one segment of a path, such as a job id: `[A-Za-z0-9._~-]{1,128}`, never `.` or
/// `..`. None of its characters needs escaping in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slug(Arc<str>);

impl Slug {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is the same id: hexadecimal digits may be in upper case.
    pub fn is_same(&self, text: &str) -> bool {
        self.0.eq_ignore_ascii_case(text)
    }
}

impl FromStr for Slug {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let fits = (1..=MAX_SLUG).contains(&text.len()) && text.bytes().all(unreserved);
        if text.contains(TOKEN_PREFIX) {
            Err(InvalidValue::Token)
        } else if fits && text != "." && text != ".." {
            Ok(Self(text.into()))
        } else {
            Err(InvalidValue::Slug)
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A recoverable ECDSA signature: `r` (32 bytes), `s` (32), `v` (27 or 28). It does not print by
/// accident: only [`Signature::to_hex`] shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 65]);

impl Signature {
    /// The signature with these bytes.
    pub fn new(bytes: [u8; 65]) -> Self {
        Self(bytes)
    }

    /// `r`, `s` and `v`.
    pub fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }

    /// The wire form: `0x` and 130 lower-case digits.
    pub fn to_hex(&self) -> String {
        let mut text = String::with_capacity(2 + 2 * self.0.len());
        text.push_str("0x");
        // Writing into a `String` cannot fail.
        let _ = write_hex(&mut text, &self.0);
        text
    }
}

impl FromStr for Signature {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse_hex(text).map(Self).ok_or(InvalidValue::Signature)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_value_holds_printable_ascii_without_space() {
        for text in ["", "a b", "a\nb", "a\rb", "a\tb", "a\u{7f}", "\u{2028}", "é", "\0"] {
            assert_eq!(text.parse::<RequestId>(), Err(InvalidValue::Line), "{text:?}");
            assert_eq!(text.parse::<SessionNonce>(), Err(InvalidValue::Line), "{text:?}");
        }
        assert!("x".repeat(1025).parse::<RequestId>().is_err());
        assert!("job:1/ü".parse::<RequestId>().is_err());
        assert!("job:1/!~".parse::<RequestId>().is_ok());
    }

    #[test]
    fn a_slug_needs_no_escaping_and_does_not_climb() {
        for text in ["", ".", "..", "a/b", "a%2Fb", "a b", "a\n", "é", "a?b", "a;b", "a\0"] {
            assert_eq!(text.parse::<Slug>(), Err(InvalidValue::Slug), "{text:?}");
        }
        assert_eq!("apmt_0".parse::<Slug>(), Err(InvalidValue::Token));
        assert!("x".repeat(129).parse::<Slug>().is_err());
        assert!("507f1f77bcf86cd799439011".parse::<Slug>().is_ok());
        assert!("...a-B_c~9".parse::<Slug>().is_ok());
    }

    #[test]
    fn an_address_is_written_in_lower_case() {
        let text = "0x17c5185167401eD00cF5F5b2fc97D9BBfDb7D025";
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text.to_lowercase());
        assert!("17c5185167401eD00cF5F5b2fc97D9BBfDb7D025".parse::<Address>().is_err());
        assert!("0x17c5".parse::<Address>().is_err());
    }

    #[test]
    fn nonce_and_signature_do_not_print() {
        let nonce: SessionNonce = "nonce-1234".parse().unwrap();
        assert!(!format!("{nonce:?}").contains("1234"));
        let signature = Signature::new([0xab; 65]);
        assert!(!format!("{signature:?}").contains("abab"));
    }
}
