//! What a call says before its body.

use axum::http::{HeaderMap, HeaderName, header::CONTENT_ENCODING, request::Parts};

use super::{log, problem::Problem};
use crate::{action::Action, types::IdempotencyKey};

/// The header of the IETF's draft for requests that must have their effect once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key in the head of a call, which is checked.
pub(super) fn key(action: &Action, parts: &Parts) -> Result<Option<IdempotencyKey>, Problem> {
    if parts.uri.query().is_some_and(|query| !action.takes_query(query)) {
        return Err(Problem::query_not_taken(action));
    }
    check_coding(&parts.headers)?;
    idempotency_key(&parts.headers)
}

/// The body is read as it comes.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    match codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Some(coding) => {
            let coding = String::from_utf8_lossy(coding.as_bytes());
            Err(Problem::content_coding(&log::printable(&coding)))
        }
        None => Ok(()),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    match (key, given.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::invalid_idempotency_key()),
    }
}
