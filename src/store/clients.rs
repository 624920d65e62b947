//! The clients, for the commands: without the wallet's key and while a proxy runs.

use std::{
    path::{Path, PathBuf},
    thread,
};

use jiff::Timestamp;

use super::{
    client_rows::{self, ClientRecord},
    credit_rows,
    db::Db,
    deed::{Deed, user},
    error::{Fault, StoreError},
    file,
    journal::ACKNOWLEDGED,
    marker,
    record::append_deed,
};
use crate::{
    policy::Client,
    types::{ClientName, Credential},
};

/// The clients of a database.
///
/// As long as there was never one, every caller that reaches the proxy on its machine is the client
/// `local`. From the first on, every caller has to be a client that was added. That stays so when the last
/// is revoked: the way back is to remove them all.
///
/// A change counts from the moment at which its method returns, in all processes on this file: each
/// method that changes something waits until no proxy acts on what it knew before.
#[derive(Debug)]
pub struct Clients {
    path: PathBuf,
    db: Db,
}

/// Why the clients are as they were.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// The name has a meaning of its own.
    #[error("{0} is the name of local callers while there is no client; choose another")]
    Reserved(ClientName),
    /// There is a client of this name.
    #[error(
        "client {0} is there already; choose another name, or revoke that one first: \
         `agentpmt-proxy client revoke {0}`"
    )]
    Exists(ClientName),
    /// Another client is known by the same.
    #[error(
        "client {0} has this user id or certificate already, and one names one client; choose another"
    )]
    Taken(ClientName),
    /// There is no client of this name.
    #[error("there is no client {0}; `agentpmt-proxy client list` shows those there are")]
    Unknown(ClientName),
    /// The client may still call.
    #[error(
        "client {0} may still call; revoke it before it is removed: \
         `agentpmt-proxy client revoke {0}`"
    )]
    Active(ClientName),
    /// They cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Clients {
    /// Opens the clients of the database at `path`, which is made, for its owner alone, if it is not
    /// there.
    ///
    /// # Errors
    /// As of `Store::open`.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let db = file::open(path).map_err(|fault| StoreError::new(path, fault))?;
        Ok(Self { path: path.to_owned(), db })
    }

    /// Opens the clients of the database at `path`, which must be there.
    ///
    /// # Errors
    /// There is none, or as of [`Clients::create`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        file::must_exist(path).map_err(|fault| StoreError::new(path, fault))?;
        Self::create(path)
    }

    /// Adds a client, in place of a revoked one of its name, whose reservations and stored answers
    /// it then has. It gets a number of its own, whatever [`Client::id`] says. Tells whether it is
    /// the first.
    ///
    /// # Errors
    /// See [`ClientsError`].
    pub fn add(
        &self,
        client: &Client,
        credential: &Credential,
        now: Timestamp,
    ) -> Result<bool, ClientsError> {
        self.write(|db| {
            if client.name.is_local() {
                return Ok(Err(ClientsError::Reserved(client.name.clone())));
            }
            let before = client_rows::named(db, &client.name)?;
            if before.is_some_and(|(_, is_active)| is_active) {
                return Ok(Err(ClientsError::Exists(client.name.clone())));
            }
            if let Some(other) = client_rows::known_by(db, credential)? {
                return Ok(Err(ClientsError::Taken(other.client.name)));
            }
            let first = !client_rows::exist(db)?;
            if let Some((before, _)) = before {
                client_rows::delete(db, before)?;
            }
            let id = client_rows::insert(db, client, credential, now)?;
            if let Some((before, _)) = before {
                // A new token is no reason to lose what the client held.
                client_rows::inherit(db, before, id)?;
                credit_rows::inherit(db, before, id)?;
            }
            append_deed(db, Deed::ClientAdd(&client.name), &user())?;
            Ok(Ok(first))
        })
    }

    /// All clients that were added, also those that are revoked, by name.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self) -> Result<Vec<ClientRecord>, StoreError> {
        self.all().map_err(|fault| StoreError::new(&self.path, fault))
    }

    fn all(&self) -> Result<Vec<ClientRecord>, Fault> {
        let mut all = client_rows::all(&self.db)?;
        for ClientRecord { client, credits_left, .. } in &mut all {
            if let Some(limit) = client.max_credits {
                let counted = credit_rows::in_use(&self.db, client.id, Timestamp::now())?;
                *credits_left = Some(counted.left(limit));
            }
        }
        Ok(all)
    }

    /// Lets a client do nothing any more, from its next call on. Its name stays on the list. Nothing
    /// changes if it is revoked already.
    ///
    /// # Errors
    /// There is no such client, or it could not be written.
    pub fn revoke(&self, name: &ClientName, now: Timestamp) -> Result<(), ClientsError> {
        self.write(|db| match client_rows::named(db, name)? {
            None => Ok(Err(ClientsError::Unknown(name.clone()))),
            Some((client, true)) => {
                client_rows::revoke(db, client, now)?;
                append_deed(db, Deed::ClientRevoke(name), &user()).map(Ok)
            }
            Some((_, false)) => Ok(Ok(())),
        })
    }

    /// Takes a revoked client off the list. Tells whether it was the last one, so that every local caller
    /// is the client `local` again.
    ///
    /// # Errors
    /// There is no such client, it is not revoked, or it could not be written.
    pub fn remove(&self, name: &ClientName) -> Result<bool, ClientsError> {
        self.write(|db| match client_rows::named(db, name)? {
            None => Ok(Err(ClientsError::Unknown(name.clone()))),
            Some((_, true)) => Ok(Err(ClientsError::Active(name.clone()))),
            Some((client, false)) => {
                client_rows::delete(db, client)?;
                credit_rows::forget(db, client)?;
                append_deed(db, Deed::ClientRemove(name), &user())?;
                let last = !client_rows::exist(db)?;
                if last {
                    // If the client stays, the next start makes the marker again.
                    marker::remove(&self.path)?;
                }
                Ok(Ok(last))
            }
        })
    }

    /// Does all of the work or nothing of it, or tells why it is refused. When this returns, no proxy acts
    /// on what was before.
    fn write<T>(
        &self,
        work: impl FnOnce(&Db) -> Result<Result<T, ClientsError>, Fault>,
    ) -> Result<T, ClientsError> {
        let done = self.db.transaction(work);
        let done = done.map_err(|fault| StoreError::new(&self.path, fault.of_command()))?;
        if done.is_ok() {
            // The next process that opens the database tries that again, and tells if it fails.
            let _ = marker::update(&self.path, &self.db);
            // Without it, the change stands in the log, which has to be copied as well.
            let _ = file::checkpoint(&self.db);
            thread::sleep(ACKNOWLEDGED);
        }
        done
    }
}

#[cfg(test)]
mod tests;
