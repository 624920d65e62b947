//! Clients and their rights.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    allow::Allow, credit_limit::CreditLimit, denied::Denied, rate::Rate, spend_limit::SpendLimit,
};
use crate::types::{Address, ClientId, ClientName};

/// A client, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its number, which tells it from another one that has or had its name.
    pub id: ClientId,
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
    /// How many credits it may spend; without it, as many as the wallet has.
    pub max_credits: Option<CreditLimit>,
    /// How much it may have the proxy pay; without it, as much as the configuration allows.
    pub spend: Option<SpendLimit>,
    /// Whether it may act on the reservations of other clients, reload the configuration, freeze and thaw.
    pub admin: bool,
    /// From when on it may do nothing.
    pub expires: Option<Timestamp>,
}

impl Client {
    /// The client `local`: every local caller while no client is added. It may do everything.
    pub fn local() -> Self {
        Self {
            id: ClientId::LOCAL,
            name: ClientName::local(),
            allow: Allow::everything(),
            wallet: None,
            rate: None,
            max_reservations: None,
            max_credits: None,
            spend: None,
            admin: true,
            expires: None,
        }
    }

    /// The denial of a call that comes too soon after others.
    pub(crate) fn too_fast(&self, rate: Rate, wait: Duration) -> Denied {
        Denied::TooFast { client: self.name.clone(), rate, wait }
    }
}
