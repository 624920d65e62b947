//! Canonical JSON (protocol §4).

use agentpmt_proxy::json::{CanonicalJson, JsonError, Object};
use serde_json::Value;

use super::contains;

/// The most that a byte of JSON grows to: `0x7f` becomes `\u007f`.
const GROWTH: usize = 6;

/// Deeper than this `serde_json` does not read; the proxy goes one level further.
const DEPTH_OF_SERDE: usize = 127;

/// - What has a canonical form has the same value as before, and is its own canonical form.
/// - That form is printable ASCII and not much longer.
/// - What `serde_json` reads has one.
/// - An object taken apart and put together again is the same.
pub(crate) fn check(bytes: &[u8]) {
    let canonical = CanonicalJson::parse(bytes);
    let object = Object::parse(bytes).map(|object| object.to_canonical());
    let read = serde_json::from_slice::<Value>(bytes);
    match &canonical {
        Ok(text) => check_text(bytes, text, read),
        Err(error) => assert!(read.is_err(), "serde_json reads what was refused: {error}"),
    }
    match object {
        Err(JsonError::NotAnObject) => {
            let is_object = canonical.is_ok_and(|text| text.as_str().starts_with('{'));
            assert!(!is_object, "an object is said to be none");
        }
        object => assert_eq!(object, canonical, "the object differs from its text"),
    }
}

fn check_text(bytes: &[u8], text: &CanonicalJson, read: serde_json::Result<Value>) {
    let again = CanonicalJson::parse(text.as_str().as_bytes());
    assert_eq!(again.as_ref(), Ok(text), "not a fixed point");
    let printable = text.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte));
    assert!(printable, "not printable ASCII: {text:?}");
    assert!(text.as_str().len() <= GROWTH * bytes.len(), "{} bytes", text.as_str().len());
    let Ok(before) = read else { return check_beyond_serde(bytes) };
    // An object with one of serde_json's own keys is no object to it.
    if !text.as_str().contains("$serde_json::private") {
        let after: Value = serde_json::from_str(text.as_str()).unwrap();
        assert!(same(&before, &after), "{before} became {after}");
    }
}

/// That `serde_json` did not read it for its depth, or for an integer that no double can hold.
fn check_beyond_serde(bytes: &[u8]) {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in bytes {
        match byte {
            b'{' | b'[' => depth += 1,
            // Brackets in strings may close more than was opened.
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let digits = bytes.split(|byte| !byte.is_ascii_digit()).map(<[u8]>::len).max();
    let excused = deepest > DEPTH_OF_SERDE
        || digits.is_some_and(|digits| digits > 308)
        || contains(bytes, "$serde_json::private");
    assert!(excused, "serde_json does not read {}", bytes.escape_ascii());
}

/// Whether two values are the same, a float with an integral value being the integer.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
