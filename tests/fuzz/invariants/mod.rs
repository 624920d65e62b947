//! What holds for any bytes: one function a fuzz target, which panics where it does not hold. The
//! fuzzer looks for such bytes; `tests/library/corpus.rs` runs the same functions over those it has saved.

#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod answer;
pub(crate) mod canonical;
pub(crate) mod keystore;
pub(crate) mod request;

mod arrival;
mod stub;
mod world;

/// The parts of an input that stands for a sequence, in order.
fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const BETWEEN: &[u8] = b"\n%\n";
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = bytes.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        rest = end.map(|end| &bytes[end + BETWEEN.len()..]);
        Some(&bytes[..end.unwrap_or(bytes.len())])
    })
}

/// Something like an HTTP message, with plain line feeds: a first line, headers as far as they are
/// usable, an empty line, and a body.
struct Text<'a> {
    first: &'a [u8],
    headers: http::HeaderMap,
    body: &'a [u8],
}

impl<'a> Text<'a> {
    fn of(part: &'a [u8]) -> Self {
        let end = part.windows(2).position(|window| window == b"\n\n");
        let (head, body) = match end {
            Some(end) => (&part[..end], &part[end + 2..]),
            None => (part, &b""[..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        Self { first, headers: lines.filter_map(header).collect(), body }
    }
}

fn header(line: &[u8]) -> Option<(http::HeaderName, http::HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = http::HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// Whether `text` is somewhere in `bytes`.
fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
