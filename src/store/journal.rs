//! Writing the journal.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    Store, StoreError,
    answers::{Sending, mark_sent},
    callers::access_ended,
    deed::{Deed, user},
    denial::{Caller, Denial},
    error::Fault,
    file,
    held::CallKey,
    record::{Chain, Draft, Entry, Outcome},
    refusals::{MINUTE, More, Next},
};
use crate::types::RequestId;

/// How long the writer of a record that need not be durable waits for room in the queue.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

impl Store {
    /// Records a call that changes something, before the key is used: when this returns, the record
    /// is on the disk. If the call is made under a claimed idempotency key, so is that it was sent.
    ///
    /// Whoever revokes a client and whoever records its call write one after the other, in all
    /// processes on this file: nothing is recorded for a client after its revocation or its time.
    ///
    /// # Errors
    /// It could not be written, so nothing may be signed. After a failed sync the record may be
    /// there all the same, and then stays without outcome. Or the client's access has ended while
    /// the call was being made; that it was denied is then on record.
    pub async fn sign_record(
        &self,
        entry: &Entry,
        sending: Option<Sending<'_>>,
    ) -> Result<(), StoreError> {
        let draft = Draft::signed(entry, Timestamp::now());
        let (client, added) = (entry.client.clone(), entry.client_added);
        let sending = sending.map(|Sending { key, quiet }| {
            (CallKey { client: entry.client.clone(), key: key.to_owned() }, quiet)
        });
        let inner = self.0.clone();
        let recorded = self.write(move |transaction| {
            if access_ended(transaction, &client, added, Timestamp::now())? {
                return Err(Fault::AccessEnded);
            }
            if let Some((call, quiet)) = &sending {
                mark_sent(&inner, transaction, call, *quiet)?;
            }
            Chain::read(transaction)?.append(draft)
        });
        let recorded = recorded.await;
        if recorded.as_ref().is_err_and(StoreError::is_access_ended) {
            self.access_ended(entry).await;
        }
        recorded
    }

    /// Records a call that only reads, as [`Store::note`], if its client may still call. No writer is
    /// waited for.
    ///
    /// # Errors
    /// The client's access has ended while the call was being made, and that it was denied is on
    /// record; or that cannot be read.
    pub async fn note_late(&self, entry: &Entry) -> Result<(), StoreError> {
        let (client, added) = (entry.client.clone(), entry.client_added);
        let ended =
            self.read(move |connection| access_ended(connection, &client, added, Timestamp::now()));
        if ended.await? {
            self.access_ended(entry).await;
            return Err(StoreError::new(&self.0.path, Fault::AccessEnded));
        }
        self.note(entry).await;
        Ok(())
    }

    /// Records a call that only reads. It follows in the background: it waits for room in the
    /// queue for at most 100 ms, then it is lost and counted.
    pub async fn note(&self, entry: &Entry) {
        self.leave(Draft::signed(entry, Timestamp::now())).await;
    }

    /// Records what came of a call, in the background as [`Store::note`].
    pub async fn outcome(&self, request_id: &RequestId, outcome: Outcome) {
        self.leave(Draft::outcome(request_id, outcome, Timestamp::now())).await;
    }

    /// Records a call that was denied, in the background as [`Store::note`]. Of many in a minute those
    /// after the first 60 of a client, or of all strangers, are one record with their count.
    pub async fn denied(&self, denial: &Denial) {
        match self.0.refusals.next(denial, Instant::now()) {
            Next::Record => self.leave(Draft::denied(denial, 1, Timestamp::now())).await,
            Next::Begin => self.count_a_minute(denial.clone()),
            Next::Count => {}
        }
    }

    /// Records what was done to the proxy itself and by whom, in the background as [`Store::note`].
    pub async fn did(&self, deed: Deed<'_>, by: &str) {
        self.leave(Draft::admin(deed, by, Timestamp::now())).await;
    }

    /// Records what was only counted so far.
    pub(super) async fn record_counts(&self) {
        for More { last, count } in self.0.refusals.take() {
            self.leave(Draft::denied(&last, count, Timestamp::now())).await;
        }
    }

    /// Records after a minute how many calls of the same caller were denied since.
    fn count_a_minute(&self, denial: Denial) {
        // The end of the store does not wait for it: whoever ends it records what was counted.
        let store = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            sleep(MINUTE).await;
            let Some(store) = store.upgrade().map(Self) else { return };
            if let Some(More { last, count }) =
                store.0.refusals.end_of_minute(&denial, Instant::now())
            {
                store.leave(Draft::denied(&last, count, Timestamp::now())).await;
            }
        });
    }

    /// How many records of the background were lost since the store was opened.
    pub fn lost_records(&self) -> u64 {
        self.0.losses.count()
    }

    /// Records that a call was denied which had been let through before.
    async fn access_ended(&self, entry: &Entry) {
        // Every client that was added has a name.
        let Ok(name) = entry.client.parse() else { return };
        let Entry { call_id, wallet, action, product, .. } = entry.clone();
        let (caller, reason) = (Caller::Client(name), "access_ended");
        let denial = Denial { call_id, caller, wallet: Some(wallet), action, product, reason };
        self.denied(&denial).await;
    }

    async fn leave(&self, draft: Draft) {
        self.0.worker.record(draft, PATIENCE).await;
    }
}

/// Records what a command does, in the database at this path. Without one there is no journal.
///
/// # Errors
/// It could not be written.
pub fn record_deed(path: &Path, deed: Deed<'_>) -> Result<(), StoreError> {
    let failed = |fault| StoreError::new(path, fault);
    match file::must_exist(path) {
        Err(Fault::Missing) => return Ok(()),
        found => found.map_err(failed)?,
    }
    let record = || {
        let draft = Draft::admin(deed, &user(), Timestamp::now());
        file::open(path)?.transaction(|db| Chain::read(db)?.append(draft))
    };
    record().map_err(|fault: Fault| failed(fault.of_command()))
}
