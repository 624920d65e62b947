//! The record of a call that was refused for who calls, before anything else of it was looked at.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams},
    http::request::Parts,
};
use jiff::Timestamp;

use super::{instance::Instance, peer::Peer};
use crate::{
    action::{ACTIONS, Action},
    policy::Rate,
    store::{Caller, Denial, Store},
    types::{ClientName, RequestId, Slug},
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

/// Records that a client was refused, unless what it asked for is no call.
pub(super) async fn client(
    parts: &mut Parts,
    store: &Store,
    name: ClientName,
    reason: &'static str,
) {
    record(parts, store, Caller::Client(name), reason).await;
}

/// Records that a stranger was refused, unless what it asked for is no call.
pub(super) async fn stranger(
    parts: &mut Parts,
    store: &Store,
    reason: &'static str,
    now: Timestamp,
) {
    let instance = parts.extensions.get::<Arc<Instance>>();
    if action(parts).is_some() && instance.is_none_or(|own| own.strangers().admits(now)) {
        let from = parts.extensions.get().map_or_else(|| "unknown".to_owned(), origin);
        record(parts, store, Caller::Unknown(from), reason).await;
    }
}

async fn record(parts: &mut Parts, store: &Store, caller: Caller, reason: &'static str) {
    let Some(action) = action(parts) else { return };
    let call_id = parts.extensions.get().cloned().unwrap_or_else(RequestId::random);
    let product = product(parts).await;
    let action = action.name;
    store.denied(&Denial { call_id, caller, wallet: None, action, product, reason }).await;
}

fn action(parts: &Parts) -> Option<&'static Action> {
    let path = parts.extensions.get::<MatchedPath>()?.as_str();
    ACTIONS.iter().find(|action| action.path == path && action.method == parts.method)
}

/// The first id of the path, if it is one.
async fn product(parts: &mut Parts) -> Option<Slug> {
    let ids = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let (_, id) = ids.iter().next()?;
    id.parse().ok()
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
