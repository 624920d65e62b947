//! Values by their name, at any depth, also of a text that is not JSON to the letter.

use super::{lenient::JsonText, walk::string_length};

/// A value that stands behind a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NamedValue<'a> {
    Json(JsonText<'a>),
    /// Text in place of JSON, without quotes.
    Text(&'a str),
}

impl<'a> NamedValue<'a> {
    /// As it stands there.
    pub(crate) fn as_it_stands(self) -> &'a str {
        match self {
            Self::Json(value) => value.as_str(),
            Self::Text(text) => text,
        }
    }

    /// The text of a string or a number, or of what stands in its place.
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::Json(value) if value.as_str().starts_with(['{', '[']) => None,
            Self::Json(value) => value.text().or_else(|| Some(value.as_str().to_owned())),
            Self::Text(text) => Some(text.to_owned()),
        }
    }

    /// Each string in it, names included, or its text if there is none.
    pub(crate) fn texts(self) -> Vec<String> {
        match self {
            Self::Json(value) if value.as_str().starts_with(['{', '[']) => {
                value.strings().filter_map(JsonText::text).collect()
            }
            _ => self.text().into_iter().collect(),
        }
    }

    /// `null` and an empty string say nothing.
    fn is_empty(self) -> bool {
        matches!(self.as_it_stands(), "" | "null" | "\"\"")
    }
}

/// The values behind a name, however it is spelled: in upper or lower case, with `_` or without. In
/// order and without those within another; empty ones are left out.
pub(crate) fn named<'a>(body: &'a str, name: &str) -> Vec<NamedValue<'a>> {
    let behind_names: Vec<&str> = match JsonText::parse(body.as_bytes()) {
        Some(json) => json
            .strings()
            .filter(|literal| literal.text().is_some_and(|text| is_named(&text, name)))
            .map(|literal| &body[end(body, literal.as_str())..])
            .collect(),
        None => behind(body, name),
    };
    let mut done = 0;
    let mut found = Vec::new();
    for rest in behind_names {
        if body.len() - rest.len() < done {
            continue;
        }
        let Some(value) = value(rest) else { continue };
        done = end(body, value.as_it_stands());
        found.push(value);
    }
    found.retain(|value| !value.is_empty());
    found
}

fn is_named(text: &str, name: &str) -> bool {
    text.len() <= 2 * name.len() && length_of(text.as_bytes(), name) == Some(text.len())
}

/// The value behind each place of a name.
fn behind<'a>(body: &'a str, name: &str) -> Vec<&'a str> {
    let mut at = 0;
    let mut found = Vec::new();
    while at < body.len() {
        match length_of(&body.as_bytes()[at..], name) {
            Some(length) => {
                at += length;
                found.extend(body.get(at..));
            }
            None => at += 1,
        }
    }
    found
}

/// The length of a name at the beginning of a text, as it is spelled there.
fn length_of(text: &[u8], name: &str) -> Option<usize> {
    const ESCAPED: &[u8] = br"\u005f";
    let mut rest = text;
    for letter in name.bytes().filter(|letter| *letter != b'_') {
        while rest.len() < text.len() {
            let is_escape = |start: &[u8]| start.eq_ignore_ascii_case(ESCAPED);
            rest = match rest {
                [b'_', behind @ ..] => behind,
                _ if rest.get(..ESCAPED.len()).is_some_and(is_escape) => &rest[ESCAPED.len()..],
                _ => break,
            };
        }
        rest = rest.split_first().filter(|(first, _)| first.eq_ignore_ascii_case(&letter))?.1;
    }
    Some(text.len() - rest.len())
}

/// Where a part of a text ends in it, in bytes.
fn end(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize + part.len() - whole.as_ptr() as usize
}

/// The value at the beginning of what follows a name. If it does not end, it is all there is.
fn value(behind_name: &str) -> Option<NamedValue<'_>> {
    let rest = behind_name.trim_start_matches(['\\', '"', '\'']).trim_start();
    let rest = rest.strip_prefix([':', '='])?.trim_start();
    let json = serde_json::Deserializer::from_str(rest).into_iter().next();
    if let Some(Ok(value)) = json {
        return Some(NamedValue::Json(JsonText::of(value)));
    }
    if rest.starts_with(['{', '[']) {
        return Some(NamedValue::Text(rest));
    }
    if rest.starts_with('"') {
        let inner = &rest[1..string_length(rest)];
        return Some(NamedValue::Text(inner.strip_suffix('"').unwrap_or(inner)));
    }
    // A string within a string, or one in other quotes.
    let quote = rest.len() - rest.trim_start_matches('\\').trim_start_matches(['"', '\'']).len();
    let (quote, inner) = rest.split_at(quote);
    let ends = match quote {
        "" => inner.find(['"', ',', '}', ']', '\r', '\n']),
        quote => inner.find(quote),
    };
    Some(NamedValue::Text(inner[..ends.unwrap_or(inner.len())].trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Vec<&str> {
        named(body, "t").into_iter().map(NamedValue::as_it_stands).collect()
    }

    #[test]
    fn values_of_json_are_found_at_any_depth_and_as_they_stand() {
        let body =
            r#"{"t":"a\"","x":[{"\u0074" : 5, "t":{"t":1}}],"t":null,"y":"t","z":"t:b","t":""}"#;
        assert_eq!(found(body), [r#""a\"""#, "5", r#"{"t":1}"#]);
        assert!(found(r#"["t", 1, "t"]"#).is_empty());
    }

    #[test]
    fn what_is_no_json_is_searched_as_text() {
        for (body, value) in [
            (r#"{"n":NaN,"t":"a b"}"#, r#""a b""#),
            (r#"{"t":NaN,"n":1}"#, "NaN"),
            (r#"{"n":NaN,"t":["a","b"],"n":1}"#, r#"["a","b"]"#),
            (r#"{"t":["a",NaN"#, r#"["a",NaN"#),
            (r#"{"t":"cut"#, "cut"),
            (r#"{"t":"a\xe9","n":1}"#, r"a\xe9"),
            (r#"{"n":NaN,"d":"{\"t\":\"a b\"}"}"#, "a b"),
            ("{'t': 'a b', 'n': 1}", "a b"),
            ("t = a b\nn = 1", "a b"),
            ("t:", ""),
        ] {
            let expected: Vec<&str> =
                Some(value).filter(|value| !value.is_empty()).into_iter().collect();
            assert_eq!(found(body), expected, "{body}");
        }
    }
}
