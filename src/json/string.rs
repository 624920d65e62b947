//! Strings: from a literal to its text, and to the literal that is canonical.

use std::{borrow::Cow, fmt::Write};

use memchr::memchr;

/// The text of a string literal whose syntax was checked; `None` if it has half of a surrogate pair, see
/// [`half_pair`].
pub(super) fn unescaped(literal: &str) -> Option<Cow<'_, str>> {
    match memchr(b'\\', literal.as_bytes()) {
        None => Some(Cow::Borrowed(literal.trim_matches('"'))),
        Some(_) => serde_json::from_str(literal).ok().map(Cow::Owned),
    }
}

/// Where the first half of a surrogate pair stands in a JSON text whose syntax was checked.
pub(super) fn half_pair(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        // Only strings have backslashes.
        at += memchr(b'\\', text.as_bytes().get(at..)?)?;
        at += match (unit(text, at), unit(text, at + 6)) {
            (None, _) => 2,
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => return Some(at),
            (Some(_), _) => 6,
        };
    }
}

/// The UTF-16 unit whose escape stands there.
fn unit(text: &str, at: usize) -> Option<u16> {
    u16::from_str_radix(text.get(at..at + 6)?.strip_prefix("\\u")?, 16).ok()
}

/// Writes the literal of a text.
pub(crate) fn write_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    // Most texts have nothing to escape, which shows at a look at many bytes at once.
    if text.bytes().fold(true, |all, byte| all & stands_for_itself(byte)) {
        out.push_str(text);
    } else {
        write_escaping(out, text);
    }
    out.push('"');
}

fn write_escaping(out: &mut String, text: &str) {
    let mut rest = text;
    // Characters without an escape are copied in one go.
    while let Some(at) = rest.bytes().position(|byte| !stands_for_itself(byte)) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = special.chars();
        characters.next().into_iter().for_each(|character| write_special(out, character));
        rest = characters.as_str();
    }
    out.push_str(rest);
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
