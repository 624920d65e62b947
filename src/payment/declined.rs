//! Why nothing is paid.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{challenge::Unfit, terms::PaymentTerms};
use crate::{
    policy::SpendLimit,
    problems::{self, Kind},
    types::{Address, Amount},
};

/// Why nothing is paid. Nothing was signed. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// Another wallet pays.
    #[error("wallet {wallet} does not pay; the one that does is {payer} (spending.wallet)")]
    Wallet {
        /// The wallet of the call.
        wallet: Address,
        /// The wallet that pays.
        payer: Address,
    },
    /// The key of the wallet that pays is not here.
    #[error(
        "spending.wallet is {0}, whose key this proxy does not hold; ask the operator to add its key file, \
         or to name another wallet"
    )]
    NoKey(Address),
    /// The URL that is to be paid for is not that of the call.
    #[error(
        "the upstream demands a payment for another URL than that of the call, which ends in {path}: {}",
        shortened(url)
    )]
    OtherResource {
        /// The URL.
        url: String,
        /// The path of the call.
        path: String,
    },
    /// The URL that is to be paid for is not listed.
    #[error("{} is not in spending.resources; ask the operator of the proxy to add it", shortened(.0))]
    Resource(String),
    /// The clocks differ, so that the end of a payment would not be what it seems.
    #[error(
        "the clocks of this machine and of the upstream differ by {} s; set the one that is wrong",
        by.as_secs().abs()
    )]
    Clocks {
        /// How far this machine's is ahead.
        by: SignedDuration,
    },
    /// The body has the proof of a signed call, too.
    #[error("session_nonce and signature are in the body: leave them out, as a call has one proof")]
    TwoProofs,
    /// No entry of the challenge is allowed.
    #[error("no entry of the upstream's demand may be paid{}", listed(.0))]
    NoOffer(Vec<Unfit>),
    /// The upstream asks for more than the credits cost.
    #[error("the upstream demands {amount} for credits that cost {price}")]
    Price {
        /// The amount.
        amount: Amount,
        /// The price by protocol §9.
        price: Amount,
    },
    /// The amount is more than a limit allows at any time.
    #[error(
        "the upstream demands {amount}, and {limit} allows {most}; ask the operator of the proxy"
    )]
    AboveLimit {
        /// The limit.
        limit: Limit,
        /// The most that it allows.
        most: Amount,
        /// The amount.
        amount: Amount,
    },
    /// Too much was spent already.
    #[error("the upstream demands {amount}, and {limit} leaves {left} until {until}")]
    LimitReached {
        /// The limit.
        limit: Limit,
        /// The amount that is left.
        left: Amount,
        /// When the limit allows the amount again.
        until: Timestamp,
        /// The amount.
        amount: Amount,
    },
    /// A payment of the wallet is not settled yet.
    #[error(
        "another payment of wallet {payer} is not settled, and there is one at a time; send the call \
         again when it is{}", end(.until)
    )]
    Open {
        /// The wallet that pays.
        payer: Address,
        /// When the authorisation of that payment has surely ended; none as long as the upstream waits for
        /// its transaction, or the payment is just being made.
        until: Option<Timestamp>,
    },
    /// The body does not say how many credits are to be bought.
    #[error("credits in the body must be a whole number")]
    Credits,
    /// The body does not say which wallet gets the credits.
    #[error("wallet_address is missing: the wallet that gets the credits, such as {payer}")]
    NoRecipient {
        /// The wallet that pays.
        payer: Address,
    },
    /// The credits would go to a wallet that is not here, or not for the client.
    #[error(
        "wallet_address must be a wallet of this proxy that the client may use, such as {payer}: credits are \
         bought for no other"
    )]
    Recipient {
        /// The wallet that pays.
        payer: Address,
    },
    /// The credits would go to another wallet than the one that pays, and the body does not say so.
    #[error(
        "wallet_address is not the wallet that pays; if that is meant, add \
         \"payer_wallet_address\": \"{payer}\" to the body"
    )]
    NoPayer {
        /// The wallet that pays.
        payer: Address,
    },
    /// The body says that another wallet pays.
    #[error("payer_wallet_address must be {payer}, the wallet that pays (spending.wallet)")]
    Payer {
        /// The wallet that pays.
        payer: Address,
    },
    /// A person has to approve so much.
    #[error("the upstream demands {}, and a person has to approve more than {above}", terms.amount)]
    Unapproved {
        /// The amount above which a person approves (`spending.approve_above`).
        above: Amount,
        /// The payment.
        terms: Box<PaymentTerms>,
    },
    /// A person was asked, and said no.
    #[error(
        "the operator of the proxy denied this payment; it can be asked for again after {until}"
    )]
    ByPerson {
        /// How long that counts.
        until: Timestamp,
    },
}

impl Declined {
    /// Its row among the problems, whose code is also the reason in the journal.
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::LimitReached { .. } => &problems::SPENDING_LIMIT,
            Self::Open { .. } => &problems::PAYMENT_OPEN,
            _ => &problems::PAYMENT_NOT_ALLOWED,
        }
    }
}

/// A limit of what is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// `spending.max_per_call`.
    PerCall,
    /// `spending.per_day`.
    PerDay,
    /// `spending.per_month`.
    PerMonth,
    /// The narrower one of the client.
    Client(Box<SpendLimit>),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerCall => f.write_str("spending.max_per_call"),
            Self::PerDay => f.write_str("spending.per_day"),
            Self::PerMonth => f.write_str("spending.per_month"),
            Self::Client(limit) => write!(f, "the client's limit of {limit}"),
        }
    }
}

/// So much of a URL of the upstream as an error repeats. It is ASCII.
fn shortened(url: &str) -> String {
    url.chars().take(200).collect()
}

fn end(until: &Option<Timestamp>) -> String {
    until.map(|until| format!(", at the latest after {until}")).unwrap_or_default()
}

fn listed(reasons: &[Unfit]) -> String {
    let reason = |(index, reason): (usize, &Unfit)| format!("; entry {}: {reason}", index + 1);
    reasons.iter().enumerate().map(reason).collect()
}
