//! The signatures of a wallet.
//!
//! There is no function here that signs bytes: the key signs messages and payments of this program and
//! nothing else, so that no bug elsewhere makes it sign another text.

mod error;
mod local;

pub mod keystore;

#[cfg(test)]
mod scripted;

#[cfg(test)]
pub(crate) use self::scripted::{Script, Scripted};
pub use self::{
    error::SignerError,
    local::{InvalidKey, LocalKey},
};
use crate::{
    message::Message,
    payment::{Payment, SponsorMessage},
    types::{Address, Signature},
};

/// Signs for one wallet.
#[derive(Debug)]
pub enum Signer {
    /// A key in memory, which signs without waiting.
    Local(LocalKey),
    /// A key that a test lets sign, or keeps from it.
    #[cfg(test)]
    Scripted(Scripted),
}

impl Signer {
    /// The address of the wallet.
    pub fn address(&self) -> Address {
        match self {
            Self::Local(key) => key.address(),
            #[cfg(test)]
            Self::Scripted(signer) => signer.key.address(),
        }
    }

    /// Whether a signature is waited for, as from a signer on another machine.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Local(_))
    }

    /// Signs a message.
    ///
    /// # Errors
    /// See [`SignerError`]. A key in memory always signs.
    pub async fn sign(&self, message: &Message) -> Result<Signature, SignerError> {
        match self {
            Self::Local(key) => Ok(key.sign(message)),
            #[cfg(test)]
            Self::Scripted(signer) => signer.sign(message).await,
        }
    }

    /// Signs a payment.
    ///
    /// # Errors
    /// See [`SignerError`]. A key in memory always signs.
    pub async fn sign_payment(&self, payment: &Payment) -> Result<Signature, SignerError> {
        match self {
            Self::Local(key) => Ok(key.sign_payment(payment)),
            #[cfg(test)]
            Self::Scripted(signer) => Ok(signer.key.sign_payment(payment)),
        }
    }

    /// Signs the message by which a payer gives credits to another wallet.
    ///
    /// # Errors
    /// See [`SignerError`]. A key in memory always signs.
    pub async fn sign_sponsor_message(
        &self,
        message: &SponsorMessage,
    ) -> Result<Signature, SignerError> {
        match self {
            Self::Local(key) => Ok(key.sign_sponsor_message(message)),
            #[cfg(test)]
            Self::Scripted(signer) => Ok(signer.key.sign_sponsor_message(message)),
        }
    }
}

impl From<LocalKey> for Signer {
    fn from(key: LocalKey) -> Self {
        Self::Local(key)
    }
}
