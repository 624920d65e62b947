//! A circuit breaker: in an outage, one call at a time tries to reach the upstream for all.

use std::{
    mem::discriminant,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

/// In an outage, a call tries at most this often.
const PAUSE: Duration = Duration::from_secs(1);

/// A failure that is this old shows no outage any more.
const FRESH: Duration = Duration::from_secs(30);

/// Lets calls through unless the last ones have shown an outage.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// For how long connecting has to fail until it is an outage; other failures take half of it.
    patience: Duration,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    seen: Seen,
    failures: Option<Failures>,
    /// Whether a call tries for all.
    is_tried: bool,
}

/// The state of the upstream, by the last calls.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When it answered last, whatever it said.
    pub last_success: Option<Timestamp>,
    /// When it last gave no answer, and why.
    pub last_failure: Option<(Timestamp, String)>,
    /// When the failures began, if the last calls failed.
    pub unreachable_since: Option<Timestamp>,
}

/// Calls that failed one after the other in the same way.
#[derive(Debug)]
struct Failures {
    since: Instant,
    last: Instant,
    how: Outage,
}

/// How a call fails in an outage, with the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outage {
    /// There is no connection.
    NoConnection(String),
    /// There is one, but nothing stands behind it.
    NoAnswer(String),
}

/// A call that was let through.
#[derive(Debug)]
pub(super) struct Passed<'a> {
    breaker: &'a CircuitBreaker,
    at: Instant,
    is_for_all: bool,
}

impl CircuitBreaker {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, history: Mutex::default() }
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// Whether there is an outage in which no connection is made.
    pub(super) fn is_cut_off(&self) -> bool {
        let history = self.lock();
        let outage = history.outage(self.patience);
        outage.is_some_and(|failures| matches!(failures.how, Outage::NoConnection(_)))
    }

    /// Lets a call through.
    ///
    /// # Errors
    /// There is an outage, and another call tries or has just tried.
    pub(super) fn pass(&self) -> Result<Passed<'_>, Outage> {
        let mut history = self.lock();
        let is_for_all = match history.outage(self.patience) {
            Some(failures) if history.is_tried || failures.last.elapsed() < PAUSE => {
                return Err(failures.how.clone());
            }
            outage => outage.is_some(),
        };
        history.is_tried |= is_for_all;
        Ok(Passed { breaker: self, at: Instant::now(), is_for_all })
    }

    /// No code that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn outage(&self, patience: Duration) -> Option<&Failures> {
        let is_outage = |failures: &&Failures| {
            let needed = match failures.how {
                Outage::NoConnection(_) => patience,
                // Half: a call retries for the whole patience, so a single one reveals the outage.
                Outage::NoAnswer(_) => patience / 2,
            };
            failures.last.duration_since(failures.since) >= needed
                && failures.last.elapsed() < FRESH
        };
        self.failures.as_ref().filter(is_outage)
    }
}

impl Passed<'_> {
    /// The upstream answered.
    pub(super) fn succeeded(&self) {
        let mut history = self.breaker.lock();
        history.seen.last_success = Some(Timestamp::now());
        history.seen.unreachable_since = None;
        history.failures = None;
    }

    /// There was no answer, but perhaps only to this call.
    pub(super) fn unanswered(&self, why: String) {
        self.breaker.lock().seen.last_failure = Some((Timestamp::now(), why));
    }

    /// The call failed as any other would.
    pub(super) fn failed(&self, how: Outage) {
        let (mut history, now) = (self.breaker.lock(), Timestamp::now());
        let (Outage::NoConnection(cause) | Outage::NoAnswer(cause)) = &how;
        history.seen.last_failure = Some((now, cause.clone()));
        history.seen.unreachable_since.get_or_insert(now);
        let last = Instant::now();
        let since = match (&history.failures, &how) {
            (Some(failures), how) if discriminant(&failures.how) == discriminant(how) => {
                failures.since
            }
            (_, Outage::NoConnection(_)) => self.at,
            // A gateway may have waited long before it answered.
            (_, Outage::NoAnswer(_)) => last,
        };
        history.failures = Some(Failures { since, last, how });
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        if self.is_for_all {
            self.breaker.lock().is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn refused() -> Outage {
        Outage::NoConnection("refused".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_behind_a_gateway_is_an_outage_once_it_has_failed_for_some_time() {
        let (second, gateway) = (Duration::from_secs(1), Outage::NoAnswer("502".to_owned()));
        let breaker = CircuitBreaker::new(second * 4);
        let slow = breaker.pass().unwrap();
        advance(second * 60).await;
        slow.failed(gateway.clone());
        assert!(breaker.pass().is_ok(), "it may be one call's");
        advance(second * 2).await;
        breaker.pass().unwrap().failed(gateway.clone());
        assert_eq!(breaker.pass().unwrap_err(), gateway);
        assert!(!breaker.is_cut_off() && breaker.seen().unreachable_since.is_some());
        advance(second).await;
        breaker.pass().unwrap().failed(refused());
        assert!(breaker.pass().is_ok(), "it is another failure");
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_one_attempt_is_made_for_all_until_it_succeeds() {
        let second = Duration::from_secs(1);
        let breaker = CircuitBreaker::new(second * 5);
        breaker.pass().unwrap().failed(refused());
        assert!(!breaker.is_cut_off(), "it may be a moment");
        let slow = breaker.pass().unwrap();
        advance(second * 5).await;
        slow.failed(refused());
        assert!(breaker.is_cut_off());
        assert_eq!(breaker.pass().unwrap_err(), refused(), "one has just failed");
        advance(second).await;
        let one = breaker.pass().unwrap();
        assert_eq!(breaker.pass().unwrap_err(), refused(), "another is trying");
        drop(one);
        let one = breaker.pass().unwrap();
        one.succeeded();
        assert!(!breaker.is_cut_off() && breaker.pass().is_ok());
        assert!(
            breaker.seen().unreachable_since.is_none() && breaker.seen().last_success.is_some()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_which_nothing_was_heard_is_tried_anew() {
        let breaker = CircuitBreaker::new(Duration::ZERO);
        breaker.pass().unwrap().failed(refused());
        assert!(breaker.is_cut_off());
        advance(FRESH).await;
        assert!(!breaker.is_cut_off());
        assert!(breaker.seen().unreachable_since.is_some());
    }
}
