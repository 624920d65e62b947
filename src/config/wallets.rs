//! The wallets that are opened besides one another.

use std::path::PathBuf;

use super::{
    given::Given,
    mistake::Mistakes,
    value::{path, wallet},
};
use crate::types::Address;

/// The fields of a table. The first must be there.
pub(super) const FIELDS: [&str; 2] = ["address", "password_file"];

/// One of several wallets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletConfig {
    /// Its address.
    pub address: Address,
    /// The file whose first line is its password; without it, the password is that of all.
    pub password_file: Option<PathBuf>,
}

impl Given<'_> {
    /// An array of tables, each with the fields of a [`WalletConfig`].
    pub(super) fn wallets(&self) -> Result<Vec<WalletConfig>, Mistakes> {
        self.all(Given::wallet)
    }

    fn wallet(&self) -> Result<WalletConfig, Mistakes> {
        let (mut address, mut password_file) = (None, None);
        self.fields(&FIELDS, 1, |name, field| match name {
            "address" => field.one(wallet).map(|wallet| address = Some(wallet)),
            _ => field.optional(path).map(|path| password_file = path),
        })?;
        // `fields` has seen that it is there.
        let address = address.ok_or(Mistakes(Vec::new()))?;
        Ok(WalletConfig { address, password_file })
    }
}
