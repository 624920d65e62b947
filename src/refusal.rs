//! The upstream's refusals that concern the signature (protocol §8).

use http::StatusCode;

use crate::{
    action::Effect,
    call::Call,
    credits,
    json::{CanonicalJson, JsonText, Object},
    message::Message,
    upstream::Answer,
};

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
/// The same with status 400.
const NO_SIGNATURE: [&str; 1] = ["Invalid personal signature"];
const REPLAY: [&str; 2] =
    ["EXTERNAL_SIGNATURE_REQUEST_REPLAY", "Duplicate request_id for this session_nonce"];

/// The statuses of such refusals.
const STATUSES: [StatusCode; 3] =
    [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::CONFLICT];

/// The fields that tell why a signature was refused, and those whose names begin so.
const DIAGNOSTICS: [&str; 2] = ["expected_wallet", "payload_canonical_top_level_keys"];
const DIAGNOSTICS_BEGIN: [&str; 2] = ["accepted_", "recovered_"];

/// The most that is logged of them, in bytes.
const MAX_DIAGNOSTICS: usize = 2048;

/// The advice on a body that servers may read in two ways.
const LARGE_INTEGER: &str = "the body has an integer beyond 2^53-1, which a server in JavaScript changes, so that \
                             the signature no longer fits: send it as text";

/// The advice when the wallet cannot pay.
const TOO_FEW_CREDITS: &str = "the wallet has too few credits: buy some, then make the call anew, under a new \
                               Idempotency-Key if it has one";

/// The advice when the upstream demands a payment that the proxy does not make.
const NOT_PAID: &str = "this proxy pays nothing itself without [spending] in its configuration: see \
                        agentpmt-proxy manual paying, or send the payment with the call";

impl Refusal {
    /// The refusal in an answer to a signed call, if it is one. The texts may stand at `code`, `error.code`, `detail.code`,
    /// or anywhere in a body that is not JSON. Other fields are ignored: they may repeat the client's text.
    /// An answer that tells a charge is none, whatever it says: the call was made.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        if !STATUSES.contains(&answer.status) || answer.body.len() > MAX_REFUSAL {
            return None;
        }
        if credits::charged(&answer.body).is_some() {
            return None;
        }
        let body = JsonText::parse(&answer.body);
        let texts = match body {
            Some(body) => texts(body),
            None => vec![String::from_utf8_lossy(&answer.body).into_owned()],
        };
        let says = |words: &[&str]| texts.iter().any(|text| words.iter().any(|w| text.contains(w)));
        let wrong = || Self::WrongSignature { expected_message: body.and_then(expected_message) };
        match answer.status {
            StatusCode::CONFLICT => says(&REPLAY).then_some(Self::Replay),
            StatusCode::BAD_REQUEST => says(&NO_SIGNATURE).then(wrong),
            _ if says(&WRONG_SIGNATURE) => Some(wrong()),
            _ => says(&SESSION_OVER).then_some(Self::SessionOver),
        }
    }
}

/// The advice on an answer that does not give it itself.
pub(crate) fn advice(call: &Call, answer: &Answer) -> Option<&'static str> {
    let is_demand = answer.status == StatusCode::PAYMENT_REQUIRED && call.payment().is_none();
    if is_demand && call.action().effect == Effect::Pays {
        return Some(NOT_PAID);
    }
    let signed = call.signed()?;
    match answer.status {
        StatusCode::PAYMENT_REQUIRED => Some(TOO_FEW_CREDITS),
        StatusCode::UNAUTHORIZED if Refusal::of(answer) != Some(Refusal::SessionOver) => {
            let payload = signed.payload().is_some_and(|payload| payload.has_large_integer());
            payload.then_some(LARGE_INTEGER)
        }
        _ => None,
    }
}

/// The fields of a refusal that tell why a signature was refused, as JSON in ASCII. A field with one of
/// these secrets in it, or with a message, which holds a nonce, is left out.
pub(crate) fn diagnostics(body: &[u8], secrets: &[&str]) -> String {
    let secrets: Vec<_> = secrets.iter().map(|secret| CanonicalJson::string(secret)).collect();
    let is_secret = |text: &str| {
        let mut secrets = secrets.iter().map(|secret| secret.as_str().trim_matches('"'));
        text.contains("session:") || secrets.any(|secret| text.contains(secret))
    };
    let is_wanted = |name: &str, value: &CanonicalJson| {
        let is_known = DIAGNOSTICS.contains(&name)
            || DIAGNOSTICS_BEGIN.iter().any(|start| name.starts_with(start));
        is_known && !is_secret(name) && !is_secret(value.as_str())
    };
    let body = JsonText::parse(body);
    let inner = ["detail", "error"].into_iter().filter_map(|name| body?.field(name));
    let objects = body.into_iter().chain(inner);
    let told = objects.filter_map(|object| {
        let mut object = Object::parse(object.as_str().as_bytes()).ok()?;
        object.retain(is_wanted);
        Some(String::from(object.to_canonical())).filter(|told| told != "{}")
    });
    let mut told = told.collect::<Vec<_>>().join(" ");
    told.truncate(MAX_DIAGNOSTICS);
    told
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

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.as_bytes().to_vec().into();
        Answer { status, headers: HeaderMap::new(), body, clock_ahead: SignedDuration::ZERO }
    }

    fn refusal(status: u16, body: &str) -> Option<Refusal> {
        Refusal::of(&answer(status, body))
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
        let wrong = Some(Refusal::WrongSignature { expected_message: None });
        assert_eq!(refusal(400, r#"{"detail":"Invalid personal signature"}"#), wrong);
    }

    #[test]
    fn diagnostics_are_told_without_a_nonce() {
        let nonce = "nonce\"1";
        let body = r#"{"expected_wallet":"0xab","detail":{"code":"X","expected_message":"session:nonce\"1",
            "recovered_wallet_for_expected_message":"0xac\u001b[1m","proof_text":"private",
            "accepted_paths":["/external/a","/a"],"accepted_messages":["x\nsession:y"],
            "accepted_nonces":"nonce\"1","payload_canonical_top_level_keys":["a"]}}"#;
        let told = r#"{"expected_wallet":"0xab"} {"accepted_paths":["/external/a","/a"],"payload_canonical_top_level_keys":["a"],"recovered_wallet_for_expected_message":"0xac\u001b[1m"}"#;
        assert_eq!(diagnostics(body.as_bytes(), &[nonce]), told);
        let long = format!(r#"{{"accepted_paths":"{}"}}"#, "é".repeat(9999));
        assert_eq!(diagnostics(long.as_bytes(), &[nonce]).len(), MAX_DIAGNOSTICS);
        for body in ["", "<html>", "[]", r#"{"detail":"Signature does not match"}"#] {
            assert_eq!(diagnostics(body.as_bytes(), &[nonce]), "", "{body}");
        }
    }

    #[test]
    fn an_answer_that_needs_advice_gets_it() {
        use crate::action::Action;
        let large = r#"{"a":[{"b":9007199254740992}]}"#;
        let advice = |action, body: &str, status, answer: &str| {
            let ids: &[&str] = if action == "job_list" { &[] } else { &["j1"] };
            let ids = ids.iter().copied();
            let call = Call::new(Action::named(action).unwrap(), ids, body.as_bytes()).unwrap();
            super::advice(&call, &self::answer(status, answer))
        };
        let mismatch = r#"{"detail":"Signature does not match wallet_address"}"#;
        assert_eq!(advice("job_complete", large, 401, mismatch), Some(LARGE_INTEGER));
        assert_eq!(advice("job_complete", large, 401, "{}"), Some(LARGE_INTEGER));
        assert_eq!(advice("job_complete", large, 402, "{}"), Some(TOO_FEW_CREDITS));
        let over = r#"{"detail":"Session nonce expired"}"#;
        assert_eq!(advice("job_complete", large, 401, over), None);
        assert_eq!(advice("job_complete", large, 422, "{}"), None);
        assert_eq!(advice("job_complete", r#"{"a":1}"#, 401, mismatch), None);
        // It is no part of what is signed.
        assert_eq!(advice("job_list", large, 401, mismatch), None);
        assert_eq!(advice("job_workflow_create", large, 402, "{}"), None);
    }

    #[test]
    fn an_answer_that_tells_a_charge_is_no_refusal() {
        for (status, text) in [
            (401, "tool says: Invalid session nonce"),
            (401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH"),
            (400, "Invalid personal signature"),
            (409, "EXTERNAL_SIGNATURE_REQUEST_REPLAY"),
        ] {
            for charge in ["20", "\"20\"", "2e1", "[]"] {
                let body = format!(r#"{{"detail":"{text}","charged_credits":{charge}}}"#);
                assert_eq!(refusal(status, &body), None, "{body}");
            }
            assert!(refusal(status, &format!(r#"{{"detail":"{text}"}}"#)).is_some());
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
        assert_eq!(refusal(400, r#"{"detail":"Invalid session nonce"}"#), None);
        assert_eq!(refusal(200, r#"{"detail":"Invalid session nonce"}"#), None);
    }
}
