//! What came of a call, as it is kept to be told again.

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was answered.
    Answer(StoredAnswer),
    /// Its answer was lost, but it was seen to have taken effect.
    TookEffect {
        /// The job's status, as it was seen.
        job: Option<String>,
        /// The status of the wallet's submission, as it was seen.
        submission: Option<String>,
    },
}

/// The first line of what took effect; that of an answer is a status.
const TOOK_EFFECT: &[u8] = b"took effect\n";

impl Settled {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Answer(answer) => answer.to_bytes(),
            Self::TookEffect { job, submission } => {
                [TOOK_EFFECT, json!([job, submission]).to_string().as_bytes()].concat()
            }
        }
    }

    /// `None` if the bytes are not of that form.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Some(seen) = bytes.strip_prefix(TOOK_EFFECT) else {
            return StoredAnswer::from_bytes(bytes).map(Self::Answer);
        };
        let (job, submission) = serde_json::from_slice(seen).ok()?;
        Some(Self::TookEffect { job, submission })
    }
}

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
    fn to_bytes(&self) -> Vec<u8> {
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
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
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
            let settled = Settled::Answer(answer);
            assert_eq!(Settled::from_bytes(&settled.to_bytes()), Some(settled));
        }
    }

    #[test]
    fn what_took_effect_comes_back_as_it_was_seen() {
        for seen in [None, Some("pending_review".to_owned()), Some("a\n\"b".to_owned())] {
            let settled = Settled::TookEffect { job: None, submission: seen };
            assert_eq!(Settled::from_bytes(&settled.to_bytes()), Some(settled));
        }
    }

    #[test]
    fn other_bytes_are_no_answer() {
        for bytes in [
            &b""[..],
            b"200",
            b"200\n",
            b"20\n\n",
            b"200\nx\n\n",
            b"200\na b:c\n\n",
            b"took effect\n{}",
        ] {
            assert_eq!(Settled::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
