//! The wallets that are opened besides one another.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{
    given::{Given, Value},
    mistake::{Mistakes, nearest, unknown},
    value::{path, wallet},
};
use crate::types::Address;

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
        let Value::Toml(DeValue::Table(table)) = self.value else {
            return Err(self.mistake(self.wrong_type("tables, as in [[wallets]]")));
        };
        let (mut address, mut password_file, mut mistakes) = (None, None, Vec::new());
        if !table.contains_key("address") {
            mistakes.extend(self.mistake("a table of it lacks address".into()).0);
        }
        let mut fields: Vec<_> = table.iter().collect();
        fields.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in fields {
            let field = self.part(value, &format!("{}.{}", self.key, name.get_ref()));
            let read = match &**name.get_ref() {
                "address" => field.one(wallet).map(|wallet| address = Some(wallet)),
                "password_file" => field.optional(path).map(|path| password_file = path),
                name => {
                    let near = nearest(name, ["address", "password_file"].into_iter());
                    Err(field.mistake(unknown(near)))
                }
            };
            mistakes.extend(read.err().into_iter().flat_map(|wrong| wrong.0));
        }
        match address {
            Some(address) if mistakes.is_empty() => Ok(WalletConfig { address, password_file }),
            _ => Err(Mistakes(mistakes)),
        }
    }
}
