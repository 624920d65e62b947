//! The evidence of the caller in a request: a token, a certificate, a user id, or that it is local.

use axum::http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use rustix::process::geteuid;

use super::peer::Peer;
use crate::{
    proxy::Evidence,
    types::{CertificateHash, ClientToken, InvalidToken, TOKEN_PREFIX},
};

/// The scheme of a token (RFC 6750 §2.1), in lower case.
const BEARER: &str = "bearer ";

/// The evidence of the caller in a request.
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

/// Whether a peer is taken for the owner of this process: every peer on a loopback port, and over a unix
/// socket the same user, or root.
fn is_owner(peer: &Peer) -> bool {
    let is_own = |uid| uid == 0 || uid == geteuid().as_raw();
    peer.is_local() && peer.uid.is_none_or(is_own)
}
