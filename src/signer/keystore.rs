//! The directory of wallets: one file a private key, under a password.
//!
//! The files are those of geth, `cast wallet` and `eth_account`, so that a key moves in and out
//! with known tools.
//!
//! Nothing here is async. Whoever opens or saves a key on an async runtime does it on a thread for
//! blocking work, since the key derivation takes about a second and 256 MiB.

mod bare_address;
mod error;
mod kdf;
mod permissions;

mod key_file;

mod locked_key;

mod keys;

pub use self::{
    error::KeysError,
    kdf::KdfError,
    key_file::{KeyFile, KeyFileError},
    keys::{Entry, Keys},
    locked_key::LockedKey,
};
