//! What a call says before its body.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};

use super::problem::Problem;
use crate::{
    proxy::{Place, Trail},
    types::{IdempotencyKey, RequestId},
};

/// The header of the IETF's draft for requests that must have their effect once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The head of a call.
pub(super) struct Head {
    /// The id that the request has been given.
    pub(super) call_id: RequestId,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) place: Option<Place>,
    pub(super) trail: Arc<Trail>,
}

impl<S: Sync> FromRequestParts<S> for Head {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some() {
            return Err(Problem::query_not_taken());
        }
        // The middleware gives every request one.
        let call_id = parts.extensions.get().cloned().unwrap_or_else(RequestId::random);
        let trail = parts.extensions.get().cloned().unwrap_or_default();
        let place = parts.extensions.remove();
        Ok(Self { call_id, key: key(&parts.headers)?, place, trail })
    }
}

fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    match (key, given.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::invalid_idempotency_key()),
    }
}
