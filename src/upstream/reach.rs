//! What is known of whether the upstream can be reached, so that calls in an outage share one attempt.

use std::{
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
    /// After this time without a connection, it is an outage.
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
    /// Since when no connection was made, if the last attempts failed.
    pub unreachable_since: Option<Timestamp>,
}

/// The time without a connection.
#[derive(Debug)]
struct Silence {
    begun: Instant,
    last: Instant,
    cause: String,
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

    pub(super) fn is_outage(&self) -> bool {
        self.lock().outage(self.patience).is_some()
    }

    /// An attempt, unless an outage is known and another call tries or has just tried: then the cause.
    pub(super) fn attempt(&self) -> Result<Attempt<'_>, String> {
        let mut state = self.lock();
        let is_for_all = match state.outage(self.patience) {
            Some(silence) if state.is_tried || silence.last.elapsed() < PAUSE => {
                return Err(silence.cause.clone());
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
            silence.last.duration_since(silence.begun) >= patience && silence.last.elapsed() < FRESH
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

    /// There was a connection, but no answer.
    pub(super) fn unanswered(&self, why: String) {
        self.reach.lock().seen.last_failure = Some((Timestamp::now(), why));
    }

    /// There was no connection.
    pub(super) fn failed(&self, cause: &str) {
        let (mut state, now) = (self.reach.lock(), Timestamp::now());
        state.seen.last_failure = Some((now, cause.to_owned()));
        state.seen.unreachable_since.get_or_insert(now);
        let begun = state.silence.as_ref().map_or(self.begun, |silence| silence.begun);
        state.silence = Some(Silence { begun, last: Instant::now(), cause: cause.to_owned() });
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

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_one_attempt_is_made_for_all_until_it_succeeds() {
        let second = Duration::from_secs(1);
        let reach = Reach::new(second * 5);
        reach.attempt().unwrap().failed("refused");
        assert!(!reach.is_outage(), "it may be a moment");
        let slow = reach.attempt().unwrap();
        advance(second * 5).await;
        slow.failed("silent");
        assert!(reach.is_outage());
        assert_eq!(reach.attempt().unwrap_err(), "silent", "one has just failed");
        advance(second).await;
        let one = reach.attempt().unwrap();
        assert_eq!(reach.attempt().unwrap_err(), "silent", "another is trying");
        drop(one);
        let one = reach.attempt().unwrap();
        one.succeeded();
        assert!(!reach.is_outage() && reach.attempt().is_ok());
        assert!(reach.seen().unreachable_since.is_none() && reach.seen().last_success.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_which_nothing_was_heard_is_tried_anew() {
        let reach = Reach::new(Duration::ZERO);
        reach.attempt().unwrap().failed("refused");
        assert!(reach.is_outage());
        advance(FRESH).await;
        assert!(!reach.is_outage());
        assert!(reach.seen().unreachable_since.is_some());
    }
}
