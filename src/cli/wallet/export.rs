//! `wallet export`: a copy of a key for another program, under a password of its own.

use std::{
    io::{IsTerminal, stdin},
    path::PathBuf,
};

use clap::Args;

use crate::{
    cli::{
        failure::Failure,
        new_password::NewPassword,
        output::{check_new, complain, print},
        wallets::{self, LockedWallet},
    },
    config::Config,
    signer::keystore::{self, KeystoreError},
    store::{Deed, record_deed},
    types::Address,
};

/// How many digits of the address confirm an export, at least.
const DIGITS: usize = 4;

/// Write a copy of a wallet's key file, under a password of its own
///
/// The copy is a V3 key file for geth, cast or eth_account. Since the copy and its password are all that
/// a thief needs, the last four digits of the address have to be typed; a script passes them on standard
/// input.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy wallet export copy.json\n  \
                        echo d025 | agentpmt-proxy wallet export --new-password-file new > copy.json")]
pub(in crate::cli) struct Export {
    /// The file to write, which must be new; standard output without it
    file: Option<PathBuf>,
    #[command(flatten)]
    new: NewPassword,
}

impl Export {
    pub(super) fn run(self, config: &Config) -> Result<(), Failure> {
        // Before a password is typed in vain.
        self.file.as_deref().map_or(Ok(()), check_new)?;
        let LockedWallet { key, password, .. } = wallets::first(config)?;
        let (signer, _) = password.unlock(&key)?;
        confirm(signer.address())?;
        let password = self.new.choose("Password for the copy: ")?;
        record_deed(&config.database(), Deed::WalletExport(signer.address()))?;
        let copy = keystore::ExportedKey::new(&signer, &password)
            .map_err(|cause| KeystoreError::File { path: key.path().to_owned(), cause })?;
        match self.file {
            Some(path) => Ok(copy.save(&path)?),
            None => print(&copy.to_json()),
        }
    }
}

/// Has the end of the address typed, by a person or a script that means it.
fn confirm(wallet: Address) -> Result<(), Failure> {
    if stdin().is_terminal() {
        complain(format_args!("type the last {DIGITS} digits of {wallet} to export its key:"));
    }
    let mut typed = String::new();
    let io = |cause| Failure::Io { doing: "read", path: "standard input".into(), cause };
    stdin().read_line(&mut typed).map_err(io)?;
    let typed = typed.trim().to_lowercase();
    let is_end = typed.len() >= DIGITS && wallet.to_string().ends_with(&typed);
    if is_end { Ok(()) } else { Err(Failure::NotConfirmed(wallet)) }
}
