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
    /// Who called.
    pub caller: Caller,
    /// Whose key was to sign, if that was known by then.
    pub wallet: Option<Address>,
    /// The name of the action.
    pub action: &'static str,
    /// What it was to be done to, if the call names it.
    pub product: Option<Slug>,
    /// Why: the code of its problem.
    pub reason: &'static str,
}

/// Who made a call that was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client.
    Client(ClientName),
    /// Nobody that is known: what there is to tell, such as an address or a user id.
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
