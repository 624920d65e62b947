//! What was answered to a client's `Idempotency-Key`.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::{
    Inner, Reservation, Store, StoreError,
    callers::access_ended,
    db::Db,
    error::Fault,
    held::{CallKey, Holder},
    seal::Place,
    stored_answer::{StoredAnswer, TOOK_EFFECT},
};

/// How long an answer is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How many that are too old are removed when one is added.
const PURGED: u32 = 4;

/// How a call with an idempotency key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is new, and the caller holds the claim now. It ends the claim with [`Store::settle`],
    /// [`Store::release`] or [`Store::abandon`].
    New,
    /// The call was answered.
    Done(StoredAnswer),
    /// The call is being made, by this process or by another one that uses the same file.
    Running,
    /// The call was sent, and the task or process that made it ended without an outcome, so it may have
    /// taken effect. The caller alone holds the claim now: it finds out, and ends it like a new one.
    Interrupted {
        /// When the call settles upstream: it takes no effect after that, as far as is known.
        quiet: Timestamp,
        /// Whether another process made it and has died, at a time that is not known, so its answer may
        /// have been lost long after the call was sent.
        has_died: bool,
        /// Whether the key was claimed for another call. [`Store::take_over`] may give it to this one.
        is_other: bool,
    },
    /// The key was used for another call.
    Mismatch,
}

/// A claimed call that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// Its idempotency key.
    pub key: &'a str,
    /// When the upstream is done with it, whatever becomes of the answer.
    pub quiet: Timestamp,
}

impl Store {
    /// Claims a client's key for the call with this fingerprint, a hash of all that makes it the
    /// same call. Answers are known for 24 hours; those of earlier runs for longer, if the file was out
    /// of use. `now` is by a clock that nobody sets. When this returns, the claim is on the disk. `added`
    /// is when the client was added ([`Client::added`](crate::policy::Client::added)).
    ///
    /// # Errors
    /// The claim could not be written, so it is nobody's; or the answer does not open; or the client's
    /// access has ended, and all is left as it was.
    pub async fn claim(
        &self,
        client: &str,
        added: Option<Timestamp>,
        key: &str,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        let call = CallKey { client: client.to_owned(), key: key.to_owned() };
        self.attempt(call, added, fingerprint, now, false).await
    }

    /// The same, but of another call with this key, unless it was answered, it is found out as well
    /// whether it took effect.
    ///
    /// # Errors
    /// See [`Store::claim`].
    pub async fn claim_in_doubt(
        &self,
        client: &str,
        added: Option<Timestamp>,
        key: &str,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        let call = CallKey { client: client.to_owned(), key: key.to_owned() };
        self.attempt(call, added, fingerprint, now, true).await
    }

    async fn attempt(
        &self,
        call: CallKey,
        added: Option<Timestamp>,
        fingerprint: [u8; 32],
        now: Timestamp,
        takes_over: bool,
    ) -> Result<Claim, StoreError> {
        let holder = self.0.held.holder();
        let attempt = Attempt { holder, call: call.clone(), added, fingerprint, now, takes_over };
        let inner = self.0.clone();
        let claim = self.write(move |transaction| attempt.claim(&inner, transaction)).await;
        if claim.is_err() {
            self.0.held.end(&call, Some(holder));
        }
        claim
    }

    /// Gives a claimed key to the call with this fingerprint, as the one before surely did not take
    /// effect.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn take_over(
        &self,
        client: &str,
        key: &str,
        fingerprint: [u8; 32],
    ) -> Result<(), StoreError> {
        let (client, key, run) = (client.to_owned(), key.to_owned(), self.0.run.name());
        self.write(move |transaction| {
            let sql = "UPDATE answers SET fingerprint = ?4
                       WHERE client = ?1 AND key = ?2 AND run = ?3";
            let mut statement = transaction.prepare_cached(sql)?;
            let changed = statement.execute(params![client, key, run, fingerprint])?;
            if changed == 1 { Ok(()) } else { Err(Fault::NotClaimed) }
        })
        .await
    }

    /// Forgets the answer to a call, if there is one, but not that it was sent: the next who claims it
    /// finds it interrupted.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn doubt(&self, client: &str, key: &str) -> Result<(), StoreError> {
        let (client, key, run) = (client.to_owned(), key.to_owned(), self.0.run.name());
        self.write(move |transaction| {
            let sql = "UPDATE answers SET answer = NULL, run = ?3, quiet = coalesce(quiet, 0)
                       WHERE client = ?1 AND key = ?2 AND answer IS NOT NULL";
            transaction.prepare_cached(sql)?.execute(params![client, key, run])?;
            Ok(())
        })
        .await
    }

    /// Keeps the answer to a claimed call, sealed, and ends the claim. When this returns, it is on the
    /// disk. A `reservation` that the call made and that could not be written before is written with it,
    /// or neither is: a call that counts as interrupted brings it back.
    ///
    /// # Errors
    /// It could not be written; the call then counts as interrupted.
    pub async fn settle(
        &self,
        client: &str,
        key: &str,
        answer: &StoredAnswer,
        reservation: Option<&Reservation>,
    ) -> Result<(), StoreError> {
        let (answer, reservation) = (answer.clone(), reservation.cloned());
        self.end(client, key, move |inner, transaction, call| {
            if let Some(reservation) = reservation {
                reservation.keep(&inner.seal, transaction)?;
            }
            let sealed = inner.seal.seal(&place(call), answer.to_bytes())?;
            let sql = "UPDATE answers SET answer = ?4 WHERE client = ?1 AND key = ?2 AND run = ?3";
            let row = params![call.client, call.key, inner.run.name(), sealed];
            let changed = transaction.prepare_cached(sql)?.execute(row)?;
            if changed == 1 { Ok(()) } else { Err(Fault::NotClaimed) }
        })
        .await
    }

    /// Notes that the upstream may be at work on a claimed call for longer than was known, until
    /// `quiet`. When this returns, it is on the disk, for whoever claims the call if this process ends.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn prolong(
        &self,
        client: &str,
        key: &str,
        quiet: Timestamp,
    ) -> Result<(), StoreError> {
        let call = CallKey { client: client.to_owned(), key: key.to_owned() };
        let inner = self.0.clone();
        self.write(move |transaction| mark_sent(&inner, transaction, &call, quiet)).await
    }

    /// Forgets a claimed call of which nothing was sent.
    ///
    /// # Errors
    /// It could not be written; the call then counts as interrupted.
    pub async fn release(&self, client: &str, key: &str) -> Result<(), StoreError> {
        self.end(client, key, |inner, transaction, call| {
            let sql = "DELETE FROM answers
                       WHERE client = ?1 AND key = ?2 AND run = ?3 AND answer IS NULL";
            let mut statement = transaction.prepare_cached(sql)?;
            statement.execute(params![call.client, call.key, inner.run.name()])?;
            Ok(())
        })
        .await
    }

    /// Leaves a claimed call that may have taken effect, or not: the next who claims it finds it
    /// interrupted. `quiet` is when the upstream is done with it, if that is later than was known.
    ///
    /// # Errors
    /// It could not be written; the call counts as interrupted all the same.
    pub async fn abandon(
        &self,
        client: &str,
        key: &str,
        quiet: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.end(client, key, move |inner, transaction, call| match quiet {
            Some(quiet) => mark_sent(inner, transaction, call, quiet),
            None => Ok(()),
        })
        .await
    }

    /// Ends a claim with a change to its row; if that fails, with none.
    async fn end(
        &self,
        client: &str,
        key: &str,
        change: impl FnOnce(&Inner, &Db, &CallKey) -> Result<(), Fault> + Send + 'static,
    ) -> Result<(), StoreError> {
        let call = CallKey { client: client.to_owned(), key: key.to_owned() };
        let holder = self.0.held.holder_of(&call);
        let inner = self.0.clone();
        let ended = call.clone();
        let result = self
            .write(move |transaction| {
                inner.held.end(&ended, holder);
                change(&inner, transaction, &ended)
            })
            .await;
        // Once more, for work that was refused before it began.
        self.0.held.end(&call, holder);
        result
    }
}

/// What earlier runs have claimed. How long ago that was, only the wall clock tells, which may have been
/// set meanwhile.
pub(super) struct Before {
    newest: Option<i64>,
    opened: Instant,
}

impl Before {
    pub(super) fn read(connection: &Db) -> Result<Self, Fault> {
        let newest =
            connection.query_row("SELECT max(claimed) FROM answers", [], |row| row.get(0))?;
        Ok(Self { newest, opened: Instant::now() })
    }

    /// When the oldest claim that is still known was made, in milliseconds of Unix time. Those of earlier
    /// runs age while this one lasts.
    fn oldest(&self, now: Timestamp) -> i64 {
        let (now, passed) = (now.as_millisecond(), self.opened.elapsed().as_millis() as i64);
        let kept = KEPT.as_millis() as i64;
        let newest = self.newest.filter(|_| passed < kept).map(|newest| newest + passed);
        newest.map_or(now, |newest| newest.min(now)).saturating_sub(kept)
    }
}

/// One attempt to claim a key.
struct Attempt {
    holder: Holder,
    call: CallKey,
    added: Option<Timestamp>,
    fingerprint: [u8; 32],
    now: Timestamp,
    /// Whether a call that was not answered gives way to another.
    takes_over: bool,
}

/// What the database says of a key.
struct Found {
    fingerprint: Vec<u8>,
    run: String,
    quiet: Option<i64>,
    answer: Option<Vec<u8>>,
}

impl Attempt {
    fn claim(self, inner: &Inner, transaction: &Db) -> Result<Claim, Fault> {
        if access_ended(transaction, &self.call.client, self.added, self.now)? {
            return Err(Fault::AccessEnded);
        }
        inner.run.hold()?;
        match self.find(inner, transaction)? {
            None => {
                purge(transaction, inner.before.oldest(self.now))?;
                self.mark(inner, transaction, &self.fingerprint)?;
                Ok(Claim::New)
            }
            Some(found)
                if found.fingerprint != self.fingerprint
                    && (found.answer.is_some() || !self.takes_over) =>
            {
                Ok(Claim::Mismatch)
            }
            Some(Found { answer: Some(sealed), quiet, .. }) => {
                let opened = inner.seal.open(&place(&self.call), sealed)?;
                if opened.starts_with(TOOK_EFFECT) {
                    self.mark(inner, transaction, &self.fingerprint)?;
                    return interrupted(quiet.unwrap_or_default(), false, false);
                }
                StoredAnswer::from_bytes(&opened).map(Claim::Done).ok_or(Fault::Malformed(ANSWER))
            }
            Some(found) if self.is_running(inner, &found)? => Ok(Claim::Running),
            Some(found) => {
                let Some(quiet) = found.quiet else {
                    self.mark(inner, transaction, &self.fingerprint)?;
                    return Ok(Claim::New);
                };
                self.mark(inner, transaction, &found.fingerprint)?;
                let is_other = found.fingerprint != self.fingerprint;
                interrupted(quiet, found.run != inner.run.name(), is_other)
            }
        }
    }

    fn find(&self, inner: &Inner, transaction: &Db) -> Result<Option<Found>, Fault> {
        let sql = "SELECT fingerprint, run, quiet, answer FROM answers
                   WHERE client = ?1 AND key = ?2 AND claimed > ?3";
        let found = transaction
            .prepare_cached(sql)?
            .query_row(
                params![self.call.client, self.call.key, inner.before.oldest(self.now)],
                |row| {
                    Ok(Found {
                        fingerprint: row.get(0)?,
                        run: row.get(1)?,
                        quiet: row.get(2)?,
                        answer: row.get(3)?,
                    })
                },
            )
            .optional()?;
        Ok(found)
    }

    fn is_running(&self, inner: &Inner, found: &Found) -> Result<bool, Fault> {
        if found.run == inner.run.name() {
            Ok(inner.held.holder_of(&self.call).is_some())
        } else {
            inner.run.is_alive(&found.run)
        }
    }

    /// Makes the call this holder's. One that is taken over is as old as it was.
    fn mark(&self, inner: &Inner, transaction: &Db, fingerprint: &[u8]) -> Result<(), Fault> {
        let Self { call, now, .. } = self;
        let sql = "INSERT INTO answers (client, key, fingerprint, run, claimed)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (client, key) DO UPDATE SET
                       fingerprint = excluded.fingerprint, run = excluded.run, answer = NULL,
                       quiet = CASE WHEN claimed > ?6 THEN quiet END,
                       claimed = CASE WHEN claimed > ?6 THEN claimed ELSE excluded.claimed END";
        transaction.prepare_cached(sql)?.execute(params![
            call.client,
            call.key,
            fingerprint,
            inner.run.name(),
            now.as_millisecond(),
            inner.before.oldest(*now),
        ])?;
        inner.held.hold(call, self.holder);
        Ok(())
    }
}

fn interrupted(quiet: i64, has_died: bool, is_other: bool) -> Result<Claim, Fault> {
    let quiet = Timestamp::from_millisecond(quiet).map_err(|_| Fault::Malformed("time"))?;
    Ok(Claim::Interrupted { quiet, has_died, is_other })
}

/// Notes that a claimed call is being sent, and when the upstream is done with it. What is known to
/// take longer stays.
pub(super) fn mark_sent(
    inner: &Inner,
    transaction: &Db,
    call: &CallKey,
    quiet: Timestamp,
) -> Result<(), Fault> {
    let sql = "UPDATE answers SET quiet = max(coalesce(quiet, 0), ?4)
               WHERE client = ?1 AND key = ?2 AND run = ?3";
    let quiet = quiet.as_millisecond();
    let marked = transaction.prepare_cached(sql)?.execute(params![
        call.client,
        call.key,
        inner.run.name(),
        quiet
    ])?;
    if marked == 1 { Ok(()) } else { Err(Fault::NotClaimed) }
}

/// What the errors call it.
const ANSWER: &str = "answer";

fn place(call: &CallKey) -> Place<'_> {
    Place { what: ANSWER, row: [&call.client, &call.key] }
}

fn purge(transaction: &Db, oldest: i64) -> Result<(), Fault> {
    let sql = "DELETE FROM answers WHERE rowid IN
                   (SELECT rowid FROM answers WHERE claimed <= ?1 ORDER BY claimed LIMIT ?2)";
    transaction.prepare_cached(sql)?.execute(params![oldest, PURGED])?;
    Ok(())
}

#[cfg(test)]
mod tests;
