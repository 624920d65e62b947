//! The last moment of a call: its outcome, its stored answer and its reservation, together.

use jiff::Timestamp;

use super::{
    begin::Claim,
    credit_rows,
    db::Db,
    error::{Fault, StoreError},
    handle::{Inner, Store},
    keys::Key,
    payment_rows,
    reservations::{self, Reservation},
    stored_answer::StoredAnswer,
};
use crate::{operation::Operation, types::CreditAmount};

/// The end of a call.
#[derive(Debug, Clone)]
pub struct Finish {
    /// For the next call with its key.
    pub key: KeyEnd,
    /// For its job.
    pub job: JobEnd,
    /// For the credits that it holds.
    pub credits: CreditEnd,
    /// Whether a reserve still counts, as it may have succeeded without a reservation to show for it.
    pub is_pending: bool,
    /// Whether the open payment of the call, if it has one, has settled.
    pub is_settled: bool,
    /// A time that is past on every clock: rows due to be forgotten by then are purged.
    pub past: Timestamp,
}

/// The end of a call, for its key.
#[derive(Debug, Clone)]
pub enum KeyEnd {
    /// It keeps the answer.
    Answered(StoredAnswer),
    /// It keeps the answer to an earlier completion with another proof. The key that the client gave is
    /// free, as its call was not made.
    AnsweredOther(StoredAnswer),
    /// The next call with it is a new one: this one was surely not made, or may be made again.
    Free,
    /// The next call with it has to find out whether this one took effect. It settles at this time by the
    /// steady clock, if that is later than was known.
    InDoubt(Option<Timestamp>),
}

/// The end of a call, for its job.
#[derive(Debug, Clone)]
pub enum JobEnd {
    /// It is as it was.
    Unchanged,
    /// It is reserved.
    Reserved(Reservation),
    /// Its proof is submitted.
    Submitted,
}

/// The end of a call, for the credits that it holds against its client's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditEnd {
    /// So many were charged.
    Charged(CreditAmount),
    /// They stay held, as it may have been charged.
    Held,
    /// They are given back, as it was surely not made.
    Free,
}

impl Store {
    /// Whether to retry a write that failed: not once the job was reserved again or its proof submitted.
    pub fn is_to_be_finished(&self, finish: &Finish) -> bool {
        let JobEnd::Reserved(reservation) = &finish.job else { return true };
        let unsaved = self.unsaved(reservation.wallet, &reservation.job);
        unsaved.is_some_and(|unsaved| unsaved.ends == reservation.ends)
    }

    /// Ends a call: keeps its answer and what became of its job, or neither. When this returns, it is on
    /// the disk.
    ///
    /// # Errors
    /// It could not be written; a reservation is then known to this process, and a call that was sent is in
    /// doubt.
    pub async fn finish(
        &self,
        operation: &Operation,
        claim: &Claim,
        finish: &Finish,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_unchanged = matches!(finish.job, JobEnd::Unchanged);
        let holds_nothing =
            claim.key.is_none() && claim.pending.is_none() && claim.credits.is_none();
        if holds_nothing && is_unchanged && !finish.is_settled {
            return Ok(());
        }
        let mut finish = finish.clone();
        if let JobEnd::Reserved(reservation) = &mut finish.job {
            let before = self.unsaved(reservation.wallet, &reservation.job);
            if let Some(before) = before.filter(|before| before.is_renewed_by(operation, now)) {
                *reservation = reservation.clone().renewing(&before);
            }
            self.set_unsaved(reservation.wallet, &reservation.job, Some(reservation));
        }
        let Claim { key, alias, pending, credits, .. } = claim;
        let ending = Ending {
            operation: operation.clone(),
            key: key.clone(),
            alias: alias.clone(),
            pending: *pending,
            credits: *credits,
            unsaved: operation.job().and_then(|job| self.unsaved(operation.wallet, job)),
            finish,
            now,
        };
        let inner = self.0.clone();
        self.write(move |db| ending.write(&inner, db)).await?;
        if let (Some(job), false) = (operation.job(), is_unchanged) {
            self.set_unsaved(operation.wallet, job, None);
        }
        Ok(())
    }
}

/// A call that ends.
struct Ending {
    operation: Operation,
    key: Option<Key>,
    alias: Option<Key>,
    pending: Option<i64>,
    credits: Option<i64>,
    /// The reservation of its job, if that is not on record yet.
    unsaved: Option<Reservation>,
    finish: Finish,
    now: Timestamp,
}

impl Ending {
    fn write(&self, inner: &Inner, db: &Db) -> Result<(), Fault> {
        let Self { operation, key, alias, pending, credits, unsaved, finish, now } = self;
        let keys = inner.keys(db);
        if finish.is_settled {
            payment_rows::settle(db, &operation.payment_fingerprint())?;
        }
        reservations::purge(db, finish.past)?;
        match (&finish.job, operation.job()) {
            (JobEnd::Reserved(reservation), _) => {
                if let Some(renewal) =
                    reservations::keep(db, &inner.seal, reservation, operation, *now)?
                {
                    keys.carry_over(&renewal)?;
                }
            }
            (JobEnd::Submitted, Some(job)) => {
                reservations::submit(db, operation, job, unsaved.as_ref(), *now)?;
            }
            _ => {}
        }
        if let Some(number) = pending.filter(|_| !finish.is_pending) {
            reservations::delete_pending(db, number)?;
        }
        match (credits, finish.credits) {
            (Some(hold), CreditEnd::Charged(charged)) => credit_rows::charge(db, *hold, charged)?,
            (Some(hold), CreditEnd::Free) => credit_rows::release(db, *hold)?,
            _ => {}
        }
        for claimed in [key, alias].into_iter().flatten() {
            match &finish.key {
                KeyEnd::AnsweredOther(_) if alias.as_ref() == Some(claimed) => {
                    keys.release(claimed)?;
                }
                KeyEnd::Answered(answer) | KeyEnd::AnsweredOther(answer) => {
                    keys.keep(claimed, answer)?;
                }
                KeyEnd::Free => keys.release(claimed)?,
                KeyEnd::InDoubt(_) => {}
            }
        }
        if let (KeyEnd::InDoubt(Some(settles_at)), Some(key)) = (&finish.key, key) {
            keys.prolong(key, *settles_at)?;
        }
        Ok(())
    }
}
