//! The headers that are not HTTP's own.

use axum::http::HeaderName;

/// The id of a request, of the client's choice or a random one. Every response has it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header of the IETF's draft for requests that must have their effect once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that tells our errors from the upstream's; its value is the error's code.
pub(super) const ERROR: HeaderName = HeaderName::from_static("x-agentpmt-proxy-error");
