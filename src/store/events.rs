//! Events: recorded for those who listen, and read in order.

use jiff::{SignedDuration, Timestamp};

use super::{
    client_rows,
    db::Db,
    end::End,
    error::StoreError,
    event::{Event, EventKind},
    event_rows::{self, EventPage, OpenSubmission},
    handle::Store,
};
use crate::types::{Address, Slug};

/// How old a submission may be whose review is still asked after, and of how many.
const REVIEWED: SignedDuration = SignedDuration::from_hours(3 * 24);
const MOST_REVIEWED: u32 = 500;

/// The news for listeners, and what the proxy has to do for them.
#[derive(Debug)]
pub struct EventNews {
    /// The events after the last ones.
    pub page: EventPage,
    /// Another number after every change of a client.
    pub clients: i64,
    /// Until when events are recorded.
    pub recorded_until: Timestamp,
    /// Whether a reservation ends soon or has ended, and that is not told.
    pub is_due: bool,
    /// The proofs that wait for the end of their review.
    pub submissions: Vec<OpenSubmission>,
}

impl Store {
    /// Notes that a listener is there, so that events are recorded. Returns the number of the last record.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub async fn note_listener(&self) -> Result<u64, StoreError> {
        let now = Timestamp::now();
        let read = self.read(|db| Ok((event_rows::recorded_until(db)?, End::read(db)?.seq)));
        let (until, end) = read.await?;
        if !event_rows::is_to_be_noted(until, now) {
            return Ok(end);
        }
        self.write(move |db| {
            event_rows::note_listener(db, now)?;
            Ok(End::read(db)?.seq)
        })
        .await
    }

    /// The events after a record, in a part of the journal.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn events_after(&self, seq: u64) -> Result<EventPage, StoreError> {
        self.read(move |db| event_rows::after(db, seq)).await
    }

    /// The news after a record.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn event_news(&self, seq: u64) -> Result<EventNews, StoreError> {
        self.follow_clock().await;
        let now = Timestamp::now();
        let read = self.read(move |db| {
            Ok(EventNews {
                page: event_rows::after(db, seq)?,
                clients: client_rows::version(db)?,
                recorded_until: event_rows::recorded_until(db)?,
                is_due: event_rows::is_due(db, now)?,
                submissions: event_rows::open_submissions(db, now - REVIEWED, MOST_REVIEWED)?,
            })
        });
        read.await
    }

    /// Records which reservations end soon or have ended, each once.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn tell_ends(&self) -> Result<(), StoreError> {
        self.write(|db| event_rows::tell_ends(db, Timestamp::now())).await
    }

    /// Records an event.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn tell(&self, event: Event) -> Result<(), StoreError> {
        self.write(move |db| event_rows::tell(db, &event, Timestamp::now())).await
    }

    /// Records that the review of a proof has an end, once.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn tell_review(
        &self,
        wallet: Address,
        job: &Slug,
        kind: EventKind,
        reward_credits: Option<u64>,
    ) -> Result<(), StoreError> {
        let (wallet, job) = (wallet.to_string(), job.to_string());
        let tell = move |db: &Db| {
            let row = [wallet.as_str(), job.as_str()];
            event_rows::tell_review(db, row, kind, reward_credits, Timestamp::now())
        };
        self.write(tell).await
    }
}
