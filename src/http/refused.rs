//! The record of a call that was refused for who calls, before anything else of it was looked at.

use std::sync::{Mutex, PoisonError};

use axum::http::request::Parts;
use jiff::Timestamp;

use super::{Surface, log::Arrival, peer::Peer};
use crate::{
    action::Action,
    policy::Rate,
    store::{Caller, Denial},
    types::ClientName,
};

/// How many calls of strangers are recorded: whoever reaches the proxy can make them, and must not
/// fill the disk. The log has them all.
const STRANGERS: &str = "60/m";

/// The rate at which calls of strangers are recorded.
#[derive(Debug)]
pub(super) struct Strangers {
    rate: Rate,
    arrival: Mutex<Option<i64>>,
}

impl Default for Strangers {
    fn default() -> Self {
        let rate = STRANGERS.parse().expect("a rate");
        Self { rate, arrival: Mutex::default() }
    }
}

impl Strangers {
    fn admits(&self, now: Timestamp) -> bool {
        let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.rate.admit(*arrival, now).ok();
        *arrival = next.or(*arrival);
        next.is_some()
    }
}

/// A request that was refused.
pub(super) struct Refused<'a> {
    pub(super) surface: &'a Surface,
    pub(super) parts: &'a Parts,
    /// Its action and the first id of its path, if it is a call: only then it is recorded.
    pub(super) call: Option<(&'static Action, Option<&'a str>)>,
}

impl Refused<'_> {
    /// Records that a client was refused.
    pub(super) async fn client(&self, name: ClientName, reason: &'static str) {
        self.record(|| Caller::Client(name), reason).await;
    }

    /// Records that a stranger was refused, up to a rate.
    pub(super) async fn stranger(&self, reason: &'static str, now: Timestamp) {
        if self.call.is_some() && self.surface.instance.strangers().admits(now) {
            let peer = self.parts.extensions.get();
            let from = || peer.map_or_else(|| "unknown".to_owned(), origin);
            self.record(|| Caller::Unknown(from()), reason).await;
        }
    }

    async fn record(&self, caller: impl FnOnce() -> Caller, reason: &'static str) {
        let Some((action, id)) = self.call else { return };
        let denial = Denial {
            call_id: Arrival::of(&self.parts.extensions).call_id,
            caller: caller(),
            wallet: None,
            action: action.name,
            product: id.and_then(|id| id.parse().ok()),
            reason,
        };
        self.surface.proxy.store().denied(&denial).await;
    }
}

/// What there is to tell of a stranger.
fn origin(peer: &Peer) -> String {
    match (peer.address, peer.uid) {
        (Some(address), _) => address.to_string(),
        (None, Some(uid)) => format!("uid {uid}"),
        (None, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_flood_of_strangers_is_recorded_in_part() {
        let strangers = Strangers::default();
        let now = Timestamp::now();
        assert_eq!((0..1000).filter(|_| strangers.admits(now)).count(), 60);
        assert!(strangers.admits(now + SignedDuration::from_secs(1)));
    }

    #[test]
    fn a_stranger_is_known_by_its_address_or_its_user() {
        let peer = |address: &str, uid| {
            let address = address.parse().ok();
            Peer { address, local: None, uid, certificate: None, passes_on: false }
        };
        assert_eq!(origin(&peer("192.0.2.1", None)), "192.0.2.1");
        assert_eq!(origin(&peer("", Some(7))), "uid 7");
        assert_eq!(origin(&peer("", None)), "unknown");
    }
}
