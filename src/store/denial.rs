//! The record of a call that was denied.

use crate::{
    operation::Operation,
    types::{Address, ClientName, RequestId, Slug},
};

/// A call that was denied, so that nothing was signed or sent. It holds no credential.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The id of the local request, its `x-request-id`.
    pub call_id: RequestId,
    /// The caller.
    pub caller: Caller,
    /// The wallet that was to sign, if that was known by then.
    pub wallet: Option<Address>,
    /// The name of the action.
    pub action: &'static str,
    /// The id of what the call is about, if it names one.
    pub product: Option<Slug>,
    /// Why: the code of its problem.
    pub reason: &'static str,
}

/// The caller of a denied call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client.
    Client(ClientName),
    /// A caller that is not known: its address or user id, for example.
    Unknown(String),
}

impl Denial {
    /// The denial of an operation.
    pub fn of(operation: &Operation, reason: &'static str) -> Self {
        Self {
            call_id: operation.trace.call_id.clone(),
            caller: Caller::Client(operation.client.name.clone()),
            wallet: Some(operation.wallet),
            action: operation.action().name,
            product: operation.call.product().cloned(),
            reason,
        }
    }
}
