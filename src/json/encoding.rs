//! The encodings in which JSON is met, though it should be UTF-8.

use std::borrow::Cow;

/// How a text stands in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16 {
        is_big_endian: bool,
    },
    /// Each byte is a character. Every other body can be read like that, and written as it was.
    Latin1,
}

/// Whether a body in UTF-16 is big endian, by its mark or by its first character, which in JSON is of
/// ASCII; `None` if it is not in UTF-16.
pub(super) fn utf16(body: &[u8]) -> Option<bool> {
    match body {
        [0xff, 0xfe, ..] | [1..=0xff, 0, ..] => Some(false),
        [0xfe, 0xff, ..] | [0, 1..=0xff, ..] => Some(true),
        _ => None,
    }
}

/// The text of a body.
pub(crate) fn decode(body: &[u8]) -> (Cow<'_, str>, Encoding) {
    let Some(is_big_endian) = utf16(body) else {
        return match std::str::from_utf8(body) {
            Ok(text) => (text.into(), Encoding::Utf8),
            Err(_) => (body.iter().copied().map(char::from).collect(), Encoding::Latin1),
        };
    };
    let unit = |bytes: &[u8; 2]| match is_big_endian {
        true => u16::from_be_bytes(*bytes),
        false => u16::from_le_bytes(*bytes),
    };
    let units: Vec<u16> = body.as_chunks().0.iter().map(unit).collect();
    (String::from_utf16_lossy(&units).into(), Encoding::Utf16 { is_big_endian })
}

impl Encoding {
    /// The bytes of a text whose characters this encoding has.
    pub(crate) fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.into(),
            Self::Utf16 { is_big_endian: true } => {
                text.encode_utf16().flat_map(u16::to_be_bytes).collect()
            }
            Self::Utf16 { is_big_endian: false } => {
                text.encode_utf16().flat_map(u16::to_le_bytes).collect()
            }
            Self::Latin1 => text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_in_every_encoding_and_written_as_it_was() {
        let text = "{\"a\":\"\u{e9}\u{1f600}\"}";
        let marked = format!("\u{feff}{text}");
        for (text, is_big_endian) in
            [text, &marked].into_iter().flat_map(|text| [(text, true), (text, false)])
        {
            let encoding = Encoding::Utf16 { is_big_endian };
            assert_eq!(decode(&encoding.encode(text)), (text.into(), encoding));
        }
        for (body, encoding) in [
            (text.as_bytes(), Encoding::Utf8),
            (b"", Encoding::Utf8),
            (b"{\"a\":\"\xe9\xff\"}", Encoding::Latin1),
        ] {
            let (text, found) = decode(body);
            assert_eq!((found, found.encode(&text).as_slice()), (encoding, body));
        }
    }
}
