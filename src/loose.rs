//! Reading an answer whose shape nobody promises: single fields, the rest passed over unread.
//!
//! It never builds a `serde_json::Value`: of an answer of some megabytes that would take gigabytes.

mod encoding;
mod named;

use std::{borrow::Cow, fmt, iter};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

pub(crate) use self::{
    encoding::{Encoding, decode},
    named::{Found, named},
};

/// The JSON text of a body, if it is any. A byte order mark is passed over.
pub(crate) fn parse(body: &[u8]) -> Option<&RawValue> {
    let text = std::str::from_utf8(body).ok()?;
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()
}

/// Whether a body is an object, or would be one if it were JSON to the letter.
pub(crate) fn is_almost_json(body: &[u8]) -> bool {
    let (text, _) = decode(body);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    text.starts_with('{') && text.ends_with('}')
}

/// A field of an object; `null` is as good as absent.
pub(crate) fn field<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    any_field(object, name).filter(|value| value.get() != "null")
}

/// Whether a field is there and `null`.
pub(crate) fn is_null(object: &RawValue, name: &str) -> bool {
    any_field(object, name).is_some_and(|value| value.get() == "null")
}

fn any_field<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let mut json = serde_json::Deserializer::from_str(object.get());
    Field { name }.deserialize(&mut json).ok()?
}

/// The field at the end of a path of names.
pub(crate) fn at<'a>(object: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    path.iter().try_fold(object, |object, name| field(object, name))
}

/// The items of an array; none of anything else.
pub(crate) fn items(array: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(array.get()).unwrap_or_default()
}

/// The text of a string.
pub(crate) fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The strings of a JSON text, also those that are names, as they stand there, with their quotes.
pub(crate) fn strings(json: &RawValue) -> impl Iterator<Item = &str> {
    let mut rest = json.get();
    iter::from_fn(move || {
        let (_, from) = rest.split_at(rest.find('"')?);
        let (literal, behind) = from.split_at(literal_length(from));
        rest = behind;
        Some(literal)
    })
}

/// The length of the string that a text begins with, in bytes, quotes included.
fn literal_length(text: &str) -> usize {
    let mut escaped = false;
    let closes = |byte: u8| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    };
    text.bytes().skip(1).position(closes).map_or(text.len(), |inner| inner + 2)
}

/// The last field of this name.
struct Field<'n> {
    name: &'n str,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(Name(name)) = fields.next_key()? {
            if name == self.name {
                found = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A name, without a copy if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_field_or_nowhere() {
        let body = parse(br#"{"a":{"b":1,"b":{"c":"x"}},"n":null,"\u0061\"":2}"#).unwrap();
        assert_eq!(at(body, &["a", "b", "c"]).and_then(text).as_deref(), Some("x"));
        assert_eq!(field(body, "a\"").map(RawValue::get), Some("2"));
        for path in [&["n"][..], &["a", "x"], &["a", "b", "c", "d"], &["x"]] {
            assert!(at(body, path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn strings_are_found_as_they_stand() {
        let json = parse(br#"{"a": ["\\", "b\"c", 1, "\\\""], "": null}"#).unwrap();
        let found: Vec<_> = strings(json).collect();
        assert_eq!(found, [r#""a""#, r#""\\""#, r#""b\"c""#, r#""\\\"""#, r#""""#]);
    }

    #[test]
    fn what_is_no_object_has_no_fields_and_what_is_no_array_no_items() {
        for body in ["[]", "1", "\"text\"", "null"] {
            assert!(field(parse(body.as_bytes()).unwrap(), "a").is_none(), "{body}");
        }
        assert!(items(parse(b"{}").unwrap()).is_empty());
        assert!(parse(b"{").is_none() && parse(b"\xff").is_none());
        assert!(parse("\u{feff}{}".as_bytes()).is_some());
    }
}
