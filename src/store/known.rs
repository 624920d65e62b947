//! A cache of the clients and of a freeze, so that most calls need no query to identify their client, or to
//! learn that they may be signed.
//!
//! An entry may be used for the time of a lease, which begins before the entry is read. A command that
//! changes a client, freezes or thaws commits the change, waits for one lease, and then reports success. So no process
//! uses an entry from before a change once the change is acknowledged.
//!
//! One query renews the lease of all entries, if the version of the clients and freezes is still the same.
//! Otherwise the cache is emptied, and each client is read again when it calls. Most often a transaction
//! that is written anyway renews the lease.

use std::{
    collections::HashMap,
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    client_rows,
    db::Db,
    error::Fault,
    freeze::{Freeze, FreezeOf},
    freeze_rows, marker,
};
use crate::{policy::Client, types::Credential};

/// How long a cached client may be used.
pub(super) const LEASE: Duration = Duration::from_millis(50);

/// How long a call may go on with the client that was found for it. A call that waited longer before it is
/// made asks anew, so that a revocation counts at once.
pub(super) const KNOWN: Duration = Duration::from_millis(50);

/// When a lease that is in use is renewed: early enough that no call has to wait for it, even if
/// the disk is slow.
const RENEWED: Duration = Duration::from_millis(20);

/// How exactly the last use of a client is known.
const USE_NOTED: SignedDuration = SignedDuration::from_secs(1);

/// The last use of a client that was never here, in milliseconds: longer ago than any.
const NEVER: i64 = i64::MIN;

/// The clients that have called since the last change of any client.
pub(super) struct Known {
    database: PathBuf,
    state: RwLock<CachedClients>,
    /// Whether a task sees to it that the lease is renewed.
    renewing: AtomicBool,
}

#[derive(Default)]
struct CachedClients {
    lease: Option<Lease>,
    clients: HashMap<Credential, Arc<KnownClient>>,
}

/// The state of all clients together, as the database had it.
#[derive(Clone)]
struct Lease {
    /// Another one after every change of a client or a freeze.
    version: i64,
    /// Whether there is any client.
    any: bool,
    /// The freeze that stands, that of signatures first.
    freeze: Option<Freeze>,
    /// Until when it may be acted on.
    until: Instant,
}

/// A client that may call, unless its time is over.
pub(super) struct KnownClient {
    pub(super) client: Client,
    /// The theoretical arrival time of its last call that is on the disk, in nanoseconds.
    pub(super) arrival: Option<i64>,
    /// When it was here, as far as that was noted, in milliseconds.
    last_used: AtomicI64,
}

/// A value of the cache.
pub(super) struct Recalled<T> {
    pub(super) value: T,
    /// The duty to renew the lease, if it is time and no other task has it.
    pub(super) renewal: Option<Renewal>,
}

/// The duty to renew the lease, which ends when it is dropped.
pub(super) struct Renewal(Arc<Known>);

impl Known {
    /// No client of the database at this path.
    pub(super) fn new(database: &Path) -> Self {
        let database = database.to_owned();
        Self { database, state: RwLock::default(), renewing: AtomicBool::new(false) }
    }

    /// The client with a credential, or that there is none; nothing if the database has to be asked.
    pub(super) fn client(
        self: &Arc<Self>,
        credential: &Credential,
    ) -> Option<Recalled<Option<Arc<KnownClient>>>> {
        self.recall(|lease, clients| match clients.get(credential) {
            Some(client) => Some(Some(client.clone())),
            None => (!lease.any).then_some(None),
        })
    }

    /// Whether there is any client; nothing if the database has to be asked.
    pub(super) fn any(self: &Arc<Self>) -> Option<Recalled<bool>> {
        self.recall(|lease, _| Some(lease.any))
    }

    /// The freeze that stands, that of signatures first; nothing if the database has to be asked.
    pub(super) fn freeze(self: &Arc<Self>) -> Option<Recalled<Option<Freeze>>> {
        self.recall(|lease, _| Some(lease.freeze.clone()))
    }

    fn recall<T>(
        self: &Arc<Self>,
        recall: impl FnOnce(&Lease, &HashMap<Credential, Arc<KnownClient>>) -> Option<T>,
    ) -> Option<Recalled<T>> {
        // Nothing here panics while it holds the lock, nor below.
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let lease = state.lease.as_ref()?;
        let left = lease.left();
        let value = if left.is_zero() { None } else { recall(lease, &state.clients) }?;
        let is_due = is_due(left) && !self.renewing.swap(true, Relaxed);
        Some(Recalled { value, renewal: is_due.then(|| Renewal(self.clone())) })
    }

    /// Asks the database who has a credential, and remembers a client that has it.
    pub(super) fn find(
        self: &Arc<Self>,
        db: &Db,
        credential: &Credential,
    ) -> Result<Option<Arc<KnownClient>>, Fault> {
        // A caller that waited before may have asked the same, or have had the lease renewed.
        if let Some(found) = self.client(credential) {
            return Ok(found.value);
        }
        // Version first: a client that changes after it is dropped at the next renewal.
        let lease = self.confirm(db)?;
        let found = client_rows::known_by(db, credential)?;
        let found = found.filter(|record| record.revoked.is_none()).map(|record| {
            let last_used = record.last_used.map_or(NEVER, Timestamp::as_millisecond).into();
            Arc::new(KnownClient { client: record.client, arrival: record.arrival, last_used })
        });
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have seen a later version, before which this client was read.
        let is_same = |now: &Lease| now.version == lease.version;
        if let Some(client) = found.as_ref().filter(|_| state.lease.as_ref().is_some_and(is_same)) {
            state.clients.insert(*credential, client.clone());
        }
        Ok(found)
    }

    /// Asks the database whether there is any client.
    pub(super) fn find_any(self: &Arc<Self>, db: &Db) -> Result<bool, Fault> {
        match self.any() {
            Some(any) => Ok(any.value),
            None => Ok(self.confirm(db)?.any),
        }
    }

    /// Asks the database which freeze stands.
    pub(super) fn find_freeze(self: &Arc<Self>, db: &Db) -> Result<Option<Freeze>, Fault> {
        match self.freeze() {
            Some(freeze) => Ok(freeze.value),
            None => Ok(self.confirm(db)?.freeze),
        }
    }

    /// Forgets all, as what was read from files that are not used any more.
    pub(super) fn forget(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = CachedClients::default();
    }

    /// The lease, which may be over.
    fn lease(&self) -> Option<Lease> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).lease.clone()
    }

    /// Renews the lease in a transaction that is made anyway, if there is one and that is due.
    pub(super) fn renew_with(&self, db: &Db) -> Result<(), Fault> {
        let left = self.lease().map_or(LEASE, |lease| lease.left());
        if is_due(left) { self.confirm(db).map(drop) } else { Ok(()) }
    }

    /// Renews the lease; forgets the clients that it was for if that has changed.
    fn confirm(&self, db: &Db) -> Result<Lease, Fault> {
        let until = Instant::now() + LEASE;
        let version = client_rows::version(db)?;
        let lease = match self.lease().filter(|lease| lease.version == version) {
            Some(lease) => Lease { until, ..lease },
            None => {
                let any = client_rows::exist(db)?;
                if !any && self.lease().is_some_and(|lease| lease.any) {
                    marker::check_without_clients(&self.database)?;
                }
                let freeze = freeze_rows::standing(db, FreezeOf::Payments)?;
                Lease { version, any, freeze, until }
            }
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = state.lease.as_ref().is_some_and(|lease| lease.version == version);
        let forgotten = if is_same { HashMap::new() } else { mem::take(&mut state.clients) };
        state.lease = Some(lease.clone());
        // It may be many, and no other task has to wait for that.
        drop(state);
        drop(forgotten);
        Ok(lease)
    }
}

impl Lease {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Whether a lease of which so much is left is to be renewed.
fn is_due(left: Duration) -> bool {
    left <= LEASE - RENEWED
}

impl Renewal {
    pub(super) fn renew(self, db: &Db) -> Result<(), Fault> {
        self.0.confirm(db)?;
        Ok(())
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.renewing.store(false, Relaxed);
    }
}

impl KnownClient {
    /// Whether the last use is to be noted now: true for one caller once in a while.
    pub(super) fn is_to_be_noted(&self, now: Timestamp) -> bool {
        let (last, now) = (self.last_used.load(Relaxed), now.as_millisecond());
        u128::from(now.abs_diff(last)) >= USE_NOTED.unsigned_abs().as_millis()
            && self.last_used.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// Has the next caller note that the client is here.
    pub(super) fn was_not_noted(&self) {
        self.last_used.store(NEVER, Relaxed);
    }
}

#[cfg(test)]
mod tests;
