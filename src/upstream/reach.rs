//! What is known of whether the upstream can be reached, so that calls in an outage share one attempt.

use std::{
    mem::discriminant,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

/// In an outage, an attempt is made at most this often.
const PAUSE: Duration = Duration::from_secs(1);

/// An outage of which nothing was heard for so long may be over.
const FRESH: Duration = Duration::from_secs(30);

/// What the last calls showed of the upstream.
#[derive(Debug)]
pub(super) struct Reach {
    /// After this time without a connection it is an outage; of other failures, after half of it.
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    silence: Option<Silence>,
    /// Whether one attempt is being made for all.
    is_tried: bool,
}

/// What was seen of the upstream.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When it answered last, whatever it said.
    pub last_success: Option<Timestamp>,
    /// When it last gave no answer, and why.
    pub last_failure: Option<(Timestamp, String)>,
    /// Since when attempts failed, if the last ones did.
    pub unreachable_since: Option<Timestamp>,
}

/// The time in which attempts failed, each in the same way.
#[derive(Debug)]
struct Silence {
    begun: Instant,
    last: Instant,
    failure: Failure,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was no connection.
    NoConnection(String),
    /// There was one, but nothing stands behind it.
    NoAnswer(String),
}

impl Failure {
    fn is_alike(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other)
    }
}

/// One attempt to reach the upstream.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    reach: &'a Reach,
    begun: Instant,
    is_for_all: bool,
}

impl Reach {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, state: Mutex::default() }
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// Whether it is an outage in which no connection is made.
    pub(super) fn is_cut_off(&self) -> bool {
        let state = self.lock();
        let outage = state.outage(self.patience);
        outage.is_some_and(|outage| matches!(outage.failure, Failure::NoConnection(_)))
    }

    /// An attempt, unless an outage is known and another call tries or has just tried: then its
    /// failure.
    pub(super) fn attempt(&self) -> Result<Attempt<'_>, Failure> {
        let mut state = self.lock();
        let is_for_all = match state.outage(self.patience) {
            Some(silence) if state.is_tried || silence.last.elapsed() < PAUSE => {
                return Err(silence.failure.clone());
            }
            outage => outage.is_some(),
        };
        state.is_tried |= is_for_all;
        Ok(Attempt { reach: self, begun: Instant::now(), is_for_all })
    }

    /// No code that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn outage(&self, patience: Duration) -> Option<&Silence> {
        let is_known = |silence: &&Silence| {
            let needed = match silence.failure {
                Failure::NoConnection(_) => patience,
                // Those of one call, which is given up after all of it, may show it to others.
                Failure::NoAnswer(_) => patience / 2,
            };
            silence.last.duration_since(silence.begun) >= needed && silence.last.elapsed() < FRESH
        };
        self.silence.as_ref().filter(is_known)
    }
}

impl Attempt<'_> {
    /// It answered.
    pub(super) fn succeeded(&self) {
        let mut state = self.reach.lock();
        state.seen.last_success = Some(Timestamp::now());
        state.seen.unreachable_since = None;
        state.silence = None;
    }

    /// There was no answer, which may be for the call itself.
    pub(super) fn unanswered(&self, why: String) {
        self.reach.lock().seen.last_failure = Some((Timestamp::now(), why));
    }

    /// It failed, as any other call would.
    pub(super) fn failed(&self, failure: Failure) {
        let (mut state, now) = (self.reach.lock(), Timestamp::now());
        let (Failure::NoConnection(cause) | Failure::NoAnswer(cause)) = &failure;
        state.seen.last_failure = Some((now, cause.clone()));
        state.seen.unreachable_since.get_or_insert(now);
        let last = Instant::now();
        let begun = match (&state.silence, &failure) {
            (Some(silence), failure) if silence.failure.is_alike(failure) => silence.begun,
            (_, Failure::NoConnection(_)) => self.begun,
            // A gateway may have waited long before it said so.
            (_, Failure::NoAnswer(_)) => last,
        };
        state.silence = Some(Silence { begun, last, failure });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_for_all {
            self.reach.lock().is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn refused() -> Failure {
        Failure::NoConnection("refused".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_behind_a_gateway_is_an_outage_once_it_has_failed_for_some_time() {
        let (second, gateway) = (Duration::from_secs(1), Failure::NoAnswer("502".to_owned()));
        let reach = Reach::new(second * 4);
        let slow = reach.attempt().unwrap();
        advance(second * 60).await;
        slow.failed(gateway.clone());
        assert!(reach.attempt().is_ok(), "it may be one call's");
        advance(second * 2).await;
        reach.attempt().unwrap().failed(gateway.clone());
        assert_eq!(reach.attempt().unwrap_err(), gateway);
        assert!(!reach.is_cut_off() && reach.seen().unreachable_since.is_some());
        advance(second).await;
        reach.attempt().unwrap().failed(refused());
        assert!(reach.attempt().is_ok(), "it is another failure");
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_one_attempt_is_made_for_all_until_it_succeeds() {
        let second = Duration::from_secs(1);
        let reach = Reach::new(second * 5);
        reach.attempt().unwrap().failed(refused());
        assert!(!reach.is_cut_off(), "it may be a moment");
        let slow = reach.attempt().unwrap();
        advance(second * 5).await;
        slow.failed(refused());
        assert!(reach.is_cut_off());
        assert_eq!(reach.attempt().unwrap_err(), refused(), "one has just failed");
        advance(second).await;
        let one = reach.attempt().unwrap();
        assert_eq!(reach.attempt().unwrap_err(), refused(), "another is trying");
        drop(one);
        let one = reach.attempt().unwrap();
        one.succeeded();
        assert!(!reach.is_cut_off() && reach.attempt().is_ok());
        assert!(reach.seen().unreachable_since.is_none() && reach.seen().last_success.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_which_nothing_was_heard_is_tried_anew() {
        let reach = Reach::new(Duration::ZERO);
        reach.attempt().unwrap().failed(refused());
        assert!(reach.is_cut_off());
        advance(FRESH).await;
        assert!(!reach.is_cut_off());
        assert!(reach.seen().unreachable_since.is_some());
    }
}
