//! Keeps the proxy's secrets out of the answers that clients see.

use bytes::Bytes;
use memchr::memmem;

use crate::json::{CanonicalJson, JsonText, NamedValue, decode, named};

/// Stands in an answer in place of a secret of the proxy.
pub(crate) const HELD_BY_PROXY: &str = "held-by-proxy";

/// The length, in bytes, from which a text does not stand in an answer by chance.
pub(crate) const UNMISTAKABLE: usize = 16;

/// A body with [`HELD_BY_PROXY`] in place of secrets of at least [`UNMISTAKABLE`] bytes, if one stands in
/// it letter by letter, as in a body that repeats the request. In JSON only strings are changed, so that
/// it stays JSON.
pub(crate) fn from_body(body: &[u8], secrets: &[&str]) -> Option<Bytes> {
    let is_found = |secret: &&str| is_there(body, secret.as_bytes());
    let found: Vec<&str> = secrets.iter().copied().filter(is_found).collect();
    if found.is_empty() {
        return None;
    }
    let json = in_strings(body, |literal| in_text(literal, found.iter().copied()));
    json.or_else(|| Some(in_bytes(body, &found)))
}

/// Whether a secret stands in a body; one shorter than [`UNMISTAKABLE`] never does. Searches for its
/// beginning first, since the set-up of a search costs more for a long text.
fn is_there(body: &[u8], secret: &[u8]) -> bool {
    let Some((beginning, _)) = secret.split_at_checked(UNMISTAKABLE) else { return false };
    let start = memmem::find(body, &beginning[..UNMISTAKABLE / 2]);
    start.is_some_and(|start| memmem::find(&body[start..], secret).is_some())
}

/// The body of a refusal without the message that it expected to be signed, if it shows one: that holds
/// the session nonce.
pub(crate) fn without_expected_message(body: &[u8]) -> Option<Bytes> {
    let (text, encoding) = decode(body);
    let found = named(&text, "expected_message");
    (!found.is_empty()).then(|| encoding.encode(&in_place_of(&text, &found)).into())
}

/// The text with [`HELD_BY_PROXY`] in place of these parts of it, which are in order.
pub(crate) fn in_place_of(text: &str, parts: &[NamedValue<'_>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for part in parts {
        let start = part.as_it_stands().as_ptr() as usize - text.as_ptr() as usize;
        out += &text[done..start];
        match part {
            NamedValue::Json(_) => out += CanonicalJson::string(HELD_BY_PROXY).as_str(),
            NamedValue::Text(_) => out += HELD_BY_PROXY,
        }
        done = start + part.as_it_stands().len();
    }
    out + &text[done..]
}

/// The same bytes with [`HELD_BY_PROXY`] in place of these secrets.
pub(crate) fn in_bytes(body: &[u8], secrets: &[&str]) -> Bytes {
    secrets
        .iter()
        .fold(body.to_vec(), |body, secret| {
            let mut out = Vec::with_capacity(body.len());
            let mut done = 0;
            for start in memmem::find_iter(&body, secret) {
                out.extend_from_slice(&body[done..start]);
                out.extend_from_slice(HELD_BY_PROXY.as_bytes());
                done = start + secret.len();
            }
            out.extend_from_slice(&body[done..]);
            out
        })
        .into()
}

/// The same JSON with other texts in some of its strings, names included; `None` if it is not JSON.
/// `withhold` takes each string as it is written, with its quotes, and returns its new text, if any.
pub(crate) fn in_strings(body: &[u8], withhold: impl Fn(&str) -> Option<String>) -> Option<Bytes> {
    let json = JsonText::parse(body)?;
    let mut out = Vec::with_capacity(body.len());
    let mut done = 0;
    for literal in json.strings().map(JsonText::as_str) {
        let Some(text) = withhold(literal) else { continue };
        let start = literal.as_ptr() as usize - body.as_ptr() as usize;
        out.extend_from_slice(&body[done..start]);
        out.extend_from_slice(CanonicalJson::string(&text).as_str().as_bytes());
        done = start + literal.len();
    }
    out.extend_from_slice(&body[done..]);
    Some(out.into())
}

/// The text of a string with [`HELD_BY_PROXY`] in place of these secrets, however they are escaped, if it
/// holds any. Of two that overlap, the first is replaced.
pub(crate) fn in_text<'a>(
    literal: &str,
    secrets: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    // A string that cannot be decoded, such as half of a surrogate pair, is searched as it is written.
    let text = serde_json::from_str(literal).unwrap_or_else(|_| literal.to_owned());
    let mut found = secrets.into_iter().filter(|secret| text.contains(secret)).peekable();
    found.peek()?;
    Some(found.fold(text.clone(), |text, secret| text.replace(secret, HELD_BY_PROXY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "1234567890123456";
    const SIGNATURE: &str = "0xabcdef0123456789";

    fn withheld(body: &[u8]) -> Option<Vec<u8>> {
        from_body(body, &[NONCE, SIGNATURE, "short"]).map(Into::into)
    }

    #[test]
    fn an_answer_without_a_secret_stays_as_it_is() {
        for body in [&b""[..], b"{}", br#"{"a":"short"}"#, b"12345678 90123456", b"\xff\0"] {
            assert_eq!(withheld(body), None, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn of_json_each_string_with_a_secret_is_changed_and_nothing_else() {
        let body = r#" {"n": 1234567890123456,
            "a":"1234567890123456\u0031 and \n0xabcdef0123456789", "\u0030xabcdef0123456789": [1.0, "\u00e9"]} "#;
        let after = r#" {"n": 1234567890123456,
            "a":"held-by-proxy1 and \nheld-by-proxy", "held-by-proxy": [1.0, "\u00e9"]} "#;
        assert_eq!(withheld(body.as_bytes()).unwrap(), after.as_bytes());
    }

    #[test]
    fn the_message_that_a_refusal_expected_is_withheld_however_it_is_told() {
        for (before, after) in [
            (
                r#"{"a":1.0,"expected_message":"session:n\n"}"#,
                r#"{"a":1.0,"expected_message":"held-by-proxy"}"#,
            ),
            (
                r#"{"error":{"expectedMessage":["a","b"]}}"#,
                r#"{"error":{"expectedMessage":"held-by-proxy"}}"#,
            ),
            ("expected_message: session:n\nx", "expected_message: held-by-proxy\nx"),
        ] {
            let withheld = without_expected_message(before.as_bytes()).unwrap();
            assert_eq!(withheld, after.as_bytes());
        }
        for body in
            ["", "{}", r#"{"expected_message":null}"#, r#"{"detail":"no expected_message"}"#]
        {
            assert!(without_expected_message(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn of_other_bytes_each_secret_is_replaced_and_nothing_else() {
        let body = b"\xff1234567890123456\0<0xabcdef0123456789>12345678901234561";
        let after = b"\xffheld-by-proxy\0<held-by-proxy>held-by-proxy1";
        assert_eq!(withheld(body).unwrap(), after);
    }
}
