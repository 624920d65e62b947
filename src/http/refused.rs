//! The record of a call that was refused for who calls, before anything else of it was looked at.

use axum::http::request::Parts;

use super::{Surface, log::Arrival, peer::Peer};
use crate::{
    action::Action,
    store::{Caller, Denial},
    types::ClientName,
};

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

    /// Records that an unauthenticated caller was refused.
    pub(super) async fn stranger(&self, reason: &'static str) {
        let peer = self.parts.extensions.get();
        let from = || peer.map_or_else(|| "unknown".to_owned(), origin);
        self.record(|| Caller::Unknown(from()), reason).await;
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

/// How the journal names a caller that is no client: by its address, or by its user id on a socket.
fn origin(peer: &Peer) -> String {
    match (peer.address, peer.uid) {
        (Some(address), _) => address.to_string(),
        (None, Some(uid)) => format!("uid {uid}"),
        (None, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
