//! The last events, and the clients that listen. No listener has a queue of its own: each knows how far it
//! is, reads the next events here, and those that are no longer here from the journal.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::reviews::Asker;
use crate::{policy::Client, store::RecordedEvent};

/// How many events are here.
const RECENT: usize = 256;

/// The last events.
#[derive(Debug, Default)]
pub(super) struct Feed {
    state: Mutex<FeedState>,
    news: watch::Sender<FeedNews>,
}

#[derive(Debug, Default)]
struct FeedState {
    /// Whether a task follows the journal.
    is_followed: bool,
    recent: VecDeque<Arc<RecordedEvent>>,
    /// All events after this record, up to `until`, are in `recent`.
    since: u64,
    until: u64,
    listeners: BTreeMap<u64, (Client, Asker)>,
    next: u64,
}

/// The last change that listeners were woken for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct FeedNews {
    /// The number of the last event.
    pub(super) last: u64,
    /// Another number after every change of a client.
    pub(super) clients: i64,
}

impl Feed {
    /// Begins to follow the journal after a record, unless a task does.
    pub(super) fn begin(&self, end: u64) -> bool {
        let mut state = self.lock();
        if state.is_followed {
            return false;
        }
        (state.is_followed, state.since, state.until) = (true, end, end);
        state.recent.clear();
        true
    }

    /// Ends that, unless a client listens.
    pub(super) fn end(&self) -> bool {
        let mut state = self.lock();
        state.is_followed = !state.listeners.is_empty();
        !state.is_followed
    }

    /// Adds a client that listens. Returns its number here.
    pub(super) fn add(&self, client: Client, asker: Asker) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.listeners.insert(number, (client, asker));
        number
    }

    pub(super) fn remove(&self, number: u64) {
        self.lock().listeners.remove(&number);
    }

    /// The clients that listen.
    pub(super) fn listeners(&self) -> Vec<(Client, Asker)> {
        self.lock().listeners.values().cloned().collect()
    }

    pub(super) fn news(&self) -> watch::Receiver<FeedNews> {
        self.news.subscribe()
    }

    /// Adds the next events, up to a record, and wakes the listeners if there is news.
    pub(super) fn publish(&self, events: Vec<RecordedEvent>, until: u64, clients: i64) {
        let last = events.last().map(|event| event.seq);
        let mut state = self.lock();
        state.until = until;
        state.recent.extend(events.into_iter().map(Arc::new));
        while state.recent.len() > RECENT {
            state.since = state.recent.pop_front().map_or(state.since, |event| event.seq);
        }
        drop(state);
        self.news.send_if_modified(|news| {
            let next = FeedNews { last: last.unwrap_or(news.last), clients };
            std::mem::replace(news, next) != next
        });
    }

    /// The events after a record and the number up to which that is all; `None` if they are no longer here.
    pub(super) fn after(&self, seq: u64) -> Option<(Vec<Arc<RecordedEvent>>, u64)> {
        let state = self.lock();
        if seq < state.since {
            return None;
        }
        let begin = state.recent.partition_point(|event| event.seq <= seq);
        let events = state.recent.range(begin..).cloned().collect();
        Some((events, seq.max(state.until)))
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::{Event, EventKind};

    fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<RecordedEvent> {
        let event = |seq| {
            let (time, event) = (Timestamp::UNIX_EPOCH, Event::new(EventKind::UpstreamBack));
            RecordedEvent { seq, time, event }
        };
        numbers.into_iter().map(event).collect()
    }

    fn after(feed: &Feed, seq: u64) -> Option<(Vec<u64>, u64)> {
        let (events, until) = feed.after(seq)?;
        Some((events.iter().map(|event| event.seq).collect(), until))
    }

    #[test]
    fn a_listener_reads_on_from_where_it_is_and_what_is_too_old_from_the_journal() {
        let feed = Feed::default();
        assert!(feed.begin(100) && !feed.begin(200));
        assert_eq!(after(&feed, 100), Some((vec![], 100)));
        assert_eq!(after(&feed, 99), None, "it is from before");
        feed.publish(events([103, 107]), 110, 0);
        assert_eq!(after(&feed, 100), Some((vec![103, 107], 110)));
        assert_eq!(after(&feed, 103), Some((vec![107], 110)));
        assert_eq!(after(&feed, 110), Some((vec![], 110)));
        assert_eq!(after(&feed, 120), Some((vec![], 120)), "it read the journal beyond");
        feed.publish(events(200..200 + RECENT as u64), 999, 0);
        assert_eq!(after(&feed, 106), None);
        assert_eq!(after(&feed, 107).unwrap().0.len(), RECENT);
    }

    #[test]
    fn listeners_are_woken_by_events_and_by_changes_of_clients_alone() {
        let feed = Feed::default();
        feed.begin(1);
        let mut news = feed.news();
        for (numbers, clients, wakes) in
            [(vec![], 0, false), (vec![2], 0, true), (vec![], 0, false), (vec![], 7, true)]
        {
            feed.publish(events(numbers), 9, clients);
            assert_eq!(news.has_changed().unwrap(), wakes);
            news.borrow_and_update();
        }
    }
}
