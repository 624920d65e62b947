//! `wallet passwd`: another password for a wallet.

use clap::Args;

use super::light::Light;
use crate::{
    cli::{
        failure::Failure,
        new_password::NewPassword,
        output::{print, tell},
        wallets::{self, LockedWallet},
    },
    config::Config,
};

/// Change the password of a wallet
///
/// Without a terminal, the old password comes from the same place as for `serve`, and the new one from
/// --new-password-file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy wallet passwd\n  \
                        agentpmt-proxy wallet passwd --password-file old --new-password-file new")]
pub(in crate::cli) struct Passwd {
    #[command(flatten)]
    new: NewPassword,
    #[command(flatten)]
    light: Light,
}

impl Passwd {
    pub(super) fn run(self, config: &Config) -> Result<(), Failure> {
        let LockedWallet { key, password, .. } = wallets::first(config)?;
        let (signer, _) = password.unlock(&key)?;
        let password = self.new.choose("New password for the wallet: ")?;
        key.rewrite(&signer, &password, self.light.cost(&password))?;
        print(&format!("{}\n", signer.address()))?;
        tell(&format!(
            "Its key file {} has the new password. Copies of it that were made before still open \
             with the old one.\n",
            key.path().display()
        ));
        Ok(())
    }
}
