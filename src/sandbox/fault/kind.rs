//! The kinds of fault, a row each.

use std::fmt;

/// A kind of fault: a row of [`KINDS`].
#[derive(PartialEq, Eq)]
pub struct FaultKind {
    name: &'static str,
    about: &'static str,
    pub(in crate::sandbox) strike: Strike,
}

impl FaultKind {
    /// The row with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The word by which flags and requests name it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its effect, in a few words.
    pub fn about(&self) -> &'static str {
        self.about
    }
}

impl fmt::Debug for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// When a fault strikes, and what it does then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Strike {
    CutBeforeBody,
    CutInBody,
    /// The body was read and nothing has happened yet.
    Before(BeforeCall),
    /// The call was processed and its answer is ready.
    After(AfterCall),
    /// The request has a payment.
    Payment(OnPayment),
    /// A payment is demanded.
    Demand(Twist),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum OnPayment {
    /// It is taken, and the connection cut.
    Cut,
    /// It is taken, and settled after the delay.
    SettleLate,
    /// It is refused, with another challenge.
    Refuse,
}

/// How a challenge differs from the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Twist {
    /// It gives the token another domain.
    Domain,
    /// It asks for ten times as much.
    Amount,
    /// It names another payee.
    Payee,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum BeforeCall {
    Delay,
    Hang,
    Cut,
    ForgetSessions,
    /// A status and its JSON body, in place of processing.
    Answer(u16, &'static str),
    /// A 401 with this code and another message than was signed.
    WrongSignature(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum AfterCall {
    Delay,
    Hang,
    Cut,
    CutHalfway,
    /// A status and a body, in place of the answer.
    Answer(u16, &'static str),
    Huge,
}

const fn row(name: &'static str, strike: Strike, about: &'static str) -> FaultKind {
    FaultKind { name, about, strike }
}

const fn before(name: &'static str, what: BeforeCall, about: &'static str) -> FaultKind {
    row(name, Strike::Before(what), about)
}

const fn after(name: &'static str, what: AfterCall, about: &'static str) -> FaultKind {
    row(name, Strike::After(what), about)
}

/// A refusal in place of processing.
const fn refusal(
    name: &'static str,
    status: u16,
    body: &'static str,
    about: &'static str,
) -> FaultKind {
    before(name, BeforeCall::Answer(status, body), about)
}

/// Every kind of fault. In the refusals of protocol §8 only the place that the name tells shows
/// what is meant; the texts beside a code say nothing.
pub static KINDS: &[FaultKind] = &[
    after("slow", AfterCall::Delay, "process at once, answer late"),
    before("slow_before", BeforeCall::Delay, "process late, even if the client has gone by then"),
    refusal("status_429", 429, r#"{"detail":"Too many requests"}"#, "429 with Retry-After"),
    refusal("status_503", 503, r#"{"detail":"Service unavailable"}"#, "503 with Retry-After"),
    refusal("status_500_before", 500, r#"{"detail":"Internal error"}"#, "500, not processed"),
    refusal("status_502_before", 502, r#"{"detail":"Bad gateway"}"#, "502, not processed"),
    after(
        "status_500_after",
        AfterCall::Answer(500, r#"{"detail":"Internal error"}"#),
        "500 though it was processed",
    ),
    refusal(
        "session_detail_code",
        401,
        r#"{"detail":{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID","message":"Refused"}}"#,
        "401 for the session, its code at detail.code",
    ),
    refusal(
        "session_error_code",
        401,
        r#"{"error":{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED","message":"Refused"}}"#,
        "the same at error.code",
    ),
    refusal(
        "session_code",
        401,
        r#"{"code":"EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID","message":"Refused"}"#,
        "the same at code",
    ),
    refusal(
        "session_invalid_text",
        401,
        r#"{"detail":"Invalid session nonce"}"#,
        "the same, only as text",
    ),
    refusal(
        "session_expired_text",
        401,
        r#"{"detail":"Session nonce expired"}"#,
        "the same, as the other text",
    ),
    before("forget_sessions", BeforeCall::ForgetSessions, "forget all sessions, then process"),
    refusal(
        "replay",
        409,
        r#"{"detail":{"code":"EXTERNAL_SIGNATURE_REQUEST_REPLAY","message":"Refused"}}"#,
        "409 for a request id that was used",
    ),
    refusal(
        "replay_text",
        409,
        r#"{"detail":"Duplicate request_id for this session_nonce"}"#,
        "the same, only as text",
    ),
    before(
        "wrong_signature",
        BeforeCall::WrongSignature("EXTERNAL_SIGNATURE_WALLET_MISMATCH"),
        "401 with an expected_message that differs in its payload",
    ),
    before(
        "malformed_signature",
        BeforeCall::WrongSignature("EXTERNAL_SIGNATURE_MALFORMED"),
        "the same with the other code",
    ),
    row("cut_before_body", Strike::CutBeforeBody, "cut before the body is read"),
    row("cut_in_body", Strike::CutInBody, "cut after the first part of the body"),
    before("cut_before", BeforeCall::Cut, "cut after the body, not processed"),
    after("cut_after", AfterCall::Cut, "process, then cut without an answer"),
    after("cut_in_answer", AfterCall::CutHalfway, "process, then cut in the middle of the answer"),
    before("hang_before", BeforeCall::Hang, "neither process nor answer"),
    after("hang_after", AfterCall::Hang, "process, and never answer"),
    after(
        "not_json",
        AfterCall::Answer(200, "<p>Welcome</p>"),
        "process, and answer 200 without JSON",
    ),
    after("huge", AfterCall::Huge, "process, and answer 200 with 20 MiB"),
    row("paid_then_cut", Strike::Payment(OnPayment::Cut), "take a payment, then cut"),
    row(
        "settles_late",
        Strike::Payment(OnPayment::SettleLate),
        "take a payment for credits, and answer 202 until the delay is over",
    ),
    row(
        "challenge_changed",
        Strike::Payment(OnPayment::Refuse),
        "refuse a payment, and demand one to another payee",
    ),
    row(
        "wrong_domain",
        Strike::Demand(Twist::Domain),
        "demand a payment under another domain of the token",
    ),
    row("amount_raised", Strike::Demand(Twist::Amount), "demand ten times the price"),
];
