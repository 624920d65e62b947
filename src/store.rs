//! What must survive: the journal of what was signed, the answers to idempotency keys, the
//! reservations, and the clients.
//!
//! It is an SQLite database. All SQL stands in this module, behind methods that say what they are
//! for, so that another database can come behind the same methods. Several processes may use one
//! file at the same time.
//!
//! A thread of its own writes (`worker`): no method blocks the runtime, and the cost of a sync is
//! shared by all who wait for one. Another one reads, and waits for no writer.
//!
//! Writes fail while the disk is full or the file cannot be written to, and succeed again when that
//! is over, without a restart. Reads go on meanwhile.

mod deed;
mod denial;
mod error;
mod holding;
mod inbox;
mod locks;
mod stored_answer;

mod db;
mod files;
mod losses;
mod refusals;
mod seal;

mod boot;
mod client_row;
mod end;
mod new_file;
mod run;
mod schema;
mod usable;

mod head;
mod marker;
mod record;

mod file;
mod keys;

mod audit;
mod backup;
mod known;
mod reader;

mod exported;
mod writer;

mod archive;
mod batch;

mod worker;

mod callers;
mod reservations;

mod begin;

mod finish;
mod journal;

mod clients;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
};

pub use self::{
    archive::archive,
    audit::{Breach, Broken, Journal, Verified, VerifyError},
    backup::backup,
    begin::{Begun, Claim, Grant, Started},
    clients::{ClientRecord, Clients, ClientsError},
    deed::Deed,
    denial::{Caller, Denial},
    error::{Fault, StoreError},
    exported::{Exported, ExportedError, verify_exported},
    finish::{Finish, JobEnd, KeyEnd},
    journal::record_deed,
    keys::Doubt,
    record::{Attempt, Outcome, Record},
    reservations::Reservation,
    stored_answer::StoredAnswer,
    usable::check_usable,
};
use self::{
    boot::Clock,
    callers::Arrivals,
    db::{Db, params},
    keys::{Before, Keys},
    known::Known,
    locks::Locks,
    losses::Losses,
    refusals::Refusals,
    run::Run,
    seal::Seal,
    worker::Worker,
    writer::Writer,
};
use crate::types::SealKey;
use jiff::Timestamp;

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    worker: Worker,
    seal: Arc<Seal>,
    run: Arc<Run>,
    locks: Locks,
    before: Before,
    /// Reservations that could not be written yet, as on a full disk: a workflow token comes only once.
    unsaved: Mutex<Vec<Reservation>>,
    known: Arc<Known>,
    losses: Arc<Losses>,
    refusals: Refusals,
    clients_required: AtomicBool,
    arrivals: Arrivals,
    /// How the clock stood when the ends of reservations last followed it.
    clock_ahead: AtomicI64,
}

impl Inner {
    /// The keys, in a transaction.
    fn keys<'a>(&'a self, db: &'a Db) -> Keys<'a> {
        Keys { db, seal: &self.seal, run: &self.run, before: &self.before }
    }
}

impl Store {
    /// Opens the database for the wallets with these keys, of which the first seals, and makes it, for
    /// its owner alone, if it is not there. One of an earlier version is brought to this one. It blocks,
    /// but for no longer with a long history.
    ///
    /// A database that is there and of this version opens even if it cannot be written to at the
    /// moment; writes then fail.
    ///
    /// # Errors
    /// It cannot be opened, made or brought to this version; a newer version has written it; or what it
    /// held was lost.
    pub fn open(path: &Path, keys: &[SealKey]) -> Result<Self, StoreError> {
        let failed = |fault| StoreError::new(path, fault);
        let db = file::open(path).map_err(failed)?;
        let seal = Arc::new(Seal::new(keys));
        head::check(path, &db, &seal).map_err(failed)?;
        let before = Before::read(&db).map_err(failed)?;
        let clock_ahead = follow_clock(&db);
        let (known, losses) = (Arc::new(Known::new(path)), Arc::<Losses>::default());
        let run = Arc::new(Run::new(files::folder(path)));
        let writer = Writer::new(path, db, seal.clone(), known.clone(), &run).map_err(failed)?;
        let worker = Worker::start(writer, losses.clone());
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            worker: worker.map_err(Fault::io("start its thread")).map_err(failed)?,
            seal,
            run,
            locks: Locks::default(),
            before,
            unsaved: Mutex::default(),
            known,
            losses,
            refusals: Refusals::default(),
            clients_required: AtomicBool::new(false),
            arrivals: Arrivals::default(),
            clock_ahead: AtomicI64::new(clock_ahead),
        })))
    }

    /// Lets [`Clients::is_followed`] see that this process uses the database, as long as it lives. A
    /// store that has claimed an idempotency key is seen in any case.
    ///
    /// # Errors
    /// Its lock could not be made, as on a full disk.
    pub fn hold(&self) -> Result<(), StoreError> {
        self.0.run.hold().map_err(|fault| StoreError::new(&self.0.path, fault))
    }

    /// Waits until all that was given to the store before, also in the background, is on the disk.
    ///
    /// # Errors
    /// Nothing can be written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.record_counts().await;
        self.write(|_| Ok(())).await
    }

    /// Brings all that is written into the file itself, so that a copy of it alone is the whole state.
    ///
    /// # Errors
    /// It cannot be written, or another process reads at the moment.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.read(file::checkpoint).await
    }

    /// From now on callers have to be clients, also while there are none.
    pub fn require_clients(&self) {
        self.0.clients_required.store(true, Relaxed);
    }

    /// Has the ends of what is held follow the clock, if that was set.
    async fn follow_clock(&self) {
        let Some(clock) = Clock::now() else { return };
        if clock.is_at(self.0.clock_ahead.load(Relaxed)) {
            return;
        }
        match self.write(move |db| clock.follow(db)).await {
            Ok(()) => self.0.clock_ahead.store(clock.ahead, Relaxed),
            Err(error) => {
                tracing::warn!(%error, "the clock was set, and reservations do not follow it")
            }
        }
    }

    /// Finds out whether records can be written at the moment, by writing something.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        self.write(move |db| db.execute("UPDATE probe SET at = ?1", params![now]).map(drop)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        // In a box, here and below, so that a call keeps no room for what it may never do.
        let written = Box::pin(self.0.worker.write(work)).await;
        written.map_err(|fault| StoreError::new(&self.0.path, fault))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = Box::pin(self.0.worker.read(read)).await;
        read.map_err(|fault| StoreError::new(&self.0.path, fault))
    }
}

/// Has the ends of what is held follow the clock as the file is opened. If that cannot be written now, the
/// next change of what is held does it.
fn follow_clock(db: &Db) -> i64 {
    let Some(clock) = Clock::now() else { return 0 };
    if let Err(fault) = clock.follow_at_start(db) {
        tracing::warn!(%fault, "whether the clock was set is not on record");
    }
    clock.ahead
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.0.path).finish_non_exhaustive()
    }
}
