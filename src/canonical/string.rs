//! Strings: from a literal to its text, and to the literal that is canonical.

use std::{borrow::Cow, fmt::Write};

use memchr::memchr;

use super::JsonError;

/// The text of a string literal. Its syntax was checked, so only a surrogate can be wrong with it.
pub(super) fn unescaped(literal: &str) -> Result<Cow<'_, str>, JsonError> {
    match memchr(b'\\', literal.as_bytes()) {
        None => Ok(Cow::Borrowed(literal.trim_matches('"'))),
        Some(_) => {
            let text = serde_json::from_str(literal).map_err(|_| JsonError::LoneSurrogate)?;
            Ok(Cow::Owned(text))
        }
    }
}

/// Writes the literal of a text.
pub(crate) fn write_string(out: &mut String, text: &str) {
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
