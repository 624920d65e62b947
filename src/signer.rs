//! The wallet key: in memory, and in files.

mod local;

pub mod keystore;

pub use self::local::{InvalidKey, Signer};
