//! Who calls, and how often.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{
    Store, StoreError,
    db::Db,
    error::Fault,
    known::{KnownClient, Recalled},
    schema::has_clients,
};
use crate::{
    policy::{Client, Rate},
    types::{ClientName, Credential},
};

/// How a call stands towards its client's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is counted and may go on.
    Admitted,
    /// There were too many; the next may come after this time.
    Wait(Duration),
}

/// The calls of this process, counted before the database counts those of all: the arrival of the last
/// one of each client that has a rate. So calls that wait to be written count as well.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<HashMap<(ClientName, Option<Timestamp>), i64>>);

impl Counted {
    fn admit(&self, client: &Client, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        // Nothing panics while it holds the lock.
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = (client.name.clone(), client.added);
        let next = rate.admit(counted.get(&client).copied(), now)?;
        counted.insert(client, next);
        Ok(())
    }
}

impl Store {
    /// The client that is known by a credential and not revoked. One whose time is over is found as
    /// well: that is for the policy to say. That it was here is noted in the background, about once a
    /// second.
    ///
    /// The database is not asked for every call, but a change of the clients counts from the moment
    /// at which it is acknowledged ([`Clients`](super::Clients)).
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn client_by(
        &self,
        credential: Credential,
        now: Timestamp,
    ) -> Result<Option<Client>, StoreError> {
        let known = &self.0.known;
        let found = match known.client(&credential) {
            Some(found) => self.renewed(found),
            None => {
                let known = known.clone();
                self.read(move |connection| known.find(connection, &credential)).await?
            }
        };
        let Some(found) = found else { return Ok(None) };
        if found.is_to_be_noted(now) {
            Box::pin(self.note_use(found.clone(), now)).await;
        }
        Ok(Some(found.client.clone()))
    }

    /// Whether callers have to be clients that were added: from the first one on, also when all are
    /// revoked, until all are removed, or always if they are required. A revocation must not open the
    /// proxy to everyone.
    ///
    /// It is known as [`Store::client_by`] knows a client.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn has_clients(&self) -> Result<bool, StoreError> {
        if self.0.clients_required.load(Relaxed) {
            return Ok(true);
        }
        let known = &self.0.known;
        if let Some(any) = known.any() {
            return Ok(self.renewed(any));
        }
        let known = known.clone();
        self.read(move |connection| known.find_any(connection)).await
    }

    /// Counts one more call of a client, if its rate allows that. All calls of all processes on this
    /// file are counted together, and what was counted is on the disk when this returns. But a call
    /// that changes nothing waits for no writer: while another process keeps the store from writing,
    /// or the disk does, it is on the disk later.
    ///
    /// # Errors
    /// It could not be written, so the call must not go on.
    pub async fn admit(
        &self,
        client: &Client,
        changes: bool,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let Some(rate) = client.rate else { return Ok(Admission::Admitted) };
        if let Err(wait) = self.0.counted.admit(client, rate, now) {
            return Ok(Admission::Wait(wait));
        }
        let name = client.name.clone();
        let counted = self.write(move |transaction| admit(transaction, &name, rate, now));
        if changes {
            return counted.await;
        }
        let counted = tokio::select! {
            biased;
            counted = counted => counted.ok(),
            () = self.0.worker.is_held_up() => None,
        };
        if let Some(admission) = counted {
            return Ok(admission);
        }
        let name = client.name.clone();
        let last = self.read(move |connection| last_arrival(connection, &name)).await?;
        Ok(rate.admit(last, now).map_or_else(Admission::Wait, |_| Admission::Admitted))
    }

    /// What is known, and sees to it that it stays known while it is asked for, without waiting.
    fn renewed<T>(&self, Recalled { value, renewal }: Recalled<T>) -> T {
        if let Some(renewal) = renewal {
            self.0.worker.read_soon(|connection| renewal.renew(connection));
        }
        value
    }

    /// It waits for nothing: when there is much to do, the next call will do.
    async fn note_use(&self, known: Arc<KnownClient>, now: Timestamp) {
        let name = known.client.name.clone();
        let note = move |transaction: &Db| {
            transaction
                .prepare_cached("UPDATE clients SET last_used = ?2 WHERE name = ?1")?
                .execute(params![name.as_str(), now.as_millisecond()])?;
            Ok(())
        };
        let done = move |result: Result<(), Fault>| {
            if result.is_err() {
                known.was_not_noted();
            }
        };
        self.0.worker.leave(Duration::ZERO, note, done).await;
    }
}

/// A client that was removed meanwhile has no row, and its call was allowed before.
fn admit(
    transaction: &Db,
    name: &ClientName,
    rate: Rate,
    now: Timestamp,
) -> Result<Admission, Fault> {
    match rate.admit(last_arrival(transaction, name)?, now) {
        Err(wait) => Ok(Admission::Wait(wait)),
        Ok(next) => {
            transaction
                .prepare_cached("UPDATE clients SET arrival = ?2 WHERE name = ?1")?
                .execute(params![name.as_str(), next])?;
            Ok(Admission::Admitted)
        }
    }
}

fn last_arrival(connection: &Db, name: &ClientName) -> Result<Option<i64>, Fault> {
    let last: Option<Option<i64>> = connection
        .prepare_cached("SELECT arrival FROM clients WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    Ok(last.flatten())
}

/// Whether the access of a client has ended: it was revoked (perhaps removed since, or its name given to
/// another client), or it has expired. The client `local`, which stands for callers before any client
/// is added, has no access once there is a client.
pub(super) fn access_ended(
    connection: &Db,
    client: &str,
    added: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, Fault> {
    let Some(added) = added else { return has_clients(connection) };
    let sql = "SELECT revoked IS NOT NULL OR coalesce(expires <= ?3, FALSE)
               FROM clients WHERE name = ?1 AND created = ?2";
    let ended = connection
        .prepare_cached(sql)?
        .query_row(params![client, added.as_millisecond(), now.as_millisecond()], |row| row.get(0))
        .optional()?;
    Ok(ended.unwrap_or(true))
}

#[cfg(test)]
mod tests;
