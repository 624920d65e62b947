//! Who calls: a client that is known by its token, its certificate or its user id; or, as long as no
//! client was added, everyone on this machine.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use jiff::Timestamp;
use rustix::process::geteuid;

use super::{Surface, peer::Peer, problem::Problem, refused::Refused};
use crate::{
    action::Action,
    policy::Client,
    store::{Store, StoreError},
    types::{CertificateHash, ClientToken, Credential, InvalidToken, TOKEN_PREFIX},
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
        caller(surface, parts, None).await.map(Self)
    }
}

/// The client that makes a request. If that is a call, its refusal is on record; the call is its
/// action and the first id of its path.
pub(super) async fn caller(
    surface: &Surface,
    parts: &Parts,
    call: Option<(&'static Action, Option<&str>)>,
) -> Result<Client, Problem> {
    let (now, store) = (Timestamp::now(), surface.proxy.store());
    let refused = Refused { surface, parts, call };
    match client(&parts.headers, parts.extensions.get(), store, now).await {
        Ok(client) => match client.expires.filter(|end| *end <= now) {
            None => Ok(client),
            Some(ended) => {
                Box::pin(refused.client(client.name.clone(), "access_ended")).await;
                Err(Problem::access_ended(&client.name, ended))
            }
        },
        Err(Unknown::Stranger(problem)) => {
            Box::pin(refused.stranger(problem.code())).await;
            Err(problem)
        }
        Err(Unknown::Store(error)) => Err(Problem::store(&error)),
    }
}

/// Why it is not known who calls.
enum Unknown {
    /// It is nobody who may call.
    Stranger(Problem),
    /// The clients cannot be read.
    Store(StoreError),
}

impl From<Problem> for Unknown {
    fn from(problem: Problem) -> Self {
        Self::Stranger(problem)
    }
}

impl From<StoreError> for Unknown {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

async fn client(
    headers: &HeaderMap,
    peer: Option<&Peer>,
    store: &Store,
    now: Timestamp,
) -> Result<Client, Unknown> {
    let token = match token(headers) {
        // Before there is any client, it is meant for somebody else.
        Some(Err(invalid)) if invalid != InvalidToken::Mistyped && !store.has_clients().await? => {
            None
        }
        token => token.transpose().map_err(|invalid| Problem::bad_token(&invalid))?,
    };
    if let Some(token) = token {
        let client = store.client_by(Credential::Token(token.hash()), now).await?;
        return client.ok_or_else(|| Problem::unknown_token().into());
    }
    if let Some(certificate) = peer.and_then(|peer| peer.certificate) {
        let credential = Credential::Certificate(CertificateHash::new(certificate));
        if let Some(client) = store.client_by(credential, now).await? {
            return Ok(client);
        }
    }
    if let Some(uid) = peer.and_then(|peer| peer.uid)
        && let Some(client) = store.client_by(Credential::Uid(uid), now).await?
    {
        return Ok(client);
    }
    if peer.is_some_and(is_owner) && !store.has_clients().await? {
        return Ok(Client::local());
    }
    Err(Problem::who_are_you().into())
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
