//! How often this process calls for each client, known before the database knows.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    policy::{Client, Rate},
    types::ClientId,
};

/// The calls of this process that came last, one of each client that has a rate: its theoretical arrival
/// time. The database counts those of all processes, a little later.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashMap<ClientId, i64>>);

impl Arrivals {
    pub(super) fn count(
        &self,
        client: &Client,
        rate: Rate,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let mut arrivals = self.lock();
        let next = rate.admit(arrivals.get(&client.id).copied(), now)?;
        arrivals.insert(client.id, next);
        Ok(())
    }

    /// Learns what the database counted.
    pub(super) fn learn(&self, client: ClientId, arrival: Option<i64>) {
        let (mut arrivals, Some(arrival)) = (self.lock(), arrival) else { return };
        let known = arrivals.entry(client).or_insert(arrival);
        *known = arrival.max(*known);
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
