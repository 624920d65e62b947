//! Whether a call is made again (protocol §8), decided without doing anything.

use std::{fmt, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{HeaderValue, Method, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use tokio::time::Instant;

use crate::{
    json::{JsonText, is_almost_json},
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
        let tells = status.is_success()
            || [StatusCode::CONFLICT, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        self.changes && tells && !is_json(answer)
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

fn is_json(answer: &Answer) -> bool {
    JsonText::parse(&answer.body).is_some() || is_almost_json(&answer.body)
}

/// Whether a status, with the wish to come again later, says that the call was not looked at.
fn is_put_off(status: StatusCode) -> bool {
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status)
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
mod tests {
    use http::HeaderMap;

    use jiff::SignedDuration;

    use super::*;
    use crate::types::Address;

    fn answer(status: u16, retry_after: Option<&str>) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.extend(retry_after.map(|after| (header::RETRY_AFTER, after.parse().unwrap())));
        let status = StatusCode::from_u16(status).unwrap();
        Outcome::Answered(
            Answer { status, headers, body: "{}".into(), clock_ahead: SignedDuration::ZERO },
            None,
        )
    }

    fn next(changes: bool, outcome: &Outcome) -> Next {
        let now = Instant::now();
        Tries::new(changes, now + Duration::from_secs(60)).next(outcome, now)
    }

    fn is_again(next: Next) -> bool {
        matches!(next, Next::Again(wait) if wait < Duration::from_millis(300))
    }

    fn no_answer(why: Unanswered) -> Outcome {
        Outcome::NoAnswer(error(why))
    }

    fn error(why: Unanswered) -> UpstreamError {
        UpstreamError { url: "http://u".to_owned(), why }
    }

    fn unreachable() -> UpstreamError {
        error(Unanswered::Unreachable("refused".to_owned()))
    }

    fn broken_off() -> UpstreamError {
        error(Unanswered::BrokenOff("reset".to_owned()))
    }

    #[test]
    fn what_was_not_sent_is_tried_again_whatever_it_is() {
        for changes in [true, false] {
            assert!(is_again(next(changes, &Outcome::NoAnswer(unreachable()))));
            assert!(is_again(next(changes, &Outcome::NoSession(unreachable().into()))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_given_up_after_the_patience_and_not_before() {
        let (unsent, patience) = (Outcome::NoAnswer(unreachable()), Duration::from_secs(5));
        let begun = Instant::now();
        for changes in [true, false] {
            let deadline = begun + Duration::from_secs(60);
            let mut tries = Tries::new(changes, deadline).with_patience(patience);
            let mut now = begun;
            while let Next::Again(pause) = tries.next(&unsent, now) {
                now += pause;
            }
            assert_eq!(now, begun + patience);
            // Once the upstream was reached, the time begins anew.
            let Next::Again(pause) = tries.next(&answer(429, Some("9")), now) else { panic!() };
            assert!(matches!(tries.next(&unsent, now + pause), Next::Again(_)));
        }
        let mut tries = Tries::new(true, begun + patience).with_patience(Duration::ZERO);
        assert_eq!(tries.next(&unsent, begun), Next::Return);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_told_soon_unless_it_is_asked_what_became_of_a_change() {
        let begun = Instant::now();
        let (patience, minute) = (Duration::from_secs(5), Duration::from_secs(60));
        let tried_until = |tries: Tries, outcome: &Outcome| {
            let (mut tries, mut now) = (tries, begun);
            while let Next::Again(pause) = tries.next(outcome, now) {
                now += pause;
            }
            now - begun
        };
        let tries = |changes| Tries::new(changes, begun + minute).with_patience(patience);
        for outcome in [answer(502, None), answer(500, None), Outcome::NoAnswer(broken_off())] {
            assert_eq!(tried_until(tries(false).told_soon(), &outcome), patience);
            assert!(tried_until(tries(false), &outcome) > minute / 2);
            assert_eq!(tries(true).told_soon().next(&outcome, begun), Next::Settle);
        }
        let late = begun + minute / 2;
        let broken = Outcome::NoAnswer(broken_off());
        assert!(is_again(tries(false).told_soon().next(&broken, late)));
        let no_session = Outcome::NoSession(broken_off().into());
        assert_eq!(tried_until(tries(true).told_soon(), &no_session), patience);
        let known = no_answer(Unanswered::Failing("502".to_owned()));
        assert_eq!(tries(true).told_soon().next(&known, begun), Next::Return);
        assert!(tried_until(tries(false), &known) > minute / 2);
    }

    #[test]
    fn what_was_sent_and_lost_is_tried_again_only_if_it_changes_nothing() {
        let lost = no_answer(Unanswered::TimedOut);
        assert_eq!(next(true, &lost), Next::Settle);
        assert!(is_again(next(false, &lost)));
        assert_eq!(next(true, &answer(500, None)), Next::Settle);
        assert_eq!(next(true, &answer(503, None)), Next::Settle);
        let Outcome::Answered(good, _) = answer(200, None) else { panic!("no answer") };
        for (body, on_change) in [
            ("{}", Next::Return),
            ("{\"pay\":NaN}", Next::Return),
            ("<html>", Next::Settle),
            ("", Next::Settle),
            ("{\"pay\":", Next::Settle),
        ] {
            let page = Outcome::Answered(Answer { body: body.into(), ..good.clone() }, None);
            assert_eq!(next(true, &page), on_change, "{body:?}");
            assert_eq!(next(false, &page), Next::Return, "{body:?}");
        }
        assert!(is_again(next(false, &answer(502, None))));
        let large = no_answer(Unanswered::TooLarge);
        assert_eq!(next(true, &large), Next::Settle);
        assert_eq!(next(false, &large), Next::Return);
    }

    #[test]
    fn a_conflict_or_a_wish_to_wait_is_a_verdict_on_a_change_only_in_the_apis_own_form() {
        let told = |status, body: &str| match answer(status, Some("7")) {
            Outcome::Answered(told, _) => {
                Outcome::Answered(Answer { body: body.to_owned().into(), ..told }, None)
            }
            other => other,
        };
        let wait = || Next::Again(Duration::from_secs(7));
        for (status, verdict) in [(409, Next::Return), (503, wait())] {
            for own in ["{\"detail\":\"x\"}", "[]", "{\"n\":NaN}"] {
                assert_eq!(next(true, &told(status, own)), verdict, "{status} {own}");
            }
            for page in ["", "<html>", "Busy", "{\"detail\":"] {
                assert_eq!(next(true, &told(status, page)), Next::Settle, "{status} {page}");
                assert_ne!(next(false, &told(status, page)), Next::Settle, "{status} {page}");
            }
        }
    }

    #[test]
    fn what_was_not_signed_is_left_to_the_client() {
        let not_signed = Outcome::NotSigned(SignerError::TimedOut(Address::new([0; 20])));
        assert_eq!(next(true, &not_signed), Next::Return);
        assert_eq!(next(false, &not_signed), Next::Return);
    }

    #[test]
    fn a_put_is_made_again_after_a_broken_connection_until_there_is_no_time() {
        let now = Instant::now();
        let broken = Outcome::NoAnswer(broken_off());
        let tries = |method| Tries::new(true, now + Duration::from_secs(60)).of_method(&method);
        assert!(is_again(tries(Method::PUT).next(&broken, now)));
        let late = now + Duration::from_secs(60);
        assert_eq!(tries(Method::PUT).next(&broken, late), Next::Settle);
        assert_eq!(tries(Method::POST).next(&broken, now), Next::Settle);
        let silent = no_answer(Unanswered::TimedOut);
        assert_eq!(tries(Method::PUT).next(&silent, now), Next::Settle);
    }

    #[test]
    fn the_upstreams_wish_to_wait_is_met_if_the_deadline_allows() {
        for changes in [true, false] {
            for status in [429, 503] {
                let wait = Next::Again(Duration::from_secs(7));
                assert_eq!(next(changes, &answer(status, Some("7"))), wait);
                let date = "Wed, 21 Oct 2099 07:28:00 GMT";
                for long in ["60", "99999999999999999", "18446744073709551615", date, "soon"] {
                    assert_eq!(next(changes, &answer(status, Some(long))), Next::Return, "{long}");
                }
            }
            assert_eq!(next(changes, &answer(429, None)), Next::Return);
            assert_eq!(next(changes, &answer(402, Some("1"))), Next::Return);
        }
    }

    #[test]
    fn an_upstream_that_wants_to_be_asked_at_once_is_asked_with_pauses() {
        let now = Instant::now();
        let mut tries = Tries::new(true, now + Duration::from_secs(60));
        for wish in ["0", "Wed, 21 Oct 2015 07:28:00 GMT", "0"] {
            let next = tries.next(&answer(429, Some(wish)), now);
            assert!(matches!(next, Next::Again(pause) if pause >= FIRST_PAUSE), "{wish}: {next:?}");
        }
    }

    #[test]
    fn a_wish_is_seconds_or_a_date() {
        let now: Timestamp = "2026-10-21T07:28:00Z".parse().unwrap();
        let wait = |text: &str| wait(&HeaderValue::from_str(text).unwrap(), now);
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:05 GMT"), Some(Duration::from_secs(5)));
        assert_eq!(wait("Wed, 21 Oct 2026 07:27:00 GMT"), Some(Duration::ZERO));
        for unusable in ["", "-1", "1.5", "Wed", "2026-10-21T07:28:05Z"] {
            assert_eq!(wait(unusable), None, "{unusable}");
        }
    }

    #[test]
    fn a_session_that_is_put_off_is_waited_for() {
        let refused = |status, wish: Option<&str>| {
            let retry_after = wish.map(|wish| wish.parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            Outcome::NoSession(SessionError::Refused {
                url: "http://u".to_owned(),
                status,
                retry_after,
                by_proxy: false,
            })
        };
        for status in [429, 503] {
            let wait = Next::Again(Duration::from_secs(7));
            assert_eq!(next(true, &refused(status, Some("7"))), wait);
            assert_eq!(next(true, &refused(status, Some("3600"))), Next::Return);
        }
        assert!(is_again(next(true, &refused(500, Some("7")))));
        assert!(is_again(next(true, &refused(503, None))));
        assert_eq!(next(true, &refused(429, None)), Next::Return);
        assert_eq!(next(true, &refused(403, Some("7"))), Next::Return);
        let mut by_proxy = refused(503, Some("7"));
        if let Outcome::NoSession(SessionError::Refused { by_proxy, .. }) = &mut by_proxy {
            *by_proxy = true;
        }
        assert_eq!(next(true, &by_proxy), Next::Return);
    }

    #[test]
    fn a_session_is_renewed_once_and_a_request_id_changed_once() {
        let now = Instant::now();
        let mut tries = Tries::new(false, now + Duration::from_secs(60));
        let refused = |refusal| match answer(401, None) {
            Outcome::Answered(answer, _) => Outcome::Answered(answer, Some(refusal)),
            other => other,
        };
        assert_eq!(tries.next(&refused(Refusal::SessionOver), now), Next::Renew);
        assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Again(Duration::ZERO));
        assert_eq!(tries.next(&refused(Refusal::SessionOver), now), Next::Return);
        assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Return);
        let wrong = Refusal::WrongSignature { expected_message: None };
        assert_eq!(tries.next(&refused(wrong), now), Next::Return);
        let mut tries = Tries::new(true, now + Duration::from_secs(60));
        assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Settle);
        assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Return);
    }

    #[test]
    fn nothing_is_tried_again_after_the_deadline() {
        let now = Instant::now();
        let mut tries = Tries::new(false, now);
        assert_eq!(tries.next(&answer(500, None), now), Next::Return);
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let now = Instant::now();
        let mut tries = Tries::new(false, now + Duration::from_secs(3600));
        let pauses: Vec<_> = (0..20)
            .map(|_| match tries.pause(now) {
                Next::Again(pause) => pause,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(pauses[0] < pauses[4] && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 2));
    }
}
