//! The rights of clients. A call that no rule allows is denied. Only [`Client::permit`] makes a
//! [`Permit`]; [`Permit::look`] derives the one for the status probe of the same call.

mod allow;
mod denied;
mod permit;
mod rate;

use jiff::Timestamp;

pub use self::{
    allow::{Allow, InvalidAllow},
    denied::Denied,
    permit::{Permit, SignedPermit},
    rate::{InvalidRate, Rate},
};
use crate::types::{Address, ClientName};

/// A client, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name, which is also in the journal.
    pub name: ClientName,
    /// The calls that it may make.
    pub allow: Allow,
    /// The one wallet that it may use; without it, any.
    pub wallet: Option<Address>,
    /// How often it may call; without it, as often as it likes.
    pub rate: Option<Rate>,
    /// How many reservations it may hold at a time; without it, any number.
    pub max_reservations: Option<u32>,
    /// Whether it may act on the reservations of other clients.
    pub admin: bool,
    /// From when on it may do nothing.
    pub expires: Option<Timestamp>,
    /// When it was added, which tells it from another one of its name; `local` never was.
    pub added: Option<Timestamp>,
}

impl Client {
    /// The client that everyone on this machine is as long as no client is configured. It may do
    /// everything.
    pub fn local() -> Self {
        Self {
            name: ClientName::local(),
            allow: Allow::everything(),
            wallet: None,
            rate: None,
            max_reservations: None,
            admin: true,
            expires: None,
            added: None,
        }
    }
}
