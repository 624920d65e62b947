//! Canonical JSON and its hash: the bytes of a payload on which both sides agree.
//!
//! The form is that of Python's `json.dumps(value, sort_keys=True, separators=(",", ":"))`, with
//! one change: a float with an integral value below 1e21 is written as an integer, as a JavaScript
//! hop would write it (protocol §4).
//!
//! `serde_json` checks the syntax, and a walk over the text that it found good takes it apart. Its
//! `Value` would not do: it rounds integers over 64 bits or, with arbitrary precision, takes an
//! object with one reserved key for a number.

mod walk;
mod writer;

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use self::walk::{Part, Walk};
pub(crate) use self::writer::ObjectWriter;
use crate::types::write_hex;

/// The deepest nesting of arrays and objects that is taken.
const MAX_DEPTH: usize = 128;

/// Why a text has no canonical form. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON (RFC 8259), or not UTF-8.
    #[error("it is not JSON: {0}")]
    Syntax(String),
    /// JSON, but not an object, where one is needed.
    #[error("it is JSON, but not an object: it must look like {{\"name\": value}}")]
    NotAnObject,
    /// Half of a surrogate pair, which no UTF-8 text can hold.
    #[error("a string holds half of a surrogate pair (\\uD800 to \\uDFFF)")]
    LoneSurrogate,
    /// The double nearest to the number is infinite.
    #[error("a number is too large for a double (the largest is about 1.8e308)")]
    NumberTooLarge,
    /// Deeper than 128 levels.
    #[error("arrays and objects are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// A JSON value in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalJson(String);

impl CanonicalJson {
    /// The canonical form of a JSON text.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        let mut walk = Walk::over(checked(text)?);
        Self::of(&mut walk, 0)
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

    /// SHA-256 of the text.
    pub fn hash(&self) -> PayloadHash {
        PayloadHash(Sha256::digest(&self.0).into())
    }

    /// The canonical form of the next value.
    fn of(walk: &mut Walk<'_>, depth: usize) -> Result<Self, JsonError> {
        let mut out = String::new();
        write_value(&mut out, walk, depth)?;
        Ok(Self(out))
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
        let mut walk = Walk::over(checked(text)?);
        match walk.next_part() {
            Part::Object => fields(&mut walk, 1).map(Self),
            _ => Err(JsonError::NotAnObject),
        }
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
        let mut out = String::new();
        write_object(&mut out, self.fields().filter(|(name, _)| is_wanted(name)));
        CanonicalJson(out)
    }

    /// The object with these fields in it, in place of what it has of their names, in canonical form.
    pub fn to_canonical_with<const N: usize>(
        &self,
        more: [(&str, &CanonicalJson); N],
    ) -> CanonicalJson {
        let is_own = |(name, _): &(&str, _)| more.iter().all(|(other, _)| other != name);
        let mut fields: Vec<_> = self.fields().filter(is_own).chain(more).collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        let mut out = String::new();
        write_object(&mut out, fields);
        CanonicalJson(out)
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &CanonicalJson)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// The text, if it is JSON as far as syntax goes.
fn checked(text: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| {
        JsonError::Syntax(format!("byte {} is not UTF-8", error.valid_up_to() + 1))
    })?;
    let syntax = serde_json::from_str::<&RawValue>(text);
    syntax.map(RawValue::get).map_err(|error| JsonError::Syntax(error.to_string()))
}

/// `depth` is the number of arrays and objects around the value.
fn write_value(out: &mut String, walk: &mut Walk<'_>, depth: usize) -> Result<(), JsonError> {
    match walk.next_part() {
        Part::Object | Part::Array if depth == MAX_DEPTH => return Err(JsonError::TooDeep),
        Part::Object => {
            let fields = fields(walk, depth + 1)?;
            write_object(out, fields.iter().map(|(name, value)| (name.as_str(), value)));
        }
        Part::Array => write_array(out, walk, depth + 1)?,
        Part::String(literal) => write_string(out, &unescaped(literal)?),
        Part::Number(text) if text.contains(['.', 'e', 'E']) => write_float(out, text)?,
        Part::Number("-0") => out.push('0'),
        Part::Number(text) | Part::Word(text) => out.push_str(text),
    }
    Ok(())
}

/// The fields of an object whose opening brace is behind us. `BTreeMap` keeps the last of two equal
/// keys and orders by byte, which for UTF-8 is the order of code points.
fn fields(walk: &mut Walk<'_>, depth: usize) -> Result<BTreeMap<String, CanonicalJson>, JsonError> {
    let mut fields = BTreeMap::new();
    while let Some(name) = walk.next_name() {
        fields.insert(unescaped(name)?, CanonicalJson::of(walk, depth)?);
    }
    Ok(fields)
}

/// Writes fields that are in order.
fn write_object<'a>(
    out: &mut String,
    fields: impl IntoIterator<Item = (&'a str, &'a CanonicalJson)>,
) {
    out.push('{');
    for (index, (name, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        out.push_str(&value.0);
    }
    out.push('}');
}

/// The items of an array whose opening bracket is behind us.
fn write_array(out: &mut String, walk: &mut Walk<'_>, depth: usize) -> Result<(), JsonError> {
    out.push('[');
    let start = out.len();
    while walk.has_item() {
        if out.len() > start {
            out.push(',');
        }
        write_value(out, walk, depth)?;
    }
    out.push(']');
    Ok(())
}

/// The text of a string literal. Its syntax was checked, so only a surrogate can be wrong with it.
fn unescaped(literal: &str) -> Result<String, JsonError> {
    serde_json::from_str(literal).map_err(|_| JsonError::LoneSurrogate)
}

fn write_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut rest = text;
    // What stands for itself is copied in one go.
    while let Some(at) = rest.bytes().position(|byte| !stands_for_itself(byte)) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = special.chars();
        characters.next().into_iter().for_each(|character| write_special(out, character));
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn write_special(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ => write_escaped(out, character),
    }
}

fn write_escaped(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing into a `String` cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

fn write_float(out: &mut String, text: &str) -> Result<(), JsonError> {
    // A JSON number is always a Rust float literal; what is too large reads as infinite.
    let value: f64 = text.parse().unwrap_or(f64::INFINITY);
    let number = serde_json::Number::from_f64(value).ok_or(JsonError::NumberTooLarge)?;
    if value == 0.0 {
        out.push('0');
        return Ok(());
    }
    if value < 0.0 {
        out.push('-');
    }
    let integral = value.fract() == 0.0 && value.abs() < 1e21;
    Decimal::shortest(&number).write(out, integral);
    Ok(())
}

/// A number in decimal: its digits, the first and last of which are not zero, and the exponent of
/// the first.
struct Decimal {
    digits: String,
    exponent: i32,
}

impl Decimal {
    /// The fewest digits that read back as the double. Of two such numbers that are equally near it
    /// is the one whose last digit is even, as in Python and ECMAScript; Rust's own formatting takes
    /// the larger.
    fn shortest(number: &serde_json::Number) -> Self {
        let text = number.to_string();
        let text = text.trim_start_matches('-');
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let zeros = all.len() - significant.len();
        // Both lengths are below 400, and the exponent of a double is a small number.
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let exponent = exponent + whole.len() as i32 - 1 - zeros as i32;
        Self { digits: significant.trim_end_matches('0').to_owned(), exponent }
    }

    fn write(&self, out: &mut String, integral: bool) {
        match self.exponent {
            exponent if integral => {
                let zeros = (exponent as usize + 1).saturating_sub(self.digits.len());
                out.push_str(&self.digits);
                out.extend(std::iter::repeat_n('0', zeros));
            }
            exponent @ -4..=-1 => {
                out.push_str("0.");
                out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
                out.push_str(&self.digits);
            }
            exponent @ 0..=15 => {
                // A number that is not integral has a digit behind the point.
                let (whole, fraction) = self.digits.split_at(exponent as usize + 1);
                out.push_str(&format!("{whole}.{fraction}"));
            }
            exponent => self.write_with_exponent(out, exponent),
        }
    }

    /// `1e-07`, `1.5e+300`: the exponent has a sign and at least two digits.
    fn write_with_exponent(&self, out: &mut String, exponent: i32) {
        let (first, rest) = self.digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("{first}{point}{rest}e{sign}{:02}", exponent.abs()));
    }
}
