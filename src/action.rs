//! The calls of the upstream, one row each. Everything that knows a call by name or path loops over
//! [`ACTIONS`].

mod field;
mod rule;

mod row;

mod known;

mod table;

pub use self::{
    field::{Field, JsonType},
    row::Action,
    rule::{About, Binds, Effect, EmptyPayload, Lookup, Needs, Payload, Proof, Signed},
    table::ACTIONS,
};
pub(crate) use self::{known::RESERVATION, row::ids_of, table::PARAMETERS};

/// Where a session begins. The proxy calls it for itself and answers it locally.
pub const SESSION_PATH: &str = "/api/external/auth/session";

/// The fields of the body of a signed call that hold its proof: written by the proxy, dropped from what
/// clients send (protocol §3).
pub const ENVELOPE: [&str; 4] = ["wallet_address", "session_nonce", "request_id", "signature"];
