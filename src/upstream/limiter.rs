//! Limits how much is done at once, and shares it among the clients.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{clock, tally::Tally, types::ClientName};

/// Gives out a number of permits, of which one client may have three quarters. Clients that wait take
/// turns.
#[derive(Debug)]
pub(crate) struct Limiter {
    most: usize,
    permits: Mutex<Permits>,
}

#[derive(Debug, Default)]
struct Permits {
    given: usize,
    /// How many each client has.
    clients: Tally<ClientName>,
    /// The clients that wait, in the order of their turns.
    turns: VecDeque<ClientName>,
    waiting: BTreeMap<ClientName, VecDeque<oneshot::Sender<LimiterPermit>>>,
}

/// A permit of a limiter, which goes back to it when this is dropped.
#[derive(Debug)]
pub struct LimiterPermit {
    /// `None` once it was given back.
    limiter: Option<Arc<Limiter>>,
    client: ClientName,
    /// Whether the client had to wait for it.
    pub has_waited: bool,
    /// Whether it was the only one when it was given.
    pub(crate) is_only: bool,
}

impl Limiter {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, permits: Mutex::default() })
    }

    /// A permit for a client, unless it must wait for longer than half of the time until its deadline:
    /// the other half is for what the permit is for.
    pub(crate) async fn permit(
        self: &Arc<Self>,
        client: &ClientName,
        deadline: Instant,
    ) -> Option<LimiterPermit> {
        let turn = {
            let mut permits = self.permits();
            if self.has_permit(&permits, client) {
                return Some(self.give(&mut permits, client, false));
            }
            let (sender, turn) = oneshot::channel();
            permits.wait(client, sender);
            turn
        };
        timeout_at(clock::half_way(deadline), turn).await.ok()?.ok()
    }

    /// Whether a client may have one more now. While permits are left, every client that waits has its
    /// share already, so none is passed over.
    fn has_permit(&self, permits: &Permits, client: &ClientName) -> bool {
        let share = if client.is_local() { self.most } else { self.most - self.most / 4 };
        permits.given < self.most && permits.clients.of(client) < share
    }

    fn give(
        self: &Arc<Self>,
        permits: &mut Permits,
        client: &ClientName,
        has_waited: bool,
    ) -> LimiterPermit {
        permits.given += 1;
        permits.clients.add(client);
        let (limiter, client) = (Some(self.clone()), client.clone());
        LimiterPermit { limiter, client, has_waited, is_only: permits.given == 1 }
    }

    /// Takes a permit back, and gives those that are left to the clients whose turn it is.
    fn free(self: &Arc<Self>, client: &ClientName) {
        let mut permits = self.permits();
        permits.leave(client);
        for _ in 0..permits.turns.len() {
            if permits.given == self.most {
                return;
            }
            let Some(next) = permits.turns.pop_front() else { return };
            if self.has_permit(&permits, &next)
                && let Some(turn) = permits.next_of(&next)
                && let Err(mut permit) = turn.send(self.give(&mut permits, &next, true))
            {
                // The call was dropped just now. So is its permit, which must not take the lock again.
                permit.limiter = None;
                permits.leave(&next);
            }
            if permits.waiting.contains_key(&next) {
                permits.turns.push_back(next);
            }
        }
    }

    /// How many calls wait for a permit.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.permits().waiting.values().map(VecDeque::len).sum()
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permits {
    fn wait(&mut self, client: &ClientName, turn: oneshot::Sender<LimiterPermit>) {
        if !self.waiting.contains_key(client) {
            self.turns.push_back(client.clone());
        }
        self.waiting.entry(client.clone()).or_default().push_back(turn);
    }

    /// The first call of a client that still waits.
    fn next_of(&mut self, client: &ClientName) -> Option<oneshot::Sender<LimiterPermit>> {
        let queue = self.waiting.get_mut(client)?;
        let next = std::iter::from_fn(|| queue.pop_front()).find(|turn| !turn.is_closed());
        if queue.is_empty() {
            self.waiting.remove(client);
        }
        next
    }

    fn leave(&mut self, client: &ClientName) {
        self.given -= 1;
        self.clients.remove(client);
    }
}

impl Drop for LimiterPermit {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter.take() {
            limiter.free(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{task::Poll, time::Duration};

    use futures_util::poll;

    use super::*;

    fn name(text: &str) -> ClientName {
        text.parse().unwrap()
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn clients_take_turns_and_one_that_went_away_has_none() {
        let limiter = Limiter::new(1);
        let (one, two) = (name("one"), name("two"));
        let first = limiter.permit(&one, deadline()).await.unwrap();
        assert!(!first.has_waited);
        let mut flood: Vec<_> =
            (0..3).map(|_| Box::pin(limiter.permit(&one, deadline()))).collect();
        for waiting in &mut flood {
            assert!(poll!(waiting.as_mut()).is_pending());
        }
        let mut other = Box::pin(limiter.permit(&two, deadline()));
        assert!(poll!(other.as_mut()).is_pending());
        drop(flood.remove(0));
        drop(first);
        let Poll::Ready(Some(permit)) = poll!(flood[0].as_mut()) else { panic!("it is its turn") };
        assert!(permit.has_waited && poll!(other.as_mut()).is_pending());
        drop(permit);
        assert!(poll!(flood[1].as_mut()).is_pending(), "the other client is next");
        // A permit that was given to a call that is then dropped is free again.
        drop(other);
        assert!(poll!(flood[1].as_mut()).is_ready());
        let permits = limiter.permits();
        assert_eq!((permits.given, permits.turns.len(), permits.waiting.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn one_client_leaves_a_quarter_to_others() {
        let (limiter, one) = (Limiter::new(4), name("one"));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(limiter.permit(&one, deadline()).await);
        }
        let mut fourth = Box::pin(limiter.permit(&one, deadline()));
        assert!(poll!(fourth.as_mut()).is_pending());
        let other = limiter.permit(&name("two"), deadline()).await;
        assert!(poll!(fourth.as_mut()).is_pending());
        drop(other);
        assert!(poll!(fourth.as_mut()).is_pending());
        held.pop();
        assert!(poll!(fourth.as_mut()).is_ready());
    }
}
