//! The rights of clients. A call that no rule allows is denied. Only [`Client::permit`] makes a
//! [`Permit`]; [`Permit::status_probe`] derives the one for the status probe of the same call.

mod allow;
mod rate;
mod spend_limit;

mod credit_limit;

mod denied;

mod client;

mod permit;

pub use self::{
    allow::{Allow, InvalidAllow},
    client::Client,
    credit_limit::{CreditLimit, InvalidCreditLimit},
    denied::Denied,
    permit::{Permit, SignedPermit},
    rate::{InvalidRate, Rate},
    spend_limit::{InvalidSpendLimit, SpendLimit, SpendWindow},
};
