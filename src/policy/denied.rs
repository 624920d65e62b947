//! Why a client may not make a call.

use std::time::Duration;

use jiff::Timestamp;

use super::rate::Rate;
use crate::{
    action::Action,
    types::{Address, ClientName, Slug},
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
        "another client of this proxy has reserved job {job} or submitted its proof; take another job, \
         or wait until that reservation ends"
    )]
    Holder {
        /// The job.
        job: Slug,
    },
    /// The client has submitted the job's proof.
    #[error(
        "the proof of job {job} is submitted already; ask for the job's status to see what became \
         of it"
    )]
    Submitted {
        /// The job.
        job: Slug,
    },
    /// The call needs a reservation, and there is none.
    #[error(
        "job {job} has no running reservation that was made through this proxy; reserve it first"
    )]
    NotHeld {
        /// The job.
        job: Slug,
    },
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
}

impl Denied {
    /// The reason in a word, for the journal: the `code` that the client gets.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "access_ended",
            Self::Action { .. } | Self::Wallet { .. } => "not_allowed",
            Self::Holder { .. } => "held_by_another",
            Self::Submitted { .. } => "already_submitted",
            Self::NotHeld { .. } => "not_reserved",
            Self::TooFast { .. } => "rate_exceeded",
            Self::TooManyReservations { .. } => "too_many_reservations",
        }
    }
}
