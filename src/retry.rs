//! Whether a call is made again (protocol §8), decided without doing anything.

use std::{fmt, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{HeaderValue, Method, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use tokio::time::Instant;

use crate::{
    credits,
    refusal::Refusal,
    session::SessionError,
    signer::SignerError,
    upstream::{Answer, Unanswered, UpstreamError},
};

/// The first pause before another try; each further one is twice as long, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The least time for a try: with less left, the client is told what the last one came to.
const LEAST_TIME: Duration = Duration::from_millis(500);

/// The outcome of one try.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The upstream answered.
    Answered(Answer, Option<Refusal>),
    /// There was no session, so nothing was signed.
    NoSession(SessionError),
    /// There was no signature, so nothing was sent.
    NotSigned(SignerError),
    /// There was no answer; the error knows whether the call may have been processed.
    NoAnswer(UpstreamError),
    /// Its client went away before it could be sent, so it was not.
    Abandoned,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer, _) => write!(f, "answered {}", answer.status.as_u16()),
            Self::NoSession(error) => error.fmt(f),
            Self::NotSigned(error) => error.fmt(f),
            Self::NoAnswer(error) => error.fmt(f),
            Self::Abandoned => f.write_str("its client went away"),
        }
    }
}

/// The next step after a try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Tell the client.
    Return,
    /// Try again after this time.
    Again(Duration),
    /// Drop the session, then try again at once.
    Renew,
    /// Try again at once, signed in the other form that servers take.
    OtherForm,
    /// It may have taken effect: find out.
    Settle,
}

/// The tries of one call.
#[derive(Debug)]
pub(crate) struct Tries {
    changes: bool,
    deadline: Instant,
    pauses: ExponentialBackoff,
    /// How long it is tried while it cannot be sent.
    patience: Duration,
    /// Whether `patience` also limits a failing session and a failing read.
    is_told_soon: bool,
    try_begun: Instant,
    /// When the current series of failed tries began.
    failing_since: Option<Instant>,
    may_renew: bool,
    may_change_id: bool,
    may_change_form: bool,
    /// Whether it is never sent again once it was answered.
    is_paid: bool,
    /// Whether to make it twice is the same as once.
    is_idempotent: bool,
}

impl Tries {
    /// Before the first try of a call that has to be over at `deadline`.
    pub(crate) fn new(changes: bool, deadline: Instant) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter()
            .build();
        Self {
            changes,
            deadline,
            pauses,
            patience: Duration::MAX,
            is_told_soon: false,
            try_begun: Instant::now(),
            failing_since: None,
            may_renew: true,
            may_change_id: true,
            may_change_form: false,
            is_paid: false,
            is_idempotent: false,
        }
    }

    /// Gives up after this time if it cannot be sent, so that an outage is told soon.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Applies `patience` also to a failing session and to a failing read: the client can send the call again
    /// itself.
    pub(crate) fn told_soon(self) -> Self {
        Self { is_told_soon: true, ..self }
    }

    /// Makes a change again after a broken connection if its method is one that may be repeated.
    pub(crate) fn of_method(self, method: &Method) -> Self {
        Self { is_idempotent: method.is_idempotent(), ..self }
    }

    /// Tries the other form of the payload after a wrong signature, if servers take two.
    pub(crate) fn of_forms(self, has_two: bool) -> Self {
        Self { may_change_form: has_two, ..self }
    }

    /// Leaves to the client what to do after any answer, if the call carries a payment.
    pub(crate) fn of_payment(self, is_paid: bool) -> Self {
        Self { is_paid, ..self }
    }

    /// Decides on the next step after a try with this outcome.
    pub(crate) fn next(&mut self, outcome: &Outcome, now: Instant) -> Next {
        if is_unreachable(outcome) {
            return self.failing(self.try_begun, now);
        }
        if self.is_told_soon && self.fails(outcome) {
            // Count from now: a try that failed late may succeed over a new connection.
            return self.failing(now, now);
        }
        self.failing_since = None;
        match outcome {
            Outcome::Answered(..) if self.is_paid => Next::Return,
            Outcome::Answered(_, Some(Refusal::SessionOver)) if take(&mut self.may_renew) => {
                Next::Renew
            }
            Outcome::Answered(_, Some(Refusal::Replay)) if take(&mut self.may_change_id) => {
                // The id is random, so this very call may have arrived twice.
                if self.changes { Next::Settle } else { Next::Again(Duration::ZERO) }
            }
            Outcome::Answered(_, Some(Refusal::WrongSignature { .. }))
                if take(&mut self.may_change_form) =>
            {
                Next::OtherForm
            }
            Outcome::Answered(_, Some(_)) => Next::Return,
            Outcome::Answered(answer, None) => self.after_answer(answer, now),
            Outcome::NoSession(error) => self.after_no_session(error, now),
            // The client may send it again, or has gone away.
            Outcome::NotSigned(_) | Outcome::Abandoned => Next::Return,
            Outcome::NoAnswer(error) => self.after_no_answer(&error.why, now),
        }
    }

    /// Another try after the next pause, if there is time for it.
    pub(crate) fn pause(&mut self, now: Instant) -> Next {
        let pause = self.next_pause();
        self.after(pause, now)
    }

    /// In an outage, waits for the call that tries, unless `is_told_soon`.
    fn again_in_outage(&mut self, now: Instant) -> Next {
        if self.is_told_soon { Next::Return } else { self.pause(now) }
    }

    /// Whether a repeat is safe but may fail again: after a 5xx or a broken connection. Not after a time-out,
    /// which takes long by itself.
    fn fails(&self, outcome: &Outcome) -> bool {
        let is_error = |status: StatusCode, wish: Option<&HeaderValue>| {
            status.is_server_error() && !(wish.is_some() && is_put_off(status))
        };
        match outcome {
            Outcome::NoSession(SessionError::Refused { status, retry_after, .. }) => {
                is_error(*status, retry_after.as_ref())
            }
            Outcome::NoSession(SessionError::Upstream(error)) => is_broken_off(error),
            Outcome::NoAnswer(error) => !self.changes && is_broken_off(error),
            Outcome::Answered(answer, None) => {
                !self.changes && is_error(answer.status, answer.headers.get(header::RETRY_AFTER))
            }
            _ => false,
        }
    }

    /// Another try while there is patience, the last at its end.
    fn failing(&mut self, begun: Instant, now: Instant) -> Next {
        let since = *self.failing_since.get_or_insert(begun);
        let left = self.patience.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() {
            return Next::Return;
        }
        let pause = self.next_pause().min(left);
        self.after(pause, now)
    }

    /// Nothing was signed, so it is only a question of time.
    fn after_no_session(&mut self, error: &SessionError, now: Instant) -> Next {
        match error {
            // Another proxy begins no session for this one, however often it is asked.
            SessionError::Refused { by_proxy: true, .. } => Next::Return,
            SessionError::Refused { status, retry_after: Some(wish), .. }
                if is_put_off(*status) =>
            {
                self.as_wished(wish, Timestamp::now(), now)
            }
            SessionError::Refused { status, .. } if !status.is_server_error() => Next::Return,
            SessionError::NoNonce(_) => Next::Return,
            SessionError::Upstream(error) => match &error.why {
                why if is_elsewhere(why) => Next::Return,
                Unanswered::Failing(_) => self.again_in_outage(now),
                _ => self.pause(now),
            },
            SessionError::Refused { .. } => self.pause(now),
        }
    }

    fn after_no_answer(&mut self, why: &Unanswered, now: Instant) -> Next {
        match why {
            // It has waited for half of its time already.
            Unanswered::Busy(_) => Next::Return,
            why if is_elsewhere(why) => Next::Return,
            Unanswered::Failing(_) => self.again_in_outage(now),
            Unanswered::BrokenOff(_) if self.changes && self.is_idempotent => {
                match self.pause(now) {
                    Next::Return => Next::Settle,
                    again => again,
                }
            }
            _ if self.changes => Next::Settle,
            // The next answer would be too large again.
            Unanswered::TooLarge => Next::Return,
            _ => self.pause(now),
        }
    }

    fn after_answer(&mut self, answer: &Answer, now: Instant) -> Next {
        match answer.headers.get(header::RETRY_AFTER) {
            _ if self.changes && is_charged(answer) => Next::Return,
            Some(wish) if is_put_off(answer.status) && !self.is_page(answer) => {
                self.as_wished(wish, answer.upstream_now(), now)
            }
            _ if self.is_page(answer) => Next::Settle,
            _ if !answer.status.is_server_error() => Next::Return,
            _ if self.changes => Next::Settle,
            _ => self.pause(now),
        }
    }

    /// Whether something else may have sent an answer in place of the API, after that has acted: so it
    /// does not say what became of the change.
    fn is_page(&self, answer: &Answer) -> bool {
        let status = answer.status;
        let tells = status.is_success() || status == StatusCode::CONFLICT || is_put_off(status);
        self.changes && tells && !answer.is_json()
    }

    /// Another try when the upstream wants it, if there is time for it. One that wants it at once, every
    /// time, is not asked without a pause.
    fn as_wished(&mut self, wish: &HeaderValue, upstream_now: Timestamp, now: Instant) -> Next {
        let pause = self.next_pause();
        let wait = wait(wish, upstream_now).map(|wait| wait.max(pause));
        wait.map_or(Next::Return, |wait| self.after(wait, now))
    }

    fn after(&mut self, wait: Duration, now: Instant) -> Next {
        let left = self.deadline.saturating_duration_since(now).saturating_sub(LEAST_TIME);
        if wait >= left {
            return Next::Return;
        }
        self.try_begun = now + wait;
        Next::Again(wait)
    }

    fn next_pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(LONGEST_PAUSE)
    }
}

/// Whether there was no connection, for the call or its session.
fn is_unreachable(outcome: &Outcome) -> bool {
    let (Outcome::NoAnswer(error) | Outcome::NoSession(SessionError::Upstream(error))) = outcome
    else {
        return false;
    };
    matches!(error.why, Unanswered::Unreachable(_))
}

/// Whether something other than the API answers, as it would again.
fn is_elsewhere(why: &Unanswered) -> bool {
    matches!(why, Unanswered::Moved { .. } | Unanswered::Foreign(_) | Unanswered::NotHttp(_))
}

fn is_broken_off(error: &UpstreamError) -> bool {
    matches!(error.why, Unanswered::BrokenOff(_))
}

/// Whether an error tells a charge, so that the call was made, whatever its status.
fn is_charged(answer: &Answer) -> bool {
    !answer.status.is_success() && credits::charged(&answer.body).is_some()
}

/// Whether a status, with the wish to come again later, says that the call was not looked at.
pub(crate) fn is_put_off(status: StatusCode) -> bool {
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status)
}

/// The wait that an answer asks for.
pub(crate) fn wished(answer: &Answer) -> Option<Duration> {
    let wish = answer.headers.get(header::RETRY_AFTER)?;
    wait(wish, answer.upstream_now())
}

/// The wait that `Retry-After` asks for, in seconds or until a date (RFC 9110 §10.2.3).
fn wait(wish: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = wish.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::parse(text).ok()?.timestamp();
    Some(date.duration_since(now).try_into().unwrap_or(Duration::ZERO))
}

/// The value of a right that can be used once.
fn take(right: &mut bool) -> bool {
    std::mem::take(right)
}

#[cfg(test)]
mod tests;
