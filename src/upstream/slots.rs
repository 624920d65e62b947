//! The calls that may be made at once: when all are being made, the clients take turns.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{tally::Tally, types::ClientName};

/// So many calls at once, of which one client may have three quarters.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// How many each client has.
    clients: Tally<ClientName>,
    /// The clients that wait, and in which turn they get the next.
    turns: VecDeque<ClientName>,
    waiting: BTreeMap<ClientName, VecDeque<oneshot::Sender<Slot>>>,
}

/// One of the calls that may be made at once, free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    /// `None` once it was given back.
    slots: Option<Arc<Slots>>,
    client: ClientName,
    /// Whether it had to be waited for.
    pub has_waited: bool,
}

impl Slots {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A slot for a call of a client: at once, or when it is its turn.
    pub(super) async fn take(self: &Arc<Self>, client: &ClientName) -> Option<Slot> {
        let turn = {
            let mut state = self.state();
            if self.has_slot(&state, client) {
                return Some(self.give(&mut state, client, false));
            }
            let (sender, turn) = oneshot::channel();
            state.wait(client, sender);
            turn
        };
        // Nothing drops the sender but the end of the slots.
        turn.await.ok()
    }

    /// Whether a client may have one more now. Those that wait while there is one have their share.
    fn has_slot(&self, state: &State, client: &ClientName) -> bool {
        let share = if client.is_local() { self.most } else { self.most - self.most / 4 };
        state.taken < self.most && state.clients.of(client) < share
    }

    fn give(self: &Arc<Self>, state: &mut State, client: &ClientName, has_waited: bool) -> Slot {
        state.taken += 1;
        state.clients.add(client);
        Slot { slots: Some(self.clone()), client: client.clone(), has_waited }
    }

    /// Takes a slot back and gives what is free to those whose turn it is.
    fn free(self: &Arc<Self>, client: &ClientName) {
        let mut state = self.state();
        state.leave(client);
        for _ in 0..state.turns.len() {
            if state.taken == self.most {
                return;
            }
            let Some(next) = state.turns.pop_front() else { return };
            if self.has_slot(&state, &next)
                && let Some(turn) = state.next_of(&next)
                && let Err(mut slot) = turn.send(self.give(&mut state, &next, true))
            {
                // It went away just now. Its slot would be given back to who holds the lock.
                slot.slots = None;
                state.leave(&next);
            }
            if state.waiting.contains_key(&next) {
                state.turns.push_back(next);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, client: &ClientName, turn: oneshot::Sender<Slot>) {
        if !self.waiting.contains_key(client) {
            self.turns.push_back(client.clone());
        }
        self.waiting.entry(client.clone()).or_default().push_back(turn);
    }

    /// The first of a client that still waits.
    fn next_of(&mut self, client: &ClientName) -> Option<oneshot::Sender<Slot>> {
        let queue = self.waiting.get_mut(client)?;
        let next = std::iter::from_fn(|| queue.pop_front()).find(|turn| !turn.is_closed());
        if queue.is_empty() {
            self.waiting.remove(client);
        }
        next
    }

    fn leave(&mut self, client: &ClientName) {
        self.taken -= 1;
        self.clients.remove(client);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.free(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    fn name(text: &str) -> ClientName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn clients_take_turns_and_one_that_went_away_has_none() {
        let slots = Slots::new(1);
        let (one, two) = (name("one"), name("two"));
        let first = slots.take(&one).await.unwrap();
        assert!(!first.has_waited);
        let mut flood: Vec<_> = (0..3).map(|_| Box::pin(slots.take(&one))).collect();
        for waiting in &mut flood {
            assert!(poll!(waiting.as_mut()).is_pending());
        }
        let mut other = Box::pin(slots.take(&two));
        assert!(poll!(other.as_mut()).is_pending());
        drop(flood.remove(0));
        drop(first);
        let Poll::Ready(Some(slot)) = poll!(flood[0].as_mut()) else { panic!("it is its turn") };
        assert!(slot.has_waited && poll!(other.as_mut()).is_pending());
        drop(slot);
        assert!(poll!(flood[1].as_mut()).is_pending(), "the other client is next");
        // What was given to one that goes away before it has heard of it is free again.
        drop(other);
        assert!(poll!(flood[1].as_mut()).is_ready());
        let state = slots.state();
        assert_eq!((state.taken, state.turns.len(), state.waiting.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn one_client_leaves_a_quarter_to_others() {
        let (slots, one) = (Slots::new(4), name("one"));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(slots.take(&one).await);
        }
        let mut fourth = Box::pin(slots.take(&one));
        assert!(poll!(fourth.as_mut()).is_pending());
        let other = slots.take(&name("two")).await;
        assert!(poll!(fourth.as_mut()).is_pending());
        drop(other);
        assert!(poll!(fourth.as_mut()).is_pending());
        held.pop();
        assert!(poll!(fourth.as_mut()).is_ready());
    }
}
