//! The jobs whose proof is submitted: each stays its client's, who alone sees what becomes of it.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, db::Db, error::Fault};
use crate::types::{Address, Slug};

/// How long a job stays its client's after its proof was submitted.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How many that are too old are removed when one is added.
const PURGED: u32 = 16;

/// A job whose proof was submitted through this proxy, and that was not reserved since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The reservation that it was for, if that is known.
    pub reservation_id: Option<String>,
}

impl Store {
    /// The submission of a job, for 30 days.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn submission(
        &self,
        wallet: Address,
        job: &Slug,
    ) -> Result<Option<Submission>, StoreError> {
        let key = [wallet.to_string(), job.to_string()];
        self.read(move |connection| {
            let sql = "SELECT reservation_id FROM submissions WHERE wallet = ?1 AND job = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let submission =
                |row: &rusqlite::Row<'_>| Ok(Submission { reservation_id: row.get(0)? });
            Ok(statement.query_row(key, submission).optional()?)
        })
        .await
    }
}

pub(super) fn insert(
    transaction: &Db,
    [wallet, job]: [&str; 2],
    client: &str,
    reservation_id: Option<&str>,
    now: Timestamp,
) -> Result<(), Fault> {
    // A submission that is seen once more, as after a lost answer, may be told without its reservation.
    let sql = "INSERT INTO submissions (wallet, job, client, reservation_id, submitted)
               VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (wallet, job) DO UPDATE SET
                   client = excluded.client, submitted = excluded.submitted,
                   reservation_id = coalesce(excluded.reservation_id, reservation_id)";
    let row = params![wallet, job, client, reservation_id, now.as_millisecond()];
    transaction.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(super) fn delete(transaction: &Db, wallet: &str, job: &str) -> Result<(), Fault> {
    let sql = "DELETE FROM submissions WHERE wallet = ?1 AND job = ?2";
    transaction.prepare_cached(sql)?.execute([wallet, job])?;
    Ok(())
}

pub(super) fn purge(transaction: &Db, past: Timestamp) -> Result<(), Fault> {
    let oldest = past.as_millisecond().saturating_sub(KEPT.as_millis() as i64);
    let sql = "DELETE FROM submissions WHERE rowid IN
                   (SELECT rowid FROM submissions WHERE submitted <= ?1 ORDER BY submitted LIMIT ?2)";
    transaction.prepare_cached(sql)?.execute(params![oldest, PURGED])?;
    Ok(())
}
