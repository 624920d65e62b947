//! A payment as a person is asked about it.

use crate::types::{Address, Amount, Network};

/// The payment that a person is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentTerms {
    /// The URL that is paid for.
    pub resource: String,
    /// The chain of the payment.
    pub network: Network,
    /// The contract of its token.
    pub asset: Address,
    /// The address that is paid.
    pub payee: Address,
    /// How much, in the unit of the token.
    pub amount: Amount,
}
