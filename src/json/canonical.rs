//! Canonical JSON: a value, an object field by field, and the hash.
//!
//! The form is that of Python's `json.dumps(value, sort_keys=True, separators=(",", ":"))`, with
//! one change: a float with an integral value below 1e21 is written as an integer, as a JavaScript
//! hop would write it (protocol §4).

use std::{collections::BTreeMap, fmt};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    canonicalizer::Canonicalizer, encoding, error::JsonError, string::write_string,
    walk::string_length,
};
use crate::types::write_hex;

/// A JSON value in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalJson(String);

impl CanonicalJson {
    /// The canonical form of a JSON text.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        Canonicalizer::over(checked(text)?).finish().map(Self)
    }

    /// The canonical form of a string.
    pub fn string(text: &str) -> Self {
        let mut out = String::with_capacity(text.len() + 2);
        write_string(&mut out, text);
        Self(out)
    }

    /// The canonical form of an integer.
    pub fn integer(value: u64) -> Self {
        Self(value.to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it holds an integer beyond 2^53 − 1, which a hop in JavaScript may change (protocol §4).
    pub fn has_large_integer(&self) -> bool {
        let mut rest = self.0.as_str();
        while !rest.is_empty() {
            let (scalars, from) = rest.split_at(rest.find('"').unwrap_or(rest.len()));
            if scalars.split([',', ':', '[', ']', '{', '}']).any(is_large_integer) {
                return true;
            }
            rest = &from[string_length(from)..];
        }
        false
    }

    /// SHA-256 of the text.
    pub fn hash(&self) -> PayloadHash {
        PayloadHash(Sha256::digest(&self.0).into())
    }
}

impl From<CanonicalJson> for String {
    fn from(json: CanonicalJson) -> Self {
        json.0
    }
}

/// The hash of a canonical payload; prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PayloadHash([u8; 32]);

impl fmt::Display for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A JSON object with values in canonical form, so that fields can be dropped and added before the
/// whole is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object(BTreeMap<String, CanonicalJson>);

impl Object {
    /// Takes an object apart.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        // A later field takes the place of an earlier one of its name.
        let mut fields = BTreeMap::new();
        Canonicalizer::over(checked(text)?).each_field(|name, value| {
            fields.insert(name.into_owned(), CanonicalJson(value));
        })?;
        Ok(Self(fields))
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&CanonicalJson> {
        self.0.get(name)
    }

    /// The text of a field that is a string.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.field(name)?.as_str()).ok()
    }

    /// Sets a field.
    pub fn insert(&mut self, name: &str, value: CanonicalJson) {
        self.0.insert(name.to_owned(), value);
    }

    /// Keeps the fields for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&str, &CanonicalJson) -> bool) {
        self.0.retain(|name, value| keep(name, value));
    }

    /// The whole object in canonical form.
    pub fn to_canonical(&self) -> CanonicalJson {
        self.to_canonical_of(|_| true)
    }

    /// The fields whose names are wanted, as an object in canonical form.
    pub fn to_canonical_of(&self, is_wanted: impl Fn(&str) -> bool) -> CanonicalJson {
        object(self.fields().filter(|(name, _)| is_wanted(name)))
    }

    /// The object with these fields in it, in place of what it has of their names, in canonical form.
    pub fn to_canonical_with<const N: usize>(
        &self,
        more: [(&str, &CanonicalJson); N],
    ) -> CanonicalJson {
        let is_own = |(name, _): &(&str, _)| more.iter().all(|(other, _)| other != name);
        let mut fields: Vec<_> = self.fields().filter(is_own).chain(more).collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        object(fields.into_iter())
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &CanonicalJson)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// Whether a scalar is an integer beyond 2^53 − 1. Canonical integers have no leading zeros.
fn is_large_integer(scalar: &str) -> bool {
    const LARGEST: &str = "9007199254740991";
    let digits = scalar.strip_prefix('-').unwrap_or(scalar);
    let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_integer && (digits.len(), digits) > (LARGEST.len(), LARGEST)
}

/// The text, if it is JSON as far as syntax goes.
fn checked(text: &[u8]) -> Result<&str, JsonError> {
    let wrong = |syntax| {
        if encoding::utf16(text).is_some() { JsonError::Utf16 } else { JsonError::Syntax(syntax) }
    };
    let utf8 = std::str::from_utf8(text).map_err(|error| {
        wrong(format!("byte {} is not UTF-8, in which it must be sent", error.valid_up_to() + 1))
    })?;
    let syntax = serde_json::from_str::<&RawValue>(utf8);
    syntax.map(RawValue::get).map_err(|error| wrong(error.to_string()))
}

/// The object of fields that are in order.
fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a CanonicalJson)> + Clone) -> CanonicalJson {
    // Each with two quotes, a colon and a comma.
    let length: usize = fields.clone().map(|(name, value)| name.len() + value.0.len() + 4).sum();
    let mut out = String::with_capacity(length + 2);
    out.push('{');
    for (index, (name, value)) in fields.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(&mut out, name);
        out.push(':');
        out.push_str(&value.0);
    }
    out.push('}');
    CanonicalJson(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_that_a_double_may_not_hold_is_found_wherever_it_stands() {
        let has = |text: &str| CanonicalJson::parse(text.as_bytes()).unwrap().has_large_integer();
        for text in [
            "9007199254740992",
            "-9007199254740992",
            r#"{"a":"x","b":[1,{"c":10000000000000000}]}"#,
            "[\"\\\"\",1e20]",
        ] {
            assert!(has(text), "{text}");
        }
        for text in [
            "9007199254740991",
            "-9007199254740991",
            r#"{"9007199254740992":"\",90071992547409920,"}"#,
            "[1e21,1.5,0.12345678901234567,null,true]",
            "{}",
        ] {
            assert!(!has(text), "{text}");
        }
    }
}
