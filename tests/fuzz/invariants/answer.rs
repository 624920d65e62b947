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
/// - Of a reserve answer the workflow token is withheld, and nothing else.
/// - A workflow call carries the token of the reservation.
pub(crate) fn check(bytes: &[u8]) {
    let mut parts = parts(bytes);
    let letters = parts.next().unwrap_or_default();
    let requests: Vec<_> = letters.iter().filter_map(|letter| call(*letter)).take(MOST).collect();
    let mut reserved = Some(Value::Null);
    exchange(requests, parts.map(scripted).collect(), |_, answered| {
        check_answer(&answered);
        for given in &answered.given {
            if let (Some(sent), Some(reserved)) = (&given.workflow_token, &reserved) {
                let held = tokens(reserved).first().copied().expect("a token from nowhere");
                let held = held.strip_prefix("Bearer ").unwrap_or(held);
                assert_eq!(sent.as_bytes(), format!("Bearer {held}").as_bytes());
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
    if given.path.ends_with("/reserve") && given.status.is_success() {
        check_withheld(&given.body, &answered.body);
    } else {
        assert_eq!(answered.body, given.body);
    }
}

/// That a client gets a reserve answer as it was, but for the token.
fn check_withheld(given: &[u8], answered: &[u8]) {
    let Some(before) = json(given) else { return };
    let after = json(answered).expect("JSON that is none any more");
    assert!(tokens(&after).iter().all(|token| *token == HELD), "{}", answered.escape_ascii());
    let long = tokens(&before).into_iter().map(str::to_owned);
    let long: Vec<_> = long.filter(|token| token.len() >= UNMISTAKABLE).collect();
    let texts = (given.escape_ascii(), answered.escape_ascii());
    assert_eq!(without(before, &long), after, "{} became {}", texts.0, texts.1);
}

fn json(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()
}

/// An answer with [`HELD`] for its tokens, and for the long ones wherever they stand.
fn without(mut answer: Value, long: &[String]) -> Value {
    for place in ["/workflow_access/access_token", "/job/workflow_access/access_token"] {
        let token = answer.pointer_mut(place).filter(|token| token.as_str() > Some(""));
        token.into_iter().for_each(|token| *token = HELD.into());
    }
    without_long(answer, long)
}

fn without_long(value: Value, long: &[String]) -> Value {
    let replaced = |text: String| long.iter().fold(text, |text, token| text.replace(token, HELD));
    match value {
        Value::String(text) => replaced(text).into(),
        Value::Array(items) => items.into_iter().map(|item| without_long(item, long)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields.map(|(name, value)| (replaced(name), without_long(value, long))).collect()
        }
        other => other,
    }
}

/// The tokens of a reserve answer, at either depth.
fn tokens(answer: &Value) -> Vec<&str> {
    let places = [answer, &answer["job"]].into_iter();
    let tokens = places.filter_map(|place| place["workflow_access"]["access_token"].as_str());
    tokens.filter(|token| !token.is_empty()).collect()
}
