//! How a call under an idempotency key has ended, for the next one with that key.

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};

use super::CallError;
use crate::{refusal::Refusal, store::StoredAnswer, upstream::Answer};

/// How a call has ended.
pub(super) enum Ended {
    /// It was answered.
    Known(StoredAnswer),
    /// It may have taken effect. Until `quiet`, the upstream may be at work on it.
    Unknown { quiet: Option<Timestamp> },
    /// It surely did not take effect, and may be made under the same key.
    NotMade,
}

impl Ended {
    /// How a call with this result has ended.
    pub(super) fn with(result: &Result<Answer, CallError>) -> Self {
        match result {
            Ok(answer) if is_final(answer) => Self::Known(stored(answer)),
            Err(CallError::OutcomeUnknown { quiet, .. }) => Self::Unknown { quiet: *quiet },
            Err(error) if error.may_have_had_effect() => Self::Unknown { quiet: None },
            Ok(_) | Err(_) => Self::NotMade,
        }
    }
}

/// Whether an answer says what became of the call. The others say that it was not looked at.
fn is_final(answer: &Answer) -> bool {
    let status = answer.status.as_u16();
    status < 500 && ![401, 408, 425, 429].contains(&status) && Refusal::of(answer).is_none()
}

fn stored(answer: &Answer) -> StoredAnswer {
    let Answer { status, headers, body, .. } = answer.clone();
    StoredAnswer { status, headers, body }
}

/// An answer that was given before, marked as such.
pub(super) fn replayed(StoredAnswer { status, mut headers, body }: StoredAnswer) -> Answer {
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    Answer { status, headers, body, clock_ahead: SignedDuration::ZERO }
}
