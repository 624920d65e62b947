//! The reservations: in the store, and in memory as long as the store does not take them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    action::Effect,
    call::Call,
    policy::Permit,
    reservation::{self, RESERVATION_ID},
    store::{Reservation, Store, StoreError, Submission},
    types::{Address, Slug},
};

/// How long between two tries to write what could not be written.
const PAUSE: Duration = Duration::from_secs(1);

/// Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Reservations {
    store: Store,
    /// Those that write what could not be written at once.
    tasks: TaskTracker,
    /// They try once more when the process ends, and then no more.
    ending: CancellationToken,
    /// What could not be written, as on a full disk: its workflow token comes only once.
    unsaved: Arc<Mutex<HashMap<Key, Reservation>>>,
}

/// A job that a wallet holds, however its id is spelled.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key(Address, String);

impl Key {
    fn new(wallet: Address, job: &Slug) -> Self {
        Self(wallet, job.as_str().to_ascii_lowercase())
    }

    fn of(reservation: &Reservation) -> Self {
        Self::new(reservation.wallet, &reservation.job)
    }
}

/// A job whose proof was submitted.
struct Submitted {
    wallet: Address,
    job: Slug,
    client: String,
    reservation_id: Option<String>,
    past: Timestamp,
}

impl Reservations {
    pub(super) fn new(store: Store, tasks: TaskTracker, ending: CancellationToken) -> Self {
        Self { store, tasks, ending, unsaved: Arc::default() }
    }

    /// Remembers a reservation; `past` is a time that has surely come. If that cannot be written now, a
    /// task tries again until it can, the reservation is over, or the process ends.
    pub(super) async fn keep(&self, reservation: Reservation, past: Timestamp) {
        self.unsaved().insert(Key::of(&reservation), reservation.clone());
        if let Err(error) = self.save(&reservation, past).await {
            let job = &reservation.job;
            tracing::error!(%job, %error, "a reservation is not on record yet");
            self.tasks.spawn(self.clone().save_later(reservation, past));
        }
    }

    /// The reservation of a job; also one that has ended, for a day.
    pub(super) async fn of(
        &self,
        wallet: Address,
        job: &Slug,
    ) -> Result<Option<Reservation>, StoreError> {
        let unsaved = self.unsaved().get(&Key::new(wallet, job)).cloned();
        if unsaved.is_some() { Ok(unsaved) } else { self.store.reservation(wallet, job).await }
    }

    /// The reservation that a reserve has made, as long as it is not on record.
    pub(super) fn unsaved_of(&self, wallet: Address, call: &Call) -> Option<Reservation> {
        let job = call.job().filter(|_| call.action().effect == Effect::Reserves)?;
        self.unsaved().get(&Key::new(wallet, job)).cloned()
    }

    /// Those that run, the first to end first.
    pub(super) async fn running(&self) -> Result<Vec<Reservation>, StoreError> {
        let now = Timestamp::now();
        let mut running = self.store.reservations(now).await?;
        for (key, unsaved) in self.unsaved().iter() {
            running.retain(|saved| Key::of(saved) != *key);
            running.extend(Some(unsaved.clone()).filter(|unsaved| unsaved.ends > now));
        }
        running.sort_by_key(|reservation| reservation.ends);
        Ok(running)
    }

    /// Forgets all reservations of a job, as its proof is submitted: the job stays its client's. If
    /// that cannot be written now, a task tries again until it can, or the process ends.
    pub(super) async fn submitted(&self, permit: &Permit, job: &Slug, past: Timestamp) {
        let unsaved = self.unsaved().remove(&Key::new(permit.wallet(), job));
        let submitted = Submitted {
            wallet: permit.wallet(),
            job: job.clone(),
            client: unsaved.map_or_else(|| permit.client().to_string(), |unsaved| unsaved.client),
            reservation_id: permit.call().body().text(RESERVATION_ID),
            past,
        };
        if let Err(error) = self.submit(&submitted).await {
            tracing::error!(%job, %error, "the end of a reservation is not on record yet");
            self.tasks.spawn(self.clone().submit_later(submitted));
        }
    }

    /// The submission of a job that was not reserved again since.
    pub(super) async fn submission(
        &self,
        wallet: Address,
        job: &Slug,
    ) -> Result<Option<Submission>, StoreError> {
        self.store.submission(wallet, job).await
    }

    async fn submit_later(self, submitted: Submitted) {
        while self.submit(&submitted).await.is_err() && !self.ending.is_cancelled() {
            self.pause().await;
        }
    }

    async fn submit(&self, submitted: &Submitted) -> Result<(), StoreError> {
        let Submitted { wallet, job, client, reservation_id, past } = submitted;
        let id = reservation_id.as_deref();
        self.store.submit_job(*wallet, job, client, id, *past, Timestamp::now()).await
    }

    async fn save_later(self, reservation: Reservation, past: Timestamp) {
        while self.is_unsaved(&reservation) {
            if reservation::is_over(&reservation, Timestamp::now()) {
                return self.is_saved(&reservation);
            }
            let last = self.ending.is_cancelled();
            if self.save(&reservation, past).await.is_ok() || last {
                return;
            }
            self.pause().await;
        }
    }

    /// Waits before another try; at the end of the process, it comes at once.
    async fn pause(&self) {
        let _ = timeout(PAUSE, self.ending.cancelled()).await;
    }

    async fn save(&self, reservation: &Reservation, past: Timestamp) -> Result<(), StoreError> {
        self.store.keep_reservation(reservation, past).await?;
        self.is_saved(reservation);
        Ok(())
    }

    /// Whether it is this reservation that waits, and not a later one of the same job.
    fn is_unsaved(&self, reservation: &Reservation) -> bool {
        self.unsaved()
            .get(&Key::of(reservation))
            .is_some_and(|unsaved| unsaved.ends == reservation.ends)
    }

    /// The reservation is on record now.
    pub(super) fn is_saved(&self, reservation: &Reservation) {
        let key = Key::of(reservation);
        self.unsaved().retain(|held, unsaved| *held != key || unsaved.ends != reservation.ends);
    }

    /// Nothing here panics while it holds the lock.
    fn unsaved(&self) -> MutexGuard<'_, HashMap<Key, Reservation>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
