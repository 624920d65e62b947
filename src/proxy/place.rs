//! In-flight permits: they limit how many calls are in flight, in all and for each client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{tally::Tally, types::ClientName};

/// A client gets another permit while it holds fewer than this many for each free one. Alone, it gets
/// three quarters of all permits, so that some are always left for other clients.
const SHARE: usize = 3;

/// The permits, as many as calls may be in flight.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    clients: Tally<ClientName>,
}

/// The permit of one call in flight. Dropping it frees it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    client: ClientName,
}

/// Why a client gets no permit for another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Full,
    /// The client has its share.
    Share,
}

impl Places {
    /// So many places, all free.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Takes a place for a call. The client that is there as long as none was added shares with nobody.
    ///
    /// # Errors
    /// See [`NoPlace`].
    pub fn take(self: &Arc<Self>, client: &ClientName) -> Result<Place, NoPlace> {
        let mut taken = self.taken();
        let free = self.most.saturating_sub(taken.all);
        let own = taken.clients.of(client);
        if free == 0 {
            return Err(NoPlace::Full);
        }
        if own >= free.saturating_mul(SHARE) && !client.is_local() {
            return Err(NoPlace::Share);
        }
        taken.all += 1;
        taken.clients.add(client);
        Ok(Place { places: self.clone(), client: client.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        taken.clients.remove(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client gets of these places until it gets no more, and why.
    fn all(places: &Arc<Places>, client: &str) -> (Vec<Place>, NoPlace) {
        let client = client.parse().unwrap();
        let mut taken = Vec::new();
        loop {
            match places.take(&client) {
                Ok(place) => taken.push(place),
                Err(none) => return (taken, none),
            }
        }
    }

    #[test]
    fn clients_leave_places_for_others() {
        let places = Places::new(1024);
        let (one, none) = all(&places, "one");
        assert_eq!((one.len(), none), (768, NoPlace::Share));
        let (two, none) = all(&places, "two");
        assert_eq!((two.len(), none), (192, NoPlace::Share));
        drop(one);
        assert!(places.take(&"two".parse().unwrap()).is_ok());
        drop(two);
        let taken = places.taken();
        assert_eq!((taken.all, taken.clients.len()), (0, 0), "what is over is forgotten");
    }

    #[test]
    fn who_has_nobody_to_share_with_may_have_all() {
        let places = Places::new(8);
        let (taken, none) = all(&places, "local");
        assert_eq!((taken.len(), none), (8, NoPlace::Full));
        let places = Places::new(1);
        assert_eq!(all(&places, "one").0.len(), 1);
    }
}
