//! The clients that call, and how often they do.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    client_rows,
    db::Db,
    error::{Fault, StoreError},
    handle::Store,
    known::{KnownClient, Recalled},
};
use crate::{
    policy::Client,
    types::{ClientId, Credential},
};

impl Store {
    /// The client that is known by a credential and not revoked. One whose time is over is found as
    /// well: that is for the policy to say. That it was here is noted in the background, about once a
    /// second.
    ///
    /// The database is not asked for every call, but a change of the clients counts from the moment
    /// at which it is acknowledged (`Clients`).
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
                let find = move |db: &Db| known.find(db, &credential);
                let found = self.read(find).await?;
                if let Some(found) = &found {
                    self.0.arrivals.learn(found.client.id, found.arrival);
                }
                found
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
        self.read(move |db| known.find_any(db)).await
    }

    /// Counts one more call of a client, if its rate allows that, as far as this process knows. The
    /// calls of other processes on this file are known from the last ones that were written. One that
    /// `changes` something is counted in the database as it begins, any other one in the background.
    ///
    /// # Errors
    /// There were too many; the next may come after this time.
    pub async fn count(
        &self,
        client: &Client,
        changes: bool,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let Some(rate) = client.rate else { return Ok(()) };
        self.0.arrivals.count(client, rate, now)?;
        if !changes {
            let (inner, id) = (Arc::downgrade(&self.0), client.id);
            let count = move |db: &Db| {
                let next = rate.count(client_rows::arrival(db, id)?, now);
                client_rows::set_arrival(db, id, next)?;
                if let Some(inner) = inner.upgrade() {
                    inner.arrivals.learn(id, Some(next));
                }
                Ok(())
            };
            Box::pin(self.0.worker.leave(Duration::ZERO, count, drop)).await;
        }
        Ok(())
    }

    /// Returns the cached value. If the lease is due, has it renewed in the background.
    pub(super) fn renewed<T>(&self, Recalled { value, renewal }: Recalled<T>) -> T {
        if let Some(renewal) = renewal {
            self.0.worker.read_soon(|db| renewal.renew(db));
        }
        value
    }

    /// It waits for nothing: when there is much to do, the next call will do.
    async fn note_use(&self, known: Arc<KnownClient>, now: Timestamp) {
        let id = known.client.id;
        let note = move |db: &Db| client_rows::set_last_used(db, id, now);
        let done = move |result: Result<(), Fault>| {
            if result.is_err() {
                known.was_not_noted();
            }
        };
        self.0.worker.leave(Duration::ZERO, note, done).await;
    }
}

/// Whether the access of a client has ended: it was revoked (perhaps removed since), or it has expired.
/// The client `local`, which stands for callers before any client is added, has no access once there is
/// one.
pub(super) fn access_ended(db: &Db, client: ClientId, now: Timestamp) -> Result<bool, Fault> {
    if client == ClientId::LOCAL {
        return client_rows::exist(db);
    }
    let ends = client_rows::ends(db, client)?;
    Ok(ends.is_none_or(|[revoked, expires]| {
        revoked.is_some() || expires.is_some_and(|expires| expires <= now)
    }))
}

#[cfg(test)]
mod tests;
