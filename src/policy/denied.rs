//! Why a client may not make a call.

use std::time::Duration;

use jiff::Timestamp;

use super::{credit_limit::CreditLimit, rate::Rate};
use crate::{
    action::Action,
    problems::{self, Kind},
    types::{Address, ClientName, CreditAmount, Slug},
};

/// Why a client may not make a call. Nothing was signed or sent. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The client's time is over.
    #[error(
        "the access of client {client} ended at {ended}; ask the operator of the proxy to renew it, \
         with `agentpmt-proxy client revoke {client}` and `agentpmt-proxy client add {client} …`"
    )]
    Expired {
        /// The client.
        client: ClientName,
        /// When it ended.
        ended: Timestamp,
    },
    /// The client may not make this call.
    #[error(
        "client {client} may not call {action}; ask the operator of the proxy for a client that may, \
         with `agentpmt-proxy client add … --allow {action}`"
    )]
    Action {
        /// The client.
        client: ClientName,
        /// The call.
        action: &'static Action,
    },
    /// The client may not use this wallet.
    #[error(
        "client {client} may not use wallet {wallet}; ask the operator of the proxy for a client that \
         may, with `agentpmt-proxy client add … --wallet {wallet}`"
    )]
    Wallet {
        /// The client.
        client: ClientName,
        /// The wallet.
        wallet: Address,
    },
    /// The job is another client's.
    #[error(
        "another client of this proxy has reserved job {0} or submitted its proof; take another job, \
         or wait until that reservation ends"
    )]
    Holder(Slug),
    /// The client has submitted the job's proof.
    #[error(
        "the proof of job {0} is submitted already; ask for the job's status to see what became \
         of it"
    )]
    Submitted(Slug),
    /// The call needs a reservation, and there is none.
    #[error(
        "job {0} has no running reservation that was made through this proxy; reserve it first"
    )]
    NotHeld(Slug),
    /// The client calls more often than it may.
    #[error("client {client} may call {rate}")]
    TooFast {
        /// The client.
        client: ClientName,
        /// How often it may call.
        rate: Rate,
        /// When it may call again.
        wait: Duration,
    },
    /// The client holds as many reservations as it may.
    #[error("the client holds {running} reservations, which is as many as it may")]
    TooManyReservations {
        /// How many it holds.
        running: u32,
        /// When the first of them ends.
        until: Timestamp,
    },
    /// A person was asked about as many payments of the client in the last hour as may be.
    #[error("a person was asked about too many payments of the client in the last hour")]
    TooManyApprovals {
        /// When the first of them is an hour old.
        until: Timestamp,
    },
    /// The client's credits are limited, and a list of tools has other prices than that of the call.
    #[error(
        "client {0} may spend a limited number of credits, and the price of this call is not known: list \
         the tools through this proxy, with the page that has this one, and call it by its slug there"
    )]
    PriceUnknown(ClientName),
    /// The client has too few credits left for the call.
    #[error("client {client} may spend {limit} of credits, and {left} of them are left")]
    CreditLimit {
        /// The client.
        client: ClientName,
        /// How many credits it may spend.
        limit: CreditLimit,
        /// How many are left.
        left: CreditAmount,
        /// The price of the call, if that is known.
        price: Option<CreditAmount>,
        /// When there are enough; never, if the call costs more than the limit.
        until: Option<Timestamp>,
        /// Whether some are held for calls whose charge is not known.
        is_held: bool,
    },
}

impl Denied {
    /// Its row among the problems, whose code is also the reason in the journal.
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::Expired { .. } => &problems::ACCESS_ENDED,
            Self::Action { .. } | Self::Wallet { .. } => &problems::NOT_ALLOWED,
            Self::Holder(_) => &problems::HELD_BY_ANOTHER,
            Self::Submitted(_) => &problems::ALREADY_SUBMITTED,
            Self::NotHeld(_) => &problems::NOT_RESERVED,
            Self::TooFast { .. } => &problems::TOO_FAST,
            Self::TooManyReservations { .. } => &problems::TOO_MANY_RESERVATIONS,
            Self::TooManyApprovals { .. } => &problems::TOO_MANY_APPROVALS,
            Self::PriceUnknown(_) => &problems::PRICE_UNKNOWN,
            Self::CreditLimit { .. } => &problems::CREDIT_LIMIT,
        }
    }
}
