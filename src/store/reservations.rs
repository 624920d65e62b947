//! The jobs that are reserved.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, Row, params};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Store, StoreError, boot,
    db::Db,
    error::Fault,
    seal::{Place, Seal},
    submissions,
};
use crate::types::{Address, Slug};

/// How long a reservation is remembered after its end.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How many that are too old are removed when one is added.
const PURGED: u32 = 16;

/// A job that was reserved through this proxy.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The job.
    pub job: Slug,
    /// The wallet that holds it.
    pub wallet: Address,
    /// The client that reserved it.
    pub client: String,
    /// The upstream's id of the reservation.
    pub reservation_id: Option<String>,
    /// When it ends.
    pub ends: Timestamp,
    /// The token of the job's workflow calls. It is sealed at rest.
    pub workflow_token: Option<SecretString>,
}

impl Store {
    /// Remembers a reservation, in place of an earlier one of the same wallet and job, and of what
    /// was submitted for that. When this returns, it is on the disk. Those that ended a day before
    /// `past`, a time that has surely come, are forgotten: not by a clock that is wrong.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn keep_reservation(
        &self,
        reservation: &Reservation,
        past: Timestamp,
    ) -> Result<(), StoreError> {
        let reservation = reservation.clone();
        let inner = self.0.clone();
        self.write(move |transaction| {
            purge(transaction, past)?;
            reservation.keep(&inner.seal, transaction)
        })
        .await
    }

    /// The reservation of a job; also one that has ended, for a day.
    ///
    /// # Errors
    /// It cannot be read, or its workflow token does not open.
    pub async fn reservation(
        &self,
        wallet: Address,
        job: &Slug,
    ) -> Result<Option<Reservation>, StoreError> {
        self.follow_clock().await;
        let key = (wallet.to_string(), job.to_string());
        let inner = self.0.clone();
        self.read(move |connection| {
            let sql = "SELECT wallet, job, client, reservation_id, ends, workflow_token
                       FROM reservations WHERE wallet = ?1 AND job = ?2";
            let stored = connection.prepare_cached(sql)?.query_row(key, Stored::read).optional()?;
            let Some(stored) = stored else { return Ok(None) };
            let token = stored.token(&inner.seal)?;
            Ok(Some(Reservation { workflow_token: token, ..stored.reservation()? }))
        })
        .await
    }

    /// The reservations of all wallets that have not ended, the first to end first. A workflow
    /// token that does not open, since it is another wallet's, is left out.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn reservations(&self, now: Timestamp) -> Result<Vec<Reservation>, StoreError> {
        self.follow_clock().await;
        let inner = self.0.clone();
        self.read(move |connection| {
            let sql = "SELECT wallet, job, client, reservation_id, ends, workflow_token
                       FROM reservations WHERE ends > ?1 ORDER BY ends";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([now.as_millisecond()], Stored::read)?;
            rows.map(|row| {
                let stored = row?;
                let token = stored.token(&inner.seal).ok().flatten();
                Ok(Reservation { workflow_token: token, ..stored.reservation()? })
            })
            .collect()
        })
        .await
    }
}

impl Reservation {
    pub(super) fn keep(&self, seal: &Seal, transaction: &Db) -> Result<(), Fault> {
        boot::follow(transaction)?;
        let wallet = self.wallet.to_string();
        submissions::delete(transaction, &wallet, self.job.as_str())?;
        let token = self.workflow_token.as_ref().map(|token| {
            seal.seal(&place(&wallet, self.job.as_str()), token.expose_secret().into())
        });
        let sql = "INSERT OR REPLACE INTO reservations
                   (wallet, job, client, reservation_id, ends, workflow_token, boot)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        transaction.prepare_cached(sql)?.execute(params![
            wallet,
            self.job.as_str(),
            self.client,
            self.reservation_id,
            self.ends.as_millisecond(),
            token.transpose()?,
            boot::boot(),
        ])?;
        Ok(())
    }
}

/// A row as it is stored.
struct Stored {
    wallet: String,
    job: String,
    client: String,
    reservation_id: Option<String>,
    ends: i64,
    workflow_token: Option<Vec<u8>>,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            wallet: row.get(0)?,
            job: row.get(1)?,
            client: row.get(2)?,
            reservation_id: row.get(3)?,
            ends: row.get(4)?,
            workflow_token: row.get(5)?,
        })
    }

    fn token(&self, seal: &Seal) -> Result<Option<SecretString>, Fault> {
        let Some(sealed) = self.workflow_token.clone() else { return Ok(None) };
        let opened = seal.open(&place(&self.wallet, &self.job), sealed)?;
        let token = std::str::from_utf8(&opened).map_err(|_| Fault::Malformed(TOKEN))?;
        Ok(Some(token.into()))
    }

    /// All but the token.
    fn reservation(self) -> Result<Reservation, Fault> {
        Ok(Reservation {
            job: self.job.parse().map_err(|_| Fault::Malformed("job id"))?,
            wallet: self.wallet.parse().map_err(|_| Fault::Malformed("wallet address"))?,
            client: self.client,
            reservation_id: self.reservation_id,
            ends: Timestamp::from_millisecond(self.ends).map_err(|_| Fault::Malformed("time"))?,
            workflow_token: None,
        })
    }
}

/// What the errors call it.
const TOKEN: &str = "workflow token";

fn place<'a>(wallet: &'a str, job: &'a str) -> Place<'a> {
    Place { what: TOKEN, row: [wallet, job] }
}

pub(super) fn delete(transaction: &Db, wallet: &str, job: &str) -> Result<(), Fault> {
    let sql = "DELETE FROM reservations WHERE wallet = ?1 AND job = ?2";
    transaction.prepare_cached(sql)?.execute([wallet, job])?;
    Ok(())
}

fn purge(transaction: &Db, past: Timestamp) -> Result<(), Fault> {
    let oldest = past.as_millisecond().saturating_sub(KEPT.as_millis() as i64);
    let sql = "DELETE FROM reservations WHERE rowid IN
                   (SELECT rowid FROM reservations WHERE ends <= ?1 ORDER BY ends LIMIT ?2)";
    transaction.prepare_cached(sql)?.execute(params![oldest, PURGED])?;
    Ok(())
}

#[cfg(test)]
mod tests;
