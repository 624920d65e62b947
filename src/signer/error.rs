//! Why there is no signature.

use crate::types::Address;

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The signer took too long, or was busy with other messages.
    #[error("the signer of wallet {0} did not sign in time")]
    TimedOut(Address),
    /// The signer refused, or cannot be asked.
    #[error("the signer of wallet {wallet} did not sign: {cause}")]
    Failed {
        /// The wallet.
        wallet: Address,
        /// Its answer, or why it cannot be asked.
        cause: String,
    },
}
