//! An answer, as it is kept to be given again.

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// How the bytes begin that an earlier version kept in place of an answer that was lost.
pub(super) const TOOK_EFFECT: &[u8] = b"took effect\n";

/// An answer that was given to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, of any length that memory holds.
    pub body: Bytes,
}

impl StoredAnswer {
    /// As in HTTP/1: lines of status and headers, an empty line, the body. No header has a line
    /// feed in it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + 512);
        bytes.extend_from_slice(self.status.as_str().as_bytes());
        bytes.push(b'\n');
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// `None` if the bytes are not of that form.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (status, mut rest) = line(bytes)?;
        let status = StatusCode::from_bytes(status).ok()?;
        let mut headers = HeaderMap::new();
        loop {
            let (header, after) = line(rest)?;
            rest = after;
            if header.is_empty() {
                return Some(Self { status, headers, body: Bytes::copy_from_slice(rest) });
            }
            let colon = header.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&header[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(&header[colon + 1..]).ok()?);
        }
    }
}

/// The first line, without its line feed, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &'static [u8])], body: &'static [u8]) -> StoredAnswer {
        let parse = |(name, value): &(&'static str, &'static [u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(parse) {
            map.append(name, value);
        }
        StoredAnswer { status: StatusCode::CREATED, headers: map, body: body.into() }
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        for answer in [
            answer(&[], b""),
            answer(&[("content-type", b"application/json")], b"{\"a\":\n\n1}"),
            answer(&[("a", b""), ("a", b"x:y"), ("b", b"\xff \tz")], b"\n\n\0\xff"),
        ] {
            assert_eq!(StoredAnswer::from_bytes(&answer.to_bytes()), Some(answer));
        }
    }

    #[test]
    fn other_bytes_are_no_answer() {
        for bytes in [&b""[..], b"200", b"200\n", b"20\n\n", b"200\nx\n\n", b"200\na b:c\n\n"] {
            assert_eq!(StoredAnswer::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
