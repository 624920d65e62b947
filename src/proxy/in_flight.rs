//! In-flight permits: they limit how many calls are in flight, in all and for each client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{tally::Tally, types::ClientName};

/// A client gets another permit while it holds fewer than this many for each free one. Alone, it gets
/// three quarters of all permits, so that some are always left for other clients.
const SHARE: usize = 3;

/// The permits, as many as calls may be in flight. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    most: usize,
    all: usize,
    clients: Tally<ClientName>,
}

/// The permit of one call in flight. Dropping it frees it.
#[derive(Debug)]
pub struct InFlightPermit {
    in_flight: InFlight,
    client: ClientName,
}

/// Why a client gets no permit for another call. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overloaded {
    /// All are taken.
    #[error("as many calls are in flight as max_in_flight allows")]
    Full,
    /// The client has its share.
    #[error("the client has its share of max_in_flight in flight, and the rest is kept for others")]
    Share,
    /// As many requests wait for something as may.
    #[error(
        "as many requests wait as may: four times max_in_flight, and less of one client so that others \
         can wait as well"
    )]
    Waiting,
}

impl InFlight {
    /// From now on there are so many. Calls that are in flight count on.
    pub(super) fn set_most(&self, most: usize) {
        self.taken().most = most;
    }

    /// Takes a permit for a call. The client `local` has no share limit: it is alone.
    ///
    /// # Errors
    /// See [`Overloaded`].
    pub(super) fn take(&self, client: &ClientName) -> Result<InFlightPermit, Overloaded> {
        let mut taken = self.taken();
        let free = taken.most.saturating_sub(taken.all);
        let own = taken.clients.of(client);
        if free == 0 {
            return Err(Overloaded::Full);
        }
        if own >= free.saturating_mul(SHARE) && !client.is_local() {
            return Err(Overloaded::Share);
        }
        taken.all += 1;
        taken.clients.add(client);
        Ok(InFlightPermit { in_flight: self.clone(), client: client.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        let mut taken = self.in_flight.taken();
        taken.all -= 1;
        taken.clients.remove(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(most: usize) -> InFlight {
        let in_flight = InFlight::default();
        in_flight.set_most(most);
        in_flight
    }

    /// The permits that a client gets until it gets no more, and why.
    fn all(in_flight: &InFlight, client: &str) -> (Vec<InFlightPermit>, Overloaded) {
        let client = client.parse().unwrap();
        let mut taken = Vec::new();
        loop {
            match in_flight.take(&client) {
                Ok(permit) => taken.push(permit),
                Err(overloaded) => return (taken, overloaded),
            }
        }
    }

    #[test]
    fn clients_leave_permits_for_others() {
        let in_flight = permits(1024);
        let (one, overloaded) = all(&in_flight, "one");
        assert_eq!((one.len(), overloaded), (768, Overloaded::Share));
        let (two, overloaded) = all(&in_flight, "two");
        assert_eq!((two.len(), overloaded), (192, Overloaded::Share));
        drop(one);
        assert!(in_flight.take(&"two".parse().unwrap()).is_ok());
        drop(two);
        let taken = in_flight.taken();
        assert_eq!((taken.all, taken.clients.len()), (0, 0), "what is over is forgotten");
    }

    #[test]
    fn a_client_that_shares_with_no_other_may_have_all() {
        let (taken, overloaded) = all(&permits(8), "local");
        assert_eq!((taken.len(), overloaded), (8, Overloaded::Full));
        assert_eq!(all(&permits(1), "one").0.len(), 1);
    }

    #[test]
    fn calls_in_flight_count_on_when_the_number_changes() {
        let in_flight = permits(1);
        let local = ClientName::local();
        let _permit = in_flight.take(&local).unwrap();
        in_flight.set_most(3);
        assert_eq!(all(&in_flight, "local").0.len(), 2);
        in_flight.set_most(1);
        assert_eq!(in_flight.take(&local).unwrap_err(), Overloaded::Full);
    }
}
