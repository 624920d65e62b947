//! Who holds a job, and how many a client holds: also those whose reserve is under way, or whose
//! answer was lost.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, boot, db::Db, error::Fault, reservations::delete, submissions};
use crate::{
    clock,
    policy::Permit,
    types::{Address, ClientName, Slug},
};

/// How long a reserve counts of which nobody knows what came of it: as long as a reservation runs.
const COUNTED: SignedDuration = SignedDuration::from_mins(30);

/// How a reserve stands towards what its client and others hold.
#[derive(Debug)]
pub enum Opening {
    /// It counts as a reservation from now on.
    Opened(Pending),
    /// Another client holds the job, or is about to.
    Held,
    /// The client holds as many as it may.
    TooMany {
        /// How many it holds.
        running: u32,
        /// When the first of them ends.
        until: Timestamp,
    },
}

/// A reserve that is counted: to end with [`Store::drop_pending`] when its outcome is known. If it
/// never is, it counts for 30 minutes, as the reservation would that it may have made.
#[derive(Debug)]
#[must_use]
pub struct Pending(i64);

impl Store {
    /// Counts a reserve before it is sent, if the limit of its client allows that and no other client
    /// holds the job. Both are decided in one step, for all processes on this file. When this
    /// returns, it is on the disk.
    ///
    /// # Errors
    /// It could not be written, so nothing may be sent.
    pub async fn open_reservation(
        &self,
        permit: &Permit,
        job: &Slug,
        now: Timestamp,
    ) -> Result<Opening, StoreError> {
        let (permit, job) = (permit.clone(), job.clone());
        self.write(move |transaction| open(transaction, &permit, &job, now)).await
    }

    /// Ends the count of a reserve whose outcome is known: after its reservation was kept, or when it
    /// surely made none. Those that ended before `past`, a time that has surely come, are forgotten.
    ///
    /// # Errors
    /// It could not be written, so it counts until its end.
    pub async fn drop_pending(&self, pending: Pending, past: Timestamp) -> Result<(), StoreError> {
        self.write(move |transaction| {
            boot::follow(transaction)?;
            purge(transaction, past)?;
            let sql = "DELETE FROM pending_reservations WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute([pending.0])?;
            Ok(())
        })
        .await
    }

    /// The client that holds a job: whose reservation of it runs; or who has submitted its proof; or
    /// whose reserve is under way or may have succeeded. If there is none, the `client` that asks, if it
    /// was the last to reserve the job: a clock that is wrong takes nothing from it.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn holder(
        &self,
        wallet: Address,
        job: &Slug,
        client: &ClientName,
        now: Timestamp,
    ) -> Result<Option<ClientName>, StoreError> {
        self.follow_clock().await;
        let (job, client) = (job.clone(), client.clone());
        self.read(move |connection| {
            let found = holder(connection, HOLDER, wallet, &job, now)?;
            if found.is_some() {
                return Ok(found);
            }
            let row = params![wallet.to_string(), job.as_str(), client.as_str()];
            let is_last = connection.prepare_cached(LAST)?.exists(row)?;
            Ok(is_last.then_some(client))
        })
        .await
    }

    /// Forgets all reservations of a job, as its proof is submitted: the one that is remembered, and
    /// those that may have been made. The job stays the client's that held it, or else of the one
    /// that is named here. Jobs that were submitted a month before `past`, a time that has surely come,
    /// are forgotten.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn submit_job(
        &self,
        wallet: Address,
        job: &Slug,
        client: &str,
        reservation_id: Option<&str>,
        past: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (job, client) = (job.clone(), client.to_owned());
        let reservation_id = reservation_id.map(str::to_owned);
        self.write(move |transaction| {
            boot::follow(transaction)?;
            submissions::purge(transaction, past)?;
            let holder = holder(transaction, HOLDER, wallet, &job, now)?;
            let client = holder.as_ref().map_or(client.as_str(), ClientName::as_str);
            let (wallet, job) = (wallet.to_string(), job.as_str());
            let id = reservation_id.as_deref();
            submissions::insert(transaction, [&wallet, job], client, id, now)?;
            delete(transaction, &wallet, job)?;
            transaction.prepare_cached(END_JOB)?.execute([&wallet, job])?;
            Ok(())
        })
        .await
    }
}

const END_JOB: &str = "DELETE FROM pending_reservations WHERE wallet = ?1 AND job = ?2";

fn open(transaction: &Db, permit: &Permit, job: &Slug, now: Timestamp) -> Result<Opening, Fault> {
    boot::follow(transaction)?;
    let other = holder(transaction, RESERVER, permit.wallet(), job, now)?;
    if other.is_some_and(|other| other != *permit.client()) && !permit.is_admin() {
        return Ok(Opening::Held);
    }
    if let Some(max) = permit.max_reservations() {
        let (running, until) = running(transaction, permit, job, now)?;
        if running >= max {
            return Ok(Opening::TooMany { running, until });
        }
    }
    insert(transaction, permit, job, now + COUNTED).map(Opening::Opened)
}

/// A submitter comes before a client whose reserve is under way, as that may fail.
const HOLDER: &str = "SELECT client FROM (
         SELECT client, 1 AS place FROM reservations
             WHERE wallet = ?1 AND job = ?2 AND ends > ?3
         UNION ALL
         SELECT client, 2 FROM submissions WHERE wallet = ?1 AND job = ?2
         UNION ALL
         SELECT client, 3 FROM pending_reservations
             WHERE wallet = ?1 AND job = ?2 AND ends > ?3
     )
     ORDER BY place LIMIT 1";

const LAST: &str = "SELECT 1 FROM reservations WHERE wallet = ?1 AND job = ?2 AND client = ?3";

/// The client whose hold keeps others from reserving. A submission does not: only the upstream knows
/// whether the job is open again.
const RESERVER: &str = "SELECT client FROM reservations
         WHERE wallet = ?1 AND job = ?2 AND ends > ?3
     UNION ALL
     SELECT client FROM pending_reservations WHERE wallet = ?1 AND job = ?2 AND ends > ?3
     LIMIT 1";

fn holder(
    connection: &Db,
    sql: &str,
    wallet: Address,
    job: &Slug,
    now: Timestamp,
) -> Result<Option<ClientName>, Fault> {
    let name: Option<String> = connection
        .prepare_cached(sql)?
        .query_row(params![wallet.to_string(), job.as_str(), surely_over(now)], |row| row.get(0))
        .optional()?;
    name.map(|name| name.parse().map_err(|_| Fault::Malformed("client"))).transpose()
}

/// A job of which several reserves are under way is one job.
const RUNNING: &str = "SELECT count(*), min(ends) FROM (
        SELECT max(ends) AS ends FROM (
            SELECT wallet, job, ends FROM reservations WHERE client = ?1 AND ends > ?2
            UNION ALL
            SELECT wallet, job, ends FROM pending_reservations WHERE client = ?1 AND ends > ?2
        )
        WHERE NOT (wallet = ?3 AND job = ?4 COLLATE NOCASE)
        GROUP BY wallet, job COLLATE NOCASE
    )";

/// How many jobs the client of a permit holds besides this one, and when the first of them ends.
fn running(
    transaction: &Db,
    permit: &Permit,
    job: &Slug,
    now: Timestamp,
) -> Result<(u32, Timestamp), Fault> {
    let (running, until): (u32, Option<i64>) = transaction.prepare_cached(RUNNING)?.query_row(
        params![
            permit.client().as_str(),
            now.as_millisecond(),
            permit.wallet().to_string(),
            job.as_str()
        ],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let until = until.map_or(Ok(now), Timestamp::from_millisecond);
    Ok((running, until.map_err(|_| Fault::Malformed("time"))?))
}

fn insert(
    transaction: &Db,
    permit: &Permit,
    job: &Slug,
    ends: Timestamp,
) -> Result<Pending, Fault> {
    let sql = "INSERT INTO pending_reservations (wallet, job, client, ends, boot)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let id = transaction.prepare_cached(sql)?.insert(params![
        permit.wallet().to_string(),
        job.as_str(),
        permit.client().as_str(),
        ends.as_millisecond(),
        boot::boot(),
    ])?;
    Ok(Pending(id))
}

const PURGE: &str = "DELETE FROM pending_reservations WHERE ends <= ?1";

/// There are no more than calls in flight and answers lost within half an hour.
fn purge(transaction: &Db, past: Timestamp) -> Result<(), Fault> {
    transaction.prepare_cached(PURGE)?.execute([surely_over(past)])?;
    Ok(())
}

/// What ended by then, in milliseconds, is over on any clock.
fn surely_over(now: Timestamp) -> i64 {
    now.as_millisecond().saturating_sub(clock::TOLERANCE.as_millis() as i64)
}

#[cfg(test)]
mod tests;
