//! The wallets that are opened besides one another, as they are written in a setting.

use std::path::PathBuf;

use super::{
    settings::Given,
    value::{self, InvalidSetting},
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

/// Wallets with commas between them, each an address, and if it has a password file of its own, `=`
/// and that file; none in an empty text.
pub(super) fn wallets(given: &Given<'_>) -> Result<Vec<WalletConfig>, InvalidSetting> {
    let items = given.text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let mut wallets: Vec<WalletConfig> = Vec::new();
    for item in items {
        let (address, file) = item.split_once('=').unwrap_or((item, ""));
        let address = address.trim().parse()?;
        if wallets.iter().any(|wallet| wallet.address == address) {
            return Err(InvalidSetting::TwiceTheWallet);
        }
        let password_file = value::optional_path(&Given { text: file, folder: given.folder })?;
        wallets.push(WalletConfig { address, password_file });
    }
    Ok(wallets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ONE: &str = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025";
    const OTHER: &str = "0x0000000000000000000000000000000000000001";

    fn parsed(text: &str) -> Result<Vec<WalletConfig>, InvalidSetting> {
        wallets(&Given { text, folder: Path::new("/etc/p") })
    }

    #[test]
    fn a_wallet_is_an_address_with_or_without_a_password_file() {
        let found = parsed(&format!("{ONE}=one.pw, {OTHER}")).unwrap();
        assert_eq!(found[0].address, ONE.parse().unwrap());
        assert_eq!(found[0].password_file.as_deref(), Some(Path::new("/etc/p/one.pw")));
        assert_eq!((found[1].address, &found[1].password_file), (OTHER.parse().unwrap(), &None));
        assert_eq!(parsed(""), Ok(vec![]));
    }

    #[test]
    fn no_wallet_is_there_twice_and_each_is_an_address() {
        assert_eq!(parsed(&format!("{ONE},{ONE}=x")), Err(InvalidSetting::TwiceTheWallet));
        assert!(matches!(parsed("0x17"), Err(InvalidSetting::Wallet(_))));
    }
}
