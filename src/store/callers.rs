//! Who calls, and how often.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, client_row, clients::has_any, error::Fault};
use crate::{
    policy::{Client, Rate},
    types::{ClientName, Credential},
};

/// How exactly the last use of a client is known.
const USE_NOTED: SignedDuration = SignedDuration::from_mins(1);

/// How a call stands towards its client's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is counted and may go on.
    Admitted,
    /// There were too many; the next may come after this time.
    Wait(Duration),
}

impl Store {
    /// The client that is known by a credential and not revoked. One whose time is over is found as
    /// well: that is for the policy to say. That it was here is noted in the background, at most
    /// once a minute.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn client_by(
        &self,
        credential: Credential,
        now: Timestamp,
    ) -> Result<Option<Client>, StoreError> {
        let found = self.read(move |connection| find(connection, &credential)).await?;
        let Some((client, last_used)) = found else { return Ok(None) };
        if last_used.is_none_or(|last| now.duration_since(last).abs() >= USE_NOTED) {
            self.note_use(client.name.clone(), now).await;
        }
        Ok(Some(client))
    }

    /// Whether callers have to be clients that were added: from the first one on, also when all are
    /// revoked, until all are removed. A revocation must not open the proxy to everyone.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn has_clients(&self) -> Result<bool, StoreError> {
        self.read(has_any).await
    }

    /// Counts one more call of a client, if its rate allows that. All calls of all processes on this
    /// file are counted together, and what was counted is on the disk when this returns.
    ///
    /// # Errors
    /// It could not be written, so the call must not go on.
    pub async fn admit(&self, client: &Client, now: Timestamp) -> Result<Admission, StoreError> {
        let Some(rate) = client.rate else { return Ok(Admission::Admitted) };
        let name = client.name.clone();
        self.write(move |transaction| admit(transaction, &name, rate, now)).await
    }

    /// It waits for nothing: when there is much to do, the next call will do.
    async fn note_use(&self, name: ClientName, now: Timestamp) {
        let note = move |transaction: &Connection| {
            transaction
                .prepare_cached("UPDATE clients SET last_used = ?2 WHERE name = ?1")?
                .execute(params![name.as_str(), now.as_millisecond()])?;
            Ok(())
        };
        self.0.worker.leave(Duration::ZERO, note, |_| ()).await;
    }
}

/// The client, and when it was here.
///
/// The index compares a hash byte by byte. What the time of that tells of a stored hash tells
/// nothing of the token, which nobody finds by its hash.
fn find(
    connection: &Connection,
    credential: &Credential,
) -> Result<Option<(Client, Option<Timestamp>)>, Fault> {
    let (column, value) = client_row::stored(credential);
    let sql = format!("SELECT * FROM clients WHERE {column} = ?1 AND revoked IS NULL");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query_and_then([value], |row| {
        Ok((client_row::client(row)?, client_row::time(row, "last_used")?))
    })?;
    rows.next().transpose()
}

/// A client that was removed meanwhile has no row, and its call was allowed before.
fn admit(
    transaction: &Connection,
    name: &ClientName,
    rate: Rate,
    now: Timestamp,
) -> Result<Admission, Fault> {
    let last: Option<Option<i64>> = transaction
        .prepare_cached("SELECT arrival FROM clients WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    match rate.admit(last.flatten(), now) {
        Err(wait) => Ok(Admission::Wait(wait)),
        Ok(next) => {
            transaction
                .prepare_cached("UPDATE clients SET arrival = ?2 WHERE name = ?1")?
                .execute(params![name.as_str(), next])?;
            Ok(Admission::Admitted)
        }
    }
}

/// Whether a client was revoked or its time is over. One that was removed meanwhile has no row, and
/// nor has the client `local`.
pub(super) fn access_ended(
    connection: &Connection,
    client: &str,
    now: Timestamp,
) -> Result<bool, Fault> {
    let sql = "SELECT revoked IS NOT NULL OR coalesce(expires <= ?2, FALSE)
               FROM clients WHERE name = ?1";
    let ended = connection
        .prepare_cached(sql)?
        .query_row(params![client, now.as_millisecond()], |row| row.get(0))
        .optional()?;
    Ok(ended.unwrap_or(false))
}

#[cfg(test)]
mod tests;
