//! What the upstream's refusals mean to a signer (protocol §8).

use http::StatusCode;
use serde_json::Value;

use crate::{message::Message, upstream::Answer};

/// A refusal that the proxy acts on; every other answer is the client's to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The nonce is unknown or over: a new session, a fresh request id, sign again, once.
    SessionOver,
    /// The request id was used: a fresh one, sign again, once.
    Replay,
    /// What was signed is not what the upstream rebuilt. It is a bug, so it is never tried again.
    WrongSignature {
        /// The message as the upstream rebuilt it, if it says so.
        expected_message: Option<String>,
    },
}

/// The words by which refusals are known: the codes of the live server and the sentences of the
/// reference verifier.
const SESSION_OVER: [&str; 4] = [
    "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID",
    "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED",
    "Invalid session nonce",
    "Session nonce expired",
];
const WRONG_SIGNATURE: [&str; 3] = [
    "EXTERNAL_SIGNATURE_MALFORMED",
    "EXTERNAL_SIGNATURE_WALLET_MISMATCH",
    "Signature does not match wallet_address",
];
const REPLAY: [&str; 2] =
    ["EXTERNAL_SIGNATURE_REQUEST_REPLAY", "Duplicate request_id for this session_nonce"];

impl Refusal {
    /// Reads an answer. The codes may stand at `code`, `error.code`, `detail.code`, or only in the
    /// text, so every string of the answer is looked at, whether it is JSON or not.
    pub fn of(answer: &Answer) -> Option<Self> {
        if !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::CONFLICT) {
            return None;
        }
        let text = || Value::String(String::from_utf8_lossy(&answer.body).into_owned());
        let body = serde_json::from_slice(&answer.body).unwrap_or_else(|_| text());
        let says =
            |words: &[&str]| any_string(&body, &|text| words.iter().any(|w| text.contains(w)));
        match answer.status {
            StatusCode::CONFLICT => says(&REPLAY).then_some(Self::Replay),
            _ if says(&WRONG_SIGNATURE) => {
                Some(Self::WrongSignature { expected_message: expected_message(&body) })
            }
            _ => says(&SESSION_OVER).then_some(Self::SessionOver),
        }
    }
}

/// The name of the first line in which two messages differ, as in `payload`.
pub fn first_difference(ours: &Message, theirs: &str) -> Option<String> {
    let ours = ours.to_string();
    let mut theirs = theirs.split('\n');
    let differs = ours.split('\n').find(|line| theirs.next() != Some(line));
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    differs.map(name).or_else(|| theirs.next().map(|_| "a line after the last".to_owned()))
}

fn any_string(value: &Value, holds: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => holds(text),
        Value::Array(items) => items.iter().any(|item| any_string(item, holds)),
        Value::Object(fields) => fields.values().any(|field| any_string(field, holds)),
        _ => false,
    }
}

fn expected_message(body: &Value) -> Option<String> {
    let places = [Some(body), body.get("detail"), body.get("error")];
    let mut found = places.into_iter().flatten().filter_map(|place| place.get("expected_message"));
    found.next()?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn refusal(status: u16, body: &str) -> Option<Refusal> {
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.as_bytes().to_vec().into();
        Refusal::of(&Answer { status, headers: HeaderMap::new(), body })
    }

    #[test]
    fn a_lost_session_is_known_in_every_shape() {
        for body in [
            r#"{"detail":"Invalid session nonce"}"#,
            r#"{"detail":"Session nonce expired"}"#,
            r#"{"error":{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID"}}"#,
            r#"{"detail":{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED","message":"x"}}"#,
            r#"{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED"}"#,
            r#"{"error":"EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID: begin a new session"}"#,
            r#"{"detail":[{"msg":"Invalid session nonce"}]}"#,
            "Session nonce expired",
        ] {
            assert_eq!(refusal(401, body), Some(Refusal::SessionOver), "{body}");
        }
    }

    #[test]
    fn a_replay_is_told_from_other_conflicts() {
        let replay = r#"{"detail":"Duplicate request_id for this session_nonce"}"#;
        assert_eq!(refusal(409, replay), Some(Refusal::Replay));
        let code = r#"{"error":{"code":"EXTERNAL_SIGNATURE_REQUEST_REPLAY"}}"#;
        assert_eq!(refusal(409, code), Some(Refusal::Replay));
        assert_eq!(refusal(409, r#"{"detail":"Job is already reserved"}"#), None);
    }

    #[test]
    fn a_wrong_signature_brings_the_expected_message() {
        for body in [
            r#"{"detail":{"code":"EXTERNAL_SIGNATURE_WALLET_MISMATCH","expected_message":"a"}}"#,
            r#"{"error":{"code":"EXTERNAL_SIGNATURE_MALFORMED","expected_message":"a"}}"#,
            r#"{"detail":"Signature does not match wallet_address","expected_message":"a"}"#,
        ] {
            let expected_message = Some("a".to_owned());
            assert_eq!(refusal(401, body), Some(Refusal::WrongSignature { expected_message }));
        }
    }

    #[test]
    fn other_answers_are_the_clients_to_read() {
        assert_eq!(refusal(401, r#"{"detail":"Who are you?"}"#), None);
        assert_eq!(refusal(402, r#"{"detail":"Invalid session nonce"}"#), None);
        assert_eq!(refusal(200, r#"{"detail":"Invalid session nonce"}"#), None);
    }
}
