//! A reader of answers whose shape is not guaranteed: single values, the rest passed over unread.

use std::iter;

use serde_json::value::RawValue;

use super::{
    encoding::decode,
    string::unescaped,
    walk::{Part, Walk, string_length},
};

/// The text of a JSON value whose syntax was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JsonText<'a>(&'a str);

impl<'a> JsonText<'a> {
    /// The JSON text of a body, if it is any. A byte order mark is passed over.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        serde_json::from_str(text).ok().map(Self::of)
    }

    pub(super) fn of(value: &'a RawValue) -> Self {
        Self(value.get())
    }

    /// As it stands there.
    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }

    /// The last field of this name, if it is an object; `null` is as good as absent.
    pub(crate) fn field(self, name: &str) -> Option<Self> {
        self.any_field(name).filter(|value| value.0 != "null")
    }

    /// Whether a field is there and `null`.
    pub(crate) fn has_null(self, name: &str) -> bool {
        self.any_field(name) == Some(Self("null"))
    }

    fn any_field(self, name: &str) -> Option<Self> {
        let is_it = |literal: &Self| literal.text().is_some_and(|text| text == name);
        self.fields().filter(|(literal, _)| is_it(literal)).last().map(|(_, value)| value)
    }

    /// The names of an object and their values, in order; none of anything else.
    pub(crate) fn fields(self) -> impl Iterator<Item = (Self, Self)> {
        let mut walk = Walk::over(self.0);
        let is_object = matches!(walk.next_part(), Part::Object);
        iter::from_fn(move || {
            let literal = is_object.then(|| walk.next_name()).flatten()?;
            Some((Self(literal), Self(walk.next_value())))
        })
    }

    /// The field at the end of a path of names.
    pub(crate) fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |object, name| object.field(name))
    }

    /// The items of an array; none of anything else.
    pub(crate) fn items(self) -> Vec<Self> {
        let mut walk = Walk::over(self.0);
        let Part::Array = walk.next_part() else { return Vec::new() };
        iter::from_fn(|| walk.has_item().then(|| Self(walk.next_value()))).collect()
    }

    /// The text of a string.
    pub(crate) fn text(self) -> Option<String> {
        let literal = self.0.starts_with('"').then_some(self.0)?;
        unescaped(literal).map(Into::into)
    }

    /// Its strings, also those that are names, as they stand there, with their quotes.
    pub(crate) fn strings(self) -> impl Iterator<Item = Self> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let (_, from) = rest.split_at(rest.find('"')?);
            let (literal, behind) = from.split_at(string_length(from));
            rest = behind;
            Some(Self(literal))
        })
    }
}

/// Whether a body is an object, or would be one if it were JSON to the letter.
pub(crate) fn is_almost_json(body: &[u8]) -> bool {
    let (text, _) = decode(body);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    text.starts_with('{') && text.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_field_or_nowhere() {
        let body =
            JsonText::parse(br#"{"a":{"b":1,"b":{"c":"x"}},"n":null,"\u0061\"":2}"#).unwrap();
        assert_eq!(body.at(&["a", "b", "c"]).and_then(JsonText::text).as_deref(), Some("x"));
        assert_eq!(body.field("a\"").map(JsonText::as_str), Some("2"));
        for path in [&["n"][..], &["a", "x"], &["a", "b", "c", "d"], &["x"]] {
            assert!(body.at(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn strings_are_found_as_they_stand() {
        let json = JsonText::parse(br#"{"a": ["\\", "b\"c", 1, "\\\""], "": null}"#).unwrap();
        let found: Vec<_> = json.strings().map(JsonText::as_str).collect();
        assert_eq!(found, [r#""a""#, r#""\\""#, r#""b\"c""#, r#""\\\"""#, r#""""#]);
    }

    #[test]
    fn what_is_no_object_has_no_fields_and_what_is_no_array_no_items() {
        for body in ["[]", "1", "\"text\"", "null"] {
            assert!(JsonText::parse(body.as_bytes()).unwrap().field("a").is_none(), "{body}");
        }
        assert!(JsonText::parse(b"{}").unwrap().items().is_empty());
        assert!(JsonText::parse(b"{").is_none() && JsonText::parse(b"\xff").is_none());
        assert!(JsonText::parse("\u{feff}{}".as_bytes()).is_some());
    }
}
