//! Text of a request as it may be shown to people.

use std::borrow::Cow;

use crate::types::TOKEN_PREFIX;

/// At most 200 characters of it, all ASCII, and no token of a client.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    match text.split_once(TOKEN_PREFIX) {
        // The rest of it is of use to no reader.
        Some((before, _)) => format!("{}{TOKEN_PREFIX}...", escaped(before)).into(),
        None => escaped(text),
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"'\"\\".contains(&byte);
    match text.bytes().all(is_plain) {
        true => text.get(..200).unwrap_or(text).into(),
        false => text.chars().flat_map(char::escape_default).take(200).collect(),
    }
}
