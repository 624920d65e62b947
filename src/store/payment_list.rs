//! The payments as a person sees them, and the end of one that waits for its transaction, by a command.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    db::{Db, Row},
    deed::{Deed, user},
    error::{Fault, StoreError},
    file,
    payment_rows::{self, MARGIN, PAYMENT},
    record::append_deed,
};
use crate::{
    payment::AuthorizationNonce,
    types::{Address, BaseUnits},
};

/// A payment on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPayment {
    /// The number of its authorisation, which is also its id.
    pub nonce: AuthorizationNonce,
    /// The client that pays.
    pub client: String,
    /// How much.
    pub amount: BaseUnits,
    /// The contract of its token.
    pub asset: Option<Address>,
    /// The entry of the demand that is paid, and its resource.
    pub demand: [Value; 2],
    /// When it was recorded.
    pub recorded: Timestamp,
    /// When its authorisation has surely ended.
    pub over: Timestamp,
    /// The transaction that is to settle it.
    pub transaction: Option<String>,
    /// Its state.
    pub state: PaymentState,
}

/// How a payment stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Its authorisation may still be cashed.
    Open,
    /// The upstream waits for its transaction, and other purchases of the wallet wait for that.
    Pending,
    /// Its authorisation has ended, and it is not known whether it was cashed.
    Unknown,
    /// It was made.
    Settled,
    /// It was not made, and does not count.
    Returned,
}

/// Why a payment is not ended.
#[derive(Debug, thiserror::Error)]
pub enum EndPaymentError {
    /// There is none with this number.
    #[error("there is no payment {0}; `agentpmt-proxy payments --all` shows those there are")]
    NoPayment(AuthorizationNonce),
    /// No other payment waits for it.
    #[error("payment {nonce} is {}, so no other payment waits for it", state.as_str())]
    NotPending {
        /// Its number.
        nonce: AuthorizationNonce,
        /// How it stands.
        state: PaymentState,
    },
    /// It can still be cashed.
    #[error(
        "payment {nonce} can still be cashed, so a second one beside it could be, too; end it after {over}"
    )]
    Live {
        /// Its number.
        nonce: AuthorizationNonce,
        /// When its authorisation has surely ended.
        over: Timestamp,
    },
}

impl PaymentState {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Settled => "settled",
            Self::Returned => "returned",
        }
    }

    /// Whether it is known what became of the payment.
    pub fn is_known(self) -> bool {
        matches!(self, Self::Settled | Self::Returned)
    }
}

impl ListedPayment {
    /// The payment for programs.
    pub fn to_json(&self) -> Value {
        let [accepted, resource] = &self.demand;
        json!({
            "id": self.nonce.to_string(),
            "state": self.state.as_str(),
            "client": self.client,
            "base_units": self.amount.to_string(),
            "asset": accepted["asset"],
            "network": accepted["network"],
            "payee": accepted["payTo"],
            "resource": resource["url"],
            "recorded": self.recorded.to_string(),
            "ends": self.over.to_string(),
            "transaction_hash": self.transaction,
        })
    }
}

/// The payments of the last 30 days in the database at this path, the last one first.
///
/// # Errors
/// They cannot be read.
pub fn payments(path: &Path, now: Timestamp) -> Result<Vec<ListedPayment>, StoreError> {
    file::read(path, |db| all(db, now))
}

/// Ends a payment that waits for its transaction, by a command: other purchases of the wallet no longer wait for
/// it, and it goes on counting.
///
/// # Errors
/// It could not be read or written. Or it is not one to end, which is the inner error.
pub fn end_payment(
    path: &Path,
    nonce: AuthorizationNonce,
    now: Timestamp,
) -> Result<Result<(), EndPaymentError>, StoreError> {
    file::change(path, |db| {
        let found = all(db, now)?.into_iter().find(|payment| payment.nonce == nonce);
        let Some(ListedPayment { state, over, .. }) = found else {
            return Ok(Err(EndPaymentError::NoPayment(nonce)));
        };
        if state != PaymentState::Pending {
            return Ok(Err(EndPaymentError::NotPending { nonce, state }));
        }
        if over > now {
            return Ok(Err(EndPaymentError::Live { nonce, over }));
        }
        payment_rows::end(db, &nonce.to_string())?;
        append_deed(db, Deed::EndPayment(nonce), &user()).map(Ok)
    })
}

fn all(db: &Db, now: Timestamp) -> Result<Vec<ListedPayment>, Fault> {
    payment_rows::all(db, now, |row| listed(row, now))
}

fn listed(row: &Row<'_>, now: Timestamp) -> Result<ListedPayment, Fault> {
    let malformed = || Fault::Malformed(PAYMENT);
    let amount: u64 = row.int(2)?;
    let demand = [row.text(3)?, row.text(4)?].map(serde_json::from_str);
    let [accepted, resource]: [Result<Value, _>; 2] = demand;
    let demand = [accepted.map_err(|_| malformed())?, resource.map_err(|_| malformed())?];
    let over = Timestamp::from_second(row.int::<i64>(6)?.saturating_add(MARGIN));
    let over = over.map_err(|_| malformed())?;
    let transaction = row.opt_text(7)?.map(str::to_owned);
    let state = match (row.text(8)?, &transaction) {
        ("settled", _) => PaymentState::Settled,
        ("returned", _) => PaymentState::Returned,
        (_, Some(_)) if row.flag(9)? => PaymentState::Settled,
        (_, Some(_)) => PaymentState::Pending,
        _ if over > now => PaymentState::Open,
        _ => PaymentState::Unknown,
    };
    Ok(ListedPayment {
        nonce: row.parsed(0, PAYMENT)?,
        client: row.text(1)?.to_owned(),
        amount: BaseUnits::new(amount.into()),
        asset: demand[0]["asset"].as_str().and_then(|asset| asset.parse().ok()),
        demand,
        recorded: row.time(5)?,
        over,
        transaction,
        state,
    })
}
