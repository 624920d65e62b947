//! The handle of the store, which all parts of the program share.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
};

use jiff::Timestamp;

use super::{
    arrivals::Arrivals,
    boot::Clock,
    copied::freeze_copy,
    db::Db,
    error::{Fault, StoreError},
    file,
    files::folder,
    head,
    keys::{Before, Keys},
    known::Known,
    locks::Locks,
    losses::Losses,
    refusals::Refusals,
    reservations::Reservation,
    run::Run,
    seal::Seal,
    worker::Worker,
    writer::Writer,
};
use crate::types::SealKey;

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Inner>);

/// The state that the clones share.
pub(super) struct Inner {
    pub(super) path: PathBuf,
    pub(super) worker: Worker,
    pub(super) seal: Arc<Seal>,
    run: Arc<Run>,
    pub(super) locks: Locks,
    before: Before,
    /// Reservations that could not be written yet, as on a full disk: a workflow token comes only once.
    pub(super) unsaved: Mutex<Vec<Reservation>>,
    pub(super) known: Arc<Known>,
    pub(super) losses: Arc<Losses>,
    pub(super) refusals: Refusals,
    pub(super) clients_required: AtomicBool,
    pub(super) arrivals: Arrivals,
    /// How the clock stood when the ends of reservations last followed it.
    clock_ahead: AtomicI64,
}

impl Inner {
    /// The keys, in a transaction.
    pub(super) fn keys<'a>(&'a self, db: &'a Db) -> Keys<'a> {
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
        freeze_copy(path, &db).map_err(|fault| failed(fault.of_command()))?;
        head::check(path, &db, &seal).map_err(failed)?;
        let before = Before::read(&db).map_err(failed)?;
        let clock_ahead = follow_clock(&db);
        let (known, losses) = (Arc::new(Known::new(path)), Arc::<Losses>::default());
        let run = Arc::new(Run::new(folder(path)));
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

    /// The folder of the state.
    pub fn folder(&self) -> &Path {
        folder(&self.0.path)
    }

    /// Lets [`is_in_use`](super::run::is_in_use) see that this process uses the database, as long as it lives. A
    /// store that has claimed an idempotency key is seen in any case.
    ///
    /// # Errors
    /// Its lock could not be made, as on a full disk.
    pub fn show_alive(&self) -> Result<(), StoreError> {
        self.0.run.show_alive().map_err(|fault| StoreError::new(&self.0.path, fault))
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
    pub(super) async fn follow_clock(&self) {
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
        self.write(move |db| db.execute("UPDATE probe SET at = ?1", &[now.into()]).map(drop)).await
    }

    /// Does the work in a transaction of the writing thread. When this returns, it is on the disk; after an
    /// error, none of it is.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        // In a box, here and below, so that a call keeps no room for what it may never do.
        let written = Box::pin(self.0.worker.write(work)).await;
        written.map_err(|fault| StoreError::new(&self.0.path, fault))
    }

    pub(super) async fn read<T: Send + 'static>(
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
