//! What a call says before its body.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, request::Parts};

use super::{log::Arrival, problem::Problem};
use crate::{
    proxy::Trail,
    types::{IdempotencyKey, RequestId},
};

/// The header of the IETF's draft for requests that must have their effect once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The head of a call.
pub(super) struct Head {
    /// The id that the request has been given.
    pub(super) call_id: RequestId,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) trail: Arc<Trail>,
}

impl Head {
    pub(super) fn of(parts: &Parts) -> Result<Self, Problem> {
        if parts.uri.query().is_some() {
            return Err(Problem::query_not_taken());
        }
        let Arrival { call_id, trail } = Arrival::of(&parts.extensions);
        Ok(Self { call_id, key: key(&parts.headers)?, trail })
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
