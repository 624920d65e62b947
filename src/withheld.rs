//! Secrets of the proxy in the upstream's answers, which clients do not get to see.

use bytes::Bytes;

use crate::{canonical::CanonicalJson, loose};

/// What a client sees in place of a secret that the proxy holds.
pub(crate) const HELD_BY_PROXY: &str = "held-by-proxy";

/// A text of this length, in bytes, is no word of an answer by chance.
pub(crate) const UNMISTAKABLE: usize = 16;

/// The same JSON with other texts in some of its strings, names included; `None` if it is no JSON.
/// `withhold` gets each string as it stands, with its quotes, and gives its new text, if any. Every
/// other byte stays.
pub(crate) fn in_strings(body: &[u8], withhold: impl Fn(&str) -> Option<String>) -> Option<Bytes> {
    let json = loose::parse(body)?;
    let mut out = Vec::with_capacity(body.len());
    let mut done = 0;
    for literal in loose::strings(json) {
        let Some(text) = withhold(literal) else { continue };
        let start = literal.as_ptr() as usize - body.as_ptr() as usize;
        out.extend_from_slice(&body[done..start]);
        out.extend_from_slice(CanonicalJson::string(&text).as_str().as_bytes());
        done = start + literal.len();
    }
    out.extend_from_slice(&body[done..]);
    Some(out.into())
}

/// The text of a string with [`HELD_BY_PROXY`] in place of these secrets, however they are spelled,
/// if it holds any. Of two that overlap, the first is replaced.
pub(crate) fn in_text<'a>(
    literal: &str,
    secrets: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    // What cannot be decoded, for half of a surrogate pair, is taken as it stands.
    let text = serde_json::from_str(literal).unwrap_or_else(|_| literal.to_owned());
    let mut found = secrets.into_iter().filter(|secret| text.contains(secret)).peekable();
    found.peek()?;
    Some(found.fold(text.clone(), |text, secret| text.replace(secret, HELD_BY_PROXY)))
}
