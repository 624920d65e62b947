//! The upstream's refusals that concern the signature (protocol §8).

use http::StatusCode;

use crate::{json::JsonText, message::Message, upstream::Answer};

/// The largest answer in which a refusal is looked for, in bytes. One takes less than a kilobyte.
const MAX_REFUSAL: usize = 64 * 1024;

/// A refusal that the proxy acts on; every other answer is the client's to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The nonce is unknown or has expired. The call is signed once more, in a new session.
    SessionOver,
    /// The request id was used before. The call is signed once more, with a fresh one.
    Replay,
    /// The upstream rebuilt another message than was signed. It is a bug, so the call is not repeated.
    WrongSignature {
        /// The message as the upstream rebuilt it, if it says so.
        expected_message: Option<String>,
    },
}

/// The texts that tell refusals apart: the codes of the live server, and the sentences of the reference
/// verifier.
const SESSION_OVER: [&str; 5] = [
    "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID",
    "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED",
    "Invalid session nonce",
    "Session nonce expired",
    "Session nonce does not belong to this wallet",
];
const WRONG_SIGNATURE: [&str; 3] = [
    "EXTERNAL_SIGNATURE_MALFORMED",
    "EXTERNAL_SIGNATURE_WALLET_MISMATCH",
    "Signature does not match wallet_address",
];
const REPLAY: [&str; 2] =
    ["EXTERNAL_SIGNATURE_REQUEST_REPLAY", "Duplicate request_id for this session_nonce"];

impl Refusal {
    /// The refusal in an answer, if it is one. The texts may stand at `code`, `error.code`, `detail.code`,
    /// or anywhere in a body that is not JSON. Other fields are ignored: they may repeat the client's text.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::CONFLICT);
        if !refused || answer.body.len() > MAX_REFUSAL {
            return None;
        }
        let body = JsonText::parse(&answer.body);
        let texts = match body {
            Some(body) => texts(body),
            None => vec![String::from_utf8_lossy(&answer.body).into_owned()],
        };
        let says = |words: &[&str]| texts.iter().any(|text| words.iter().any(|w| text.contains(w)));
        match answer.status {
            StatusCode::CONFLICT => says(&REPLAY).then_some(Self::Replay),
            _ if says(&WRONG_SIGNATURE) => {
                Some(Self::WrongSignature { expected_message: body.and_then(expected_message) })
            }
            _ => says(&SESSION_OVER).then_some(Self::SessionOver),
        }
    }
}

/// The name of the first line in which two messages differ, as in `payload`.
pub(crate) fn first_difference(ours: &Message, theirs: &str) -> Option<String> {
    let ours = ours.to_string();
    let mut theirs = theirs.split('\n');
    let differs = ours.split('\n').find(|line| theirs.next() != Some(line));
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    differs.map(name).or_else(|| theirs.next().map(|_| "a line after the last".to_owned()))
}

/// The texts of an error, wherever servers put them.
fn texts(body: JsonText<'_>) -> Vec<String> {
    let mut places = vec![body];
    places.extend(["detail", "error"].into_iter().filter_map(|name| body.field(name)));
    let lists: Vec<_> = places.iter().flat_map(|place| place.items()).collect();
    places.extend(lists);
    let names = ["code", "message", "msg"];
    let fields = places.iter().flat_map(|place| names.map(|name| place.field(name)));
    let texts: Vec<_> = fields.flatten().chain(places.iter().copied()).collect();
    texts.into_iter().filter_map(JsonText::text).collect()
}

fn expected_message(body: JsonText<'_>) -> Option<String> {
    let paths = [
        &["expected_message"][..],
        &["detail", "expected_message"],
        &["error", "expected_message"],
    ];
    paths.into_iter().find_map(|path| body.at(path)).and_then(JsonText::text)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use jiff::SignedDuration;

    use super::*;

    fn refusal(status: u16, body: &str) -> Option<Refusal> {
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.as_bytes().to_vec().into();
        Refusal::of(&Answer {
            status,
            headers: HeaderMap::new(),
            body,
            clock_ahead: SignedDuration::ZERO,
        })
    }

    #[test]
    fn a_lost_session_is_known_in_every_shape() {
        for body in [
            r#"{"detail":"Invalid session nonce"}"#,
            r#"{"detail":"Session nonce expired"}"#,
            r#"{"detail":"Session nonce does not belong to this wallet"}"#,
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
    fn what_an_answer_repeats_of_the_clients_text_is_no_refusal() {
        let body = r#"{"detail":"Differs","submitted":{"proof_text":"Session nonce expired"}}"#;
        assert_eq!(refusal(401, body), None);
        let body = r#"{"detail":{"code":"X","proof":"EXTERNAL_SIGNATURE_REQUEST_REPLAY"}}"#;
        assert_eq!(refusal(409, body), None);
        let large = format!(r#"{{"detail":"Invalid session nonce","x":"{}"}}"#, "a".repeat(70_000));
        assert_eq!(refusal(401, &large), None);
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        use crate::{action::Action, call::Call, policy::Client, types::Address};
        let call = Call::new(Action::named("job_list").unwrap(), [], b"").unwrap();
        let (nonce, request) = ("n".parse().unwrap(), "r".parse().unwrap());
        let wallet = Address::new([0; 20]);
        let permit = Client::local().permit(call, wallet, None, jiff::Timestamp::now()).unwrap();
        let ours = Message::new(permit.signed().unwrap(), &nonce, &request);
        let text = ours.to_string();
        let named = |theirs: &str| first_difference(&ours, theirs);
        assert_eq!(named(&text), None);
        assert_eq!(named(&text.replace("product:-", "product:x")).as_deref(), Some("product"));
        assert_eq!(named("agentpmt-external").as_deref(), Some("wallet"));
        assert_eq!(named(&format!("{text}\n")).as_deref(), Some("a line after the last"));
    }

    #[test]
    fn other_answers_are_the_clients_to_read() {
        assert_eq!(refusal(401, r#"{"detail":"Who are you?"}"#), None);
        assert_eq!(refusal(402, r#"{"detail":"Invalid session nonce"}"#), None);
        assert_eq!(refusal(200, r#"{"detail":"Invalid session nonce"}"#), None);
    }
}
