//! The jobs that clients hold, with those whose reservation is not on record yet.

use std::{collections::HashSet, sync::PoisonError};

use jiff::Timestamp;

use super::{
    db::Db,
    error::StoreError,
    handle::Store,
    reservations::{Reservation, exist_of_others, holds, reservation, reserved},
};
use crate::types::{Address, ClientId, Slug};

impl Store {
    /// The reservation of a job; also one that has ended, for a day.
    ///
    /// # Errors
    /// It cannot be read, or its workflow token does not open.
    pub async fn reservation(
        &self,
        wallet: Address,
        job: &Slug,
    ) -> Result<Option<Reservation>, StoreError> {
        if let Some(unsaved) = self.unsaved(wallet, job) {
            return Ok(Some(unsaved));
        }
        self.follow_clock().await;
        let (inner, job) = (self.0.clone(), job.clone());
        self.read(move |db| reservation(db, &inner.seal, wallet, &job)).await
    }

    /// The reservations of all wallets that have not ended, the first to end first. A workflow
    /// token that does not open, since it is another wallet's, is left out.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn reservations(&self, now: Timestamp) -> Result<Vec<Reservation>, StoreError> {
        self.follow_clock().await;
        let inner = self.0.clone();
        let mut running = self.read(move |db| reserved(db, &inner.seal, now)).await?;
        for unsaved in &*self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner) {
            running.retain(|saved| !saved.is_of(unsaved.wallet, &unsaved.job));
            running.extend(Some(unsaved.clone()).filter(|unsaved| unsaved.ends > now));
        }
        running.sort_by_key(|reservation| reservation.ends);
        Ok(running)
    }

    /// The client that holds a job, for one that asks (`Holds::holder`).
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn holder(
        &self,
        wallet: Address,
        job: &Slug,
        asks: ClientId,
        now: Timestamp,
    ) -> Result<Option<ClientId>, StoreError> {
        self.follow_clock().await;
        let (unsaved, job) = (self.unsaved(wallet, job), job.clone());
        let holds = self.read(move |db| holds(db, wallet, &job, unsaved.as_ref())).await?;
        Ok(holds.holder(asks, now).map(|hold| hold.client))
    }

    /// Tells whether other clients than the one that asks hold any job, or held one of late.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn others_hold(&self, asks: ClientId) -> Result<bool, StoreError> {
        let is_unsaved = {
            let unsaved = self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
            unsaved.iter().any(|unsaved| unsaved.client != asks)
        };
        Ok(is_unsaved || self.read(move |db| exist_of_others(db, asks)).await?)
    }

    /// Finds out which of these jobs other clients hold than the one that asks.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn held_by_others(
        &self,
        wallet: Address,
        jobs: Vec<Slug>,
        asks: ClientId,
        now: Timestamp,
    ) -> Result<Vec<Slug>, StoreError> {
        if jobs.is_empty() {
            return Ok(jobs);
        }
        self.follow_clock().await;
        // A list may name a job more than once.
        let jobs: HashSet<_> = jobs.into_iter().collect();
        let jobs: Vec<_> = jobs.into_iter().map(|job| (self.unsaved(wallet, &job), job)).collect();
        let held = move |db: &Db| {
            let mut held = Vec::new();
            for (unsaved, job) in jobs {
                let holds = holds(db, wallet, &job, unsaved.as_ref())?;
                let is_other = holds.holder(asks, now).is_some_and(|hold| hold.client != asks);
                if is_other || holds.is_released(now) {
                    held.push(job);
                }
            }
            Ok(held)
        };
        self.read(held).await
    }

    /// Has the reservation of a job be known that is not on record yet, or none.
    pub(super) fn set_unsaved(&self, wallet: Address, job: &Slug, unsaved: Option<&Reservation>) {
        let mut all = self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !other.is_of(wallet, job));
        all.extend(unsaved.cloned());
    }

    /// The reservation of a job that is not on record yet.
    pub(super) fn unsaved(&self, wallet: Address, job: &Slug) -> Option<Reservation> {
        let unsaved = self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.iter().find(|unsaved| unsaved.is_of(wallet, job)).cloned()
    }
}
