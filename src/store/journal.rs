//! Writing the journal.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    begin::Claim,
    callers::access_ended,
    db::Db,
    deed::{Deed, user},
    denial::Denial,
    error::{Fault, StoreError},
    file,
    freeze::FreezeOf,
    freeze_rows,
    handle::Store,
    known::{KNOWN, LEASE},
    payment_rows,
    record::{Attempt, Chain, Draft, RecordedOutcome, append_deed},
    refusals::{MINUTE, More, Recording},
};
use crate::{
    action::{Effect, Proof},
    types::RequestId,
};

/// How long the writer of a record that need not be durable waits for room in the queue.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// How long after a commit a call may act on the state before it: for its lease, then [`KNOWN`], then the
/// wait for room in the journal's queue.
pub(super) const ACKNOWLEDGED: Duration = LEASE.saturating_add(KNOWN).saturating_add(PATIENCE);

impl Store {
    /// Records an attempt that is about to be signed.
    ///
    /// For a change, the record is on the disk when this returns, and with it that the call of the claimed
    /// key was sent, which settles at `settles_at`. A revocation and a record are written one after the
    /// other, in all processes on this file: nothing is recorded for a client after its revocation or its
    /// time, nor for a call that needs a proof while signatures are frozen. For any other call, the record
    /// follows in the background: it waits for room in the queue for at most 100 ms, then it is lost and
    /// counted.
    ///
    /// # Errors
    /// It could not be written, so nothing may be signed. After a failed sync the record may be
    /// there all the same, and then stays without outcome. Or the client's access has ended while
    /// the call was being made, signatures are frozen, or its payment is over.
    pub async fn record_attempt(
        &self,
        attempt: Attempt<'_>,
        claim: &Claim,
        settles_at: impl Into<Option<Timestamp>>,
    ) -> Result<(), StoreError> {
        let draft = Draft::signed(&attempt, Timestamp::now());
        let Attempt { operation, call, payment, .. } = attempt;
        let client = operation.client.id;
        let is_probe = !std::ptr::eq(call.action(), operation.action());
        // A client's own payment is a payment as well.
        let pays = call.payment().is_some();
        let frozen = if pays { FreezeOf::Payments } else { FreezeOf::Signatures };
        let needs_proof = call.action().proof != Proof::None;
        if call.action().changes() {
            let (inner, key, settles_at) = (self.0.clone(), claim.key.clone(), settles_at.into());
            let spends = (call.action().effect == Effect::Spends).then_some(operation.wallet);
            let record = move |db: &Db| {
                if access_ended(db, client, Timestamp::now())? {
                    return Err(Fault::AccessEnded);
                }
                if needs_proof {
                    freeze_rows::check(db, frozen)?;
                }
                if let (Some(key), Some(settles_at)) = (&key, settles_at) {
                    inner.keys(db).mark_sent(key, settles_at)?;
                }
                if let Some(nonce) = payment {
                    payment_rows::mark_sent(db, &nonce.to_string())?;
                }
                if let Some(wallet) = spends {
                    payment_rows::forget_balances(db, wallet)?;
                }
                Chain::read(db)?.append(draft)
            };
            return self.write(record).await;
        }
        // A client that waited long may have lost its access meanwhile. No writer is waited for.
        if !is_probe && operation.known_at.elapsed() >= KNOWN {
            let ended = self.read(move |db| access_ended(db, client, Timestamp::now()));
            if ended.await? {
                return Err(StoreError::new(&self.0.path, Fault::AccessEnded));
            }
        }
        if needs_proof {
            self.check_unfrozen(FreezeOf::Signatures).await?;
        }
        self.leave(draft).await;
        Ok(())
    }

    /// Notes that the upstream may be at work on the call of a claimed key for longer than was known. When
    /// this returns, it is on the disk, for the next process that claims the key
    /// if this one ends.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn prolong(&self, claim: &Claim, settles_at: Timestamp) -> Result<(), StoreError> {
        let Some(key) = claim.key.clone() else { return Ok(()) };
        let inner = self.0.clone();
        self.write(move |db| inner.keys(db).prolong(&key, settles_at)).await
    }

    /// Records the outcome of a call, in the background.
    pub async fn outcome(&self, request_id: &RequestId, outcome: RecordedOutcome) {
        self.leave(Draft::outcome(request_id, outcome, Timestamp::now())).await;
    }

    /// Records a call that was denied, in the background. Of many in a minute, those after the first 60 of a
    /// client, or of all unknown callers, are one record with their count.
    pub async fn denied(&self, denial: &Denial) {
        match self.0.refusals.next(denial, Instant::now()) {
            Recording::Record => self.leave(Draft::denied(denial, 1, Timestamp::now())).await,
            Recording::Begin => self.count_a_minute(denial.clone()),
            Recording::Count => {}
        }
    }

    /// Records what was done to the proxy itself and by which user, in the background.
    pub async fn did(&self, deed: Deed<'_>, by: &str) {
        self.leave(Draft::admin(deed, by, Timestamp::now())).await;
    }

    /// Records the refusals that were only counted so far.
    pub(super) async fn record_counts(&self) {
        for More { last, count } in self.0.refusals.take() {
            self.leave(Draft::denied(&last, count, Timestamp::now())).await;
        }
    }

    /// Records after a minute how many calls of the same caller were denied since.
    fn count_a_minute(&self, denial: Denial) {
        // The end of the store does not wait for it: `flush` records what was counted.
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

    /// Waits until all that was given to the store before, also in the background, is on the disk.
    ///
    /// # Errors
    /// Nothing can be written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.record_counts().await;
        self.write(|_| Ok(())).await
    }

    /// How many records of the background were lost since the store was opened.
    pub fn lost_records(&self) -> u64 {
        self.0.losses.count()
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
    match file::must_exist(path) {
        Err(Fault::Missing) => Ok(()),
        _ => file::change(path, |db| append_deed(db, deed, &user())),
    }
}
