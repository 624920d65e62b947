//! The clients, for whoever runs the proxy: without the wallet's key and while a proxy runs.

use std::{
    path::{Path, PathBuf},
    thread,
};

use jiff::Timestamp;

use super::{
    client_row,
    db::{Db, Row},
    deed::{Deed, user},
    error::{Fault, StoreError},
    file,
    files::folder,
    journal::PATIENCE,
    known::{KNOWN, LEASE},
    marker,
    record::{Chain, Draft},
    run,
    schema::has_clients,
};
use crate::{
    policy::Client,
    types::{ClientName, Credential},
};

/// The clients of a database.
///
/// As long as there was never one, everyone who reaches the proxy on its machine is the client
/// `local`. From the first on, everyone has to be one that was added. That stays so when the last is
/// revoked: the way back is to remove them all.
///
/// A change counts from the moment at which its method returns, in all processes on this file: each
/// method that changes something waits until no proxy acts on what it knew before.
#[derive(Debug)]
pub struct Clients {
    path: PathBuf,
    db: Db,
}

/// A client as it was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client and what it may do.
    pub client: Client,
    /// What it is known by; a revoked client by nothing.
    pub credential: Option<Credential>,
    /// When it was added.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it called the last time, to about a second.
    pub last_used: Option<Timestamp>,
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
            let name = || client.name.clone();
            if client.name.is_local() {
                return Err(ClientsError::Reserved(name()).into());
            }
            if is_active(db, &client.name)? == Some(true) {
                return Err(ClientsError::Exists(name()).into());
            }
            if let Some(other) = known_by(db, credential)? {
                return Err(ClientsError::Taken(other).into());
            }
            let first = !has_clients(db)?;
            let before = number(db, &client.name)?;
            delete(db, &client.name)?;
            insert(db, client, credential, now)?;
            if let Some(before) = before {
                inherit(db, before, &client.name)?;
            }
            append_deed(db, Deed::ClientAdd(&client.name))?;
            Ok(first)
        })
    }

    /// All that were added, also those that are revoked, by name.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self) -> Result<Vec<ClientRecord>, StoreError> {
        let sql = format!("SELECT {} FROM clients ORDER BY name", client_row::COLUMNS);
        self.db.rows(&sql, &[], record).map_err(|fault| StoreError::new(&self.path, fault))
    }

    /// Lets a client do nothing any more, from its next call on. Its name stays on the list. Nothing
    /// changes if it is revoked already.
    ///
    /// # Errors
    /// There is no such client, or it could not be written.
    pub fn revoke(&self, name: &ClientName, now: Timestamp) -> Result<(), ClientsError> {
        self.write(|db| match is_active(db, name)? {
            None => Err(ClientsError::Unknown(name.clone()).into()),
            Some(true) => {
                revoke(db, name, now)?;
                Ok(append_deed(db, Deed::ClientRevoke(name))?)
            }
            Some(false) => Ok(()),
        })
    }

    /// Takes a revoked client off the list. Tells whether it was the last one, so that everyone is
    /// the client `local` again.
    ///
    /// # Errors
    /// There is no such client, it is not revoked, or it could not be written.
    pub fn remove(&self, name: &ClientName) -> Result<bool, ClientsError> {
        let path = self.path.clone();
        self.write(|db| match is_active(db, name)? {
            None => Err(ClientsError::Unknown(name.clone()).into()),
            Some(true) => Err(ClientsError::Active(name.clone()).into()),
            Some(false) => {
                delete(db, name)?;
                append_deed(db, Deed::ClientRemove(name))?;
                let last = !has_clients(db)?;
                if last {
                    // If the client stays, the next start puts it back.
                    marker::remove(&path)?;
                }
                Ok(last)
            }
        })
    }

    /// Whether a proxy that runs has this database, so that a change counts at once.
    ///
    /// # Errors
    /// Its folder cannot be read.
    pub fn is_followed(&self) -> Result<bool, StoreError> {
        let alive = run::any_is_alive(folder(&self.path));
        alive.map_err(|fault| StoreError::new(&self.path, fault))
    }

    /// Does all of the work or nothing of it. When this returns, nobody acts on what was before.
    fn write<T>(&self, work: impl FnOnce(&Db) -> Result<T, Stop>) -> Result<T, ClientsError> {
        let done = self.db.transaction(work);
        if done.is_ok() {
            // Whoever opens the database next tries that again, and tells if it fails.
            let _ = marker::update(&self.path, &self.db);
            // Without it, the change stands in the log, which has to be copied as well.
            let _ = file::checkpoint(&self.db);
            // A call that read what was before may find it that long, go on with it, and wait for room
            // in the journal's queue.
            thread::sleep(LEASE + KNOWN + PATIENCE);
        }
        done.map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Failed(fault) => StoreError::new(&self.path, fault.of_command()).into(),
        })
    }
}

/// Why a piece of work was not done, before it is known in which file.
enum Stop {
    Refused(ClientsError),
    Failed(Fault),
}

impl From<ClientsError> for Stop {
    fn from(error: ClientsError) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// Whether a client is not revoked; `None` if there is no such client.
fn is_active(db: &Db, name: &ClientName) -> Result<Option<bool>, Fault> {
    let sql = "SELECT revoked IS NULL FROM clients WHERE name = ?1";
    db.row(sql, &[name.as_str().into()], |row| row.flag(0))
}

/// The client that has a credential.
fn known_by(db: &Db, credential: &Credential) -> Result<Option<ClientName>, Fault> {
    let (column, value) = client_row::stored(credential);
    let sql = format!("SELECT {} FROM clients WHERE {column} = ?1", client_row::COLUMNS);
    Ok(db.row(&sql, &[value], client_row::client)?.map(|client| client.name))
}

fn insert(db: &Db, client: &Client, credential: &Credential, now: Timestamp) -> Result<(), Fault> {
    let (column, value) = client_row::stored(credential);
    let sql = format!(
        "INSERT INTO clients
         (name, allow, wallet, rate, max_reservations, admin, expires, created, {column})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    );
    let (allow, wallet) =
        (client.allow.to_string(), client.wallet.map(|wallet| wallet.to_string()));
    let rate = client.rate.map(|rate| rate.to_string());
    let row = &[
        client.name.as_str().into(),
        allow.as_str().into(),
        wallet.as_deref().into(),
        rate.as_deref().into(),
        client.max_reservations.into(),
        client.admin.into(),
        client.expires.into(),
        now.into(),
        value,
    ];
    db.execute(&sql, row).map(drop)
}

/// What it was known by is forgotten, so that another client may be known by it.
fn revoke(db: &Db, name: &ClientName, now: Timestamp) -> Result<(), Fault> {
    let sql = "UPDATE clients
               SET revoked = ?2, token_hash = NULL, certificate = NULL, uid = NULL
               WHERE name = ?1";
    db.execute(sql, &[name.as_str().into(), now.into()]).map(drop)
}

fn number(db: &Db, name: &ClientName) -> Result<Option<i64>, Fault> {
    db.row("SELECT id FROM clients WHERE name = ?1", &[name.as_str().into()], |row| row.int(0))
}

/// Gives a client what the one of its name before it held: a new token is no reason to lose it.
fn inherit(db: &Db, before: i64, name: &ClientName) -> Result<(), Fault> {
    let Some(now) = number(db, name)? else { return Ok(()) };
    let sql = "UPDATE reservations SET client = ?1 WHERE client = ?2";
    db.execute(sql, &[now.into(), before.into()])?;
    let sql = "UPDATE answers SET owner = ?1, sealed_for = coalesce(sealed_for, owner)
               WHERE owner = ?2";
    db.execute(sql, &[now.to_string().as_str().into(), before.to_string().as_str().into()])
        .map(drop)
}

fn delete(db: &Db, name: &ClientName) -> Result<(), Fault> {
    db.execute("DELETE FROM clients WHERE name = ?1", &[name.as_str().into()]).map(drop)
}

/// Records a change together with it.
fn append_deed(db: &Db, deed: Deed<'_>) -> Result<(), Fault> {
    Chain::read(db)?.append(Draft::admin(deed, &user(), Timestamp::now()))
}

fn record(row: &Row<'_>) -> Result<ClientRecord, Fault> {
    Ok(ClientRecord {
        client: client_row::client(row)?,
        credential: client_row::credential(row)?,
        created: row.time(client_row::CREATED)?,
        revoked: row.opt_time(client_row::REVOKED)?,
        last_used: row.opt_time(client_row::LAST_USED)?,
    })
}

#[cfg(test)]
mod tests;
