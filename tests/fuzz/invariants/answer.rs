//! The upstream's answers, whatever they are.

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value;

use super::{
    Text, parts,
    stub::Scripted,
    world::{Answered, exchange},
};

/// How many calls of an input are made.
const MOST: usize = 4;

/// What a client sees in place of a token.
const HELD: &str = "held-by-proxy";

/// A token of this length, in bytes, is withheld wherever it stands.
const UNMISTAKABLE: usize = 16;

/// The first line of the input names calls by a letter each; then come the answers to them, and to
/// what else the proxy asks.
///
/// - An answer is the upstream's, or a problem.
/// - Of an answer what is named a token is withheld, of a refusal the message that it expected, and
///   nothing else.
/// - A completion is answered again as the first time, and the upstream is not asked.
/// - A workflow call carries the token of the reservation.
pub(crate) fn check(bytes: &[u8]) {
    let mut parts = parts(bytes);
    let letters = parts.next().unwrap_or_default();
    let calls = letters.iter().filter_map(|letter| Some((*letter, call(*letter)?)));
    let (letters, requests): (Vec<_>, Vec<_>) = calls.take(MOST).unzip();
    let mut completed = None;
    let mut reserved = Some(Value::Null);
    exchange(requests, parts.map(scripted).collect(), |index, answered| {
        let told = (answered.status, answered.body.clone());
        if answered.headers.contains_key("idempotency-replayed") {
            assert_eq!(
                (letters[index], Some(told), answered.given.len()),
                (b'c', completed.clone(), 0)
            );
            return;
        }
        check_answer(&answered);
        if letters[index] == b'c' && !answered.is_problem() && answered.status.is_success() {
            completed = Some(told);
        }
        for given in &answered.given {
            if let (Some(sent), Some(reserved)) = (&given.workflow_token, &reserved) {
                let held = tokens(reserved).into_iter().filter_map(text);
                let mut headers = held.map(|held| {
                    format!("Bearer {}", held.strip_prefix("Bearer ").unwrap_or(&held))
                });
                assert!(headers.any(|held| held.as_bytes() == sent.as_bytes()), "from nowhere");
            }
            if given.path.ends_with("/reserve") && given.status.is_success() {
                // What `serde_json` does not read as a whole may still have a token.
                reserved = json(&given.body);
            }
        }
    });
}

fn call(letter: u8) -> Option<Request<Body>> {
    let (path, body) = match letter {
        b'l' => ("/list", ""),
        b'r' => ("/j/reserve", ""),
        b'c' => ("/j/complete", r#"{"proof_text":"done"}"#),
        b's' => ("/j/status", ""),
        b'w' => ("/j/workflow/create", r#"{"name":"n"}"#),
        b'p' => ("/j/workflow/w/publish", ""),
        _ => return None,
    };
    let request = Request::post(format!("/api/external/jobs{path}"));
    let request = request.header("host", "127.0.0.1:8402");
    Some(request.body(Body::from(body)).unwrap())
}

fn scripted(part: &[u8]) -> Scripted {
    let text = Text::of(part);
    let bare = text.first.strip_prefix(b"session ");
    let status = std::str::from_utf8(bare.unwrap_or(text.first)).ok();
    let status = status.and_then(|status| status.parse().ok()).filter(|status| *status >= 200);
    Scripted {
        session: bare.is_some(),
        status: status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or_default(),
        headers: without_framing(text.headers),
        body: text.body.to_vec().into(),
    }
}

/// How long an answer is, and when its connection ends, is the server's to say.
fn without_framing(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        headers.remove(name);
    }
    headers
}

fn check_answer(answered: &Answered) {
    if answered.is_problem() {
        return answered.check_problem();
    }
    let given = answered.given.last().expect("an answer of the upstream that it did not give");
    assert_eq!(answered.status, given.status);
    let text = given.body.to_ascii_lowercase();
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    if !given.status.is_success() && (has(b"essage") || has(b"\\u")) {
        let Some(before) = json(&given.body) else { return };
        let before = without_expected_message(before).to_string();
        return check_withheld(before.as_bytes(), &answered.body);
    }
    if has(b"oken") || has(b"\\u") || has(b"\0") {
        check_withheld(&given.body, &answered.body);
    } else {
        assert_eq!(answered.body, given.body);
    }
}

/// That a client gets an answer as it was, but for what is named a token.
fn check_withheld(given: &[u8], answered: &[u8]) {
    let Some(before) = json(given) else { return };
    let after = json(answered).expect("JSON that is none any more");
    let tokens = tokens(&before);
    let mut long: Vec<String> = tokens.iter().copied().flat_map(texts).collect();
    long.retain(|text| text.len() >= UNMISTAKABLE);
    let texts = (given.escape_ascii(), answered.escape_ascii());
    // Of fields with one name `serde_json` keeps the last.
    let ends = given.windows(4).filter(|end| end.eq_ignore_ascii_case(b"oken"));
    if ends.count() > tokens.len() {
        let held = |token: &&Value| is_empty(token) || **token == HELD;
        assert!(self::tokens(&after).iter().all(held), "{} became {}", texts.0, texts.1);
    } else {
        assert_eq!(without(before, &long), after, "{} became {}", texts.0, texts.1);
    }
}

fn json(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()
}

/// An answer with [`HELD`] for its tokens, and for the long ones wherever they stand.
fn without(value: Value, long: &[String]) -> Value {
    let replaced = |text: String| long.iter().fold(text, |text, token| text.replace(token, HELD));
    match value {
        Value::String(text) => replaced(text).into(),
        Value::Array(items) => items.into_iter().map(|item| without(item, long)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let is_token = is_token(&name) && !is_empty(&value);
                let value = if is_token { HELD.into() } else { without(value, long) };
                (replaced(name), value)
            });
            fields.collect()
        }
        other => other,
    }
}

/// A refusal with [`HELD`] for what it expected to be signed.
fn without_expected_message(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_expected_message).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let is_message = name.replace('_', "").eq_ignore_ascii_case("expectedmessage");
                let is_held = is_message && !is_empty(&value);
                let value = if is_held { HELD.into() } else { without_expected_message(value) };
                (name, value)
            });
            fields.collect()
        }
        other => other,
    }
}

/// What is named a token, at any depth, but not within another.
fn tokens(answer: &Value) -> Vec<&Value> {
    match answer {
        Value::Array(items) => items.iter().flat_map(tokens).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let found = fields
                .map(|(name, value)| if is_token(name) { vec![value] } else { tokens(value) });
            found.flatten().collect()
        }
        _ => Vec::new(),
    }
}

fn is_token(name: &str) -> bool {
    name.replace('_', "").eq_ignore_ascii_case("accesstoken")
}

/// Nothing is withheld of it.
fn is_empty(token: &Value) -> bool {
    token.is_null() || *token == ""
}

/// The text of a token that can be used.
fn text(token: &Value) -> Option<String> {
    match token {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) | Value::Array(_) => None,
        other => Some(other.to_string()),
    }
}

/// The texts of a token: its own, or those in it, names included.
fn texts(token: &Value) -> Vec<String> {
    text(token).map_or_else(|| strings(token), |text| vec![text])
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields.flat_map(|(name, value)| [vec![name.clone()], strings(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}
