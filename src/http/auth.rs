//! Who calls: a client that is known by its token, its certificate or its user id; or, as long as no
//! client was added, everyone on this machine.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use rustix::process::geteuid;

use super::{Surface, peer::Peer, problem::Problem};
use crate::{
    policy::Client,
    proxy::Evidence,
    types::{CertificateHash, ClientToken, InvalidToken, TOKEN_PREFIX},
};

/// The scheme of a token (RFC 6750 §2.1), in lower case.
const BEARER: &str = "bearer ";

/// The client that makes a request which is no call.
pub(super) struct Caller(pub(super) Client);

impl FromRequestParts<Arc<Surface>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        surface: &Arc<Surface>,
    ) -> Result<Self, Problem> {
        let client = surface.proxy.identify(&evidence(parts)).await;
        client.map(Self).map_err(|failure| Problem::refused(&failure))
    }
}

/// What a request shows of its caller.
pub(super) fn evidence(parts: &Parts) -> Evidence {
    let peer: Option<&Peer> = parts.extensions.get();
    Evidence {
        token: token(&parts.headers),
        certificate: peer.and_then(|peer| peer.certificate).map(CertificateHash::new),
        uid: peer.and_then(|peer| peer.uid),
        address: peer.and_then(|peer| peer.address),
        is_owner: peer.is_some_and(is_owner),
    }
}

/// The token that a request carries, if it carries any.
fn token(headers: &HeaderMap) -> Option<Result<ClientToken, InvalidToken>> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let text = given.next()?.to_str().unwrap_or_default();
    if given.next().is_some() {
        return Some(Err(InvalidToken::Several));
    }
    let token = match text.split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => token.trim().parse(),
        _ => Err(InvalidToken::Foreign),
    };
    Some(token.map_err(|invalid| match invalid {
        InvalidToken::Foreign if text.contains(TOKEN_PREFIX) => InvalidToken::Misplaced,
        invalid => invalid,
    }))
}

/// Whether a peer is taken for the owner of this process: whoever reaches a loopback port, and over
/// a unix socket the same user, or root.
fn is_owner(peer: &Peer) -> bool {
    let is_own = |uid| uid == 0 || uid == geteuid().as_raw();
    peer.is_local() && peer.uid.is_none_or(is_own)
}
