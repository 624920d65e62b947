//! The headers that are not HTTP's own.

use axum::http::HeaderName;

/// The id of a request, of the client's choice or a random one. Every response has it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header of the IETF's draft for requests that must have their effect once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The id of the last event that a client has, which it sends when it comes back (HTML, server-sent events).
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The headers by which a call is paid for (protocol §9.1); each means the same.
pub(super) const PAYMENTS: [HeaderName; 3] = [
    HeaderName::from_static("x-payment"),
    HeaderName::from_static("payment-signature"),
    HeaderName::from_static("payment"),
];

/// The headers of the answer to a call that is paid for (protocol §9.1).
pub(super) const PAYMENT_ANSWERS: [HeaderName; 3] = [
    HeaderName::from_static("payment-required"),
    HeaderName::from_static("payment-response"),
    HeaderName::from_static("x-payment-response"),
];

/// The header that tells our errors from the upstream's; its value is the error's code.
pub(super) const ERROR: HeaderName = HeaderName::from_static("x-agentpmt-proxy-error");
