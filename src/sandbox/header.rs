//! The headers of x402, which hold JSON in base64 (protocol §9.1).

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// The headers that may have a payment.
const PAYMENTS: [&str; 3] = ["x-payment", "payment-signature", "payment"];

/// The payment of a request, as its header has it.
pub(super) fn payment_of(headers: &HeaderMap) -> Option<&[u8]> {
    PAYMENTS.iter().find_map(|name| Some(headers.get(*name)?.as_bytes()))
}

/// The JSON in the value of a header.
pub(super) fn decoded(value: &[u8]) -> Option<Value> {
    serde_json::from_slice(&STANDARD.decode(value).ok()?).ok()
}

/// A header with this JSON.
pub(super) fn with_json(name: &'static str, json: &Value) -> HeaderMap {
    // Base64 fits every header.
    let value = HeaderValue::try_from(STANDARD.encode(json.to_string()));
    value.into_iter().map(|value| (HeaderName::from_static(name), value)).collect()
}
