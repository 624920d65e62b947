//! Writing the journal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Store, StoreError,
    answers::{Sending, mark_sent},
    denial::Denial,
    error::Fault,
    held::CallKey,
    record::{Draft, Entry, Outcome},
};
use crate::types::RequestId;

/// How long the writer of a record that need not be durable waits for room in the queue.
const PATIENCE: Duration = Duration::from_millis(100);

impl Store {
    /// Records a call that changes something, before the key is used: when this returns, the record
    /// is on the disk. If the call is made under a claimed idempotency key, so is that it was sent.
    ///
    /// # Errors
    /// It could not be written, so nothing may be signed. After a failed sync the record may be
    /// there all the same, and then stays without outcome.
    pub async fn sign_record(
        &self,
        entry: &Entry,
        sending: Option<Sending<'_>>,
    ) -> Result<(), StoreError> {
        let draft = Draft::signed(entry, Timestamp::now());
        let sending = sending.map(|Sending { key, quiet }| {
            (CallKey { client: entry.client.clone(), key: key.to_owned() }, quiet)
        });
        let inner = self.0.clone();
        self.write(move |transaction| {
            if let Some((call, quiet)) = &sending {
                mark_sent(&inner, transaction, call, *quiet)?;
            }
            draft.append(transaction)
        })
        .await
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

    /// Records a call that was denied, in the background as [`Store::note`].
    pub async fn denied(&self, denial: &Denial) {
        self.leave(Draft::denied(denial, Timestamp::now())).await;
    }

    /// How many records of the background were lost since the store was opened.
    pub fn lost_records(&self) -> u64 {
        self.0.losses.count.load(Relaxed)
    }

    async fn leave(&self, draft: Draft) {
        let losses = self.0.losses.clone();
        let append = move |transaction: &_| draft.append(transaction);
        self.0.worker.leave(PATIENCE, append, move |result| losses.hear(result)).await;
    }
}

/// The records that were lost.
#[derive(Default)]
pub(super) struct Losses {
    count: AtomicU64,
    /// Whether the last record was lost.
    losing: AtomicBool,
}

impl Losses {
    /// Counts, and logs when losing begins and when it ends.
    fn hear(self: Arc<Self>, result: Result<(), Fault>) {
        match result {
            Ok(()) => {
                if self.losing.swap(false, Relaxed) {
                    let lost = self.count.load(Relaxed);
                    tracing::info!(lost, "the journal takes records again");
                }
            }
            Err(fault) => {
                self.count.fetch_add(1, Relaxed);
                if !self.losing.swap(true, Relaxed) {
                    tracing::error!(%fault, "records of the journal are being lost");
                }
            }
        }
    }
}
