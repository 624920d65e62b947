//! Paying by x402 (protocol §9). Without `[spending]` in the configuration nothing is ever paid.
//!
//! Only [`Spending`] makes a [`Payment`], which is all that a wallet signs besides a message; so no
//! upstream chooses the contract, the payee or the amount that a signature is good for.

mod challenge;
mod terms;
mod typed_data;

mod declined;

mod envelope;

mod spending;

pub use self::{
    challenge::{Challenge, InvalidChallenge, Unfit},
    declined::{Declined, Limit},
    envelope::{Payment, SponsorMessage},
    spending::{Fresh, PaymentRecord, Purchase, Spender, Spending, Spent},
    terms::PaymentTerms,
    typed_data::{Authorization, AuthorizationNonce, Domain},
};

pub(crate) use spending::MAX_SECONDS;

#[cfg(test)]
mod tests;
