//! The wallets that `serve` opens.

use std::iter;

use secrecy::SecretString;

use super::{failure::Failure, password::Source};
use crate::{
    config::{Config, WalletConfig},
    signer::{
        LocalKey,
        keystore::{Keystore, LockedKey},
    },
    types::Address,
};

/// A wallet that waits for its password.
pub(super) struct LockedWallet {
    pub(super) key: LockedKey,
    /// Where its password comes from.
    pub(super) password: Source,
    /// Whether all wallets without a source of their own have the same.
    is_common: bool,
}

/// Wallets that are open.
pub(super) struct Wallets {
    /// The default wallet, for clients without one of their own.
    pub(super) first: LocalKey,
    pub(super) others: Vec<LocalKey>,
}

impl Wallets {
    pub(super) fn iter(&self) -> impl Iterator<Item = &LocalKey> {
        iter::once(&self.first).chain(&self.others)
    }
}

/// The wallets of `[[wallets]]`, or the only one there is. First comes the default wallet, which `wallet`
/// names, for clients without one of their own.
pub(super) fn find(config: &Config) -> Result<(LockedWallet, Vec<LockedWallet>), Failure> {
    let keystore = Keystore::new(&config.keys);
    let locked = |wallet: &WalletConfig| {
        let own = wallet.password_file.clone().map(Source::File);
        let is_common = own.is_none();
        let password = own.unwrap_or_else(|| Source::of(config));
        Ok(LockedWallet { key: keystore.find(Some(wallet.address))?, password, is_common })
    };
    let mut wallets = config.wallets.clone();
    wallets.sort_by_key(|wallet| Some(wallet.address) != config.wallet);
    let Some((first, others)) = wallets.split_first() else {
        let key = keystore.find(config.wallet)?;
        return Ok((
            LockedWallet { key, password: Source::of(config), is_common: true },
            Vec::new(),
        ));
    };
    let first = locked(first)?;
    let others: Result<_, Failure> = others.iter().map(locked).collect();
    Ok((first, others?))
}

/// The wallet that is used where there is one: the first of those that [`find`] gives.
pub(super) fn first(config: &Config) -> Result<LockedWallet, Failure> {
    Ok(find(config)?.0)
}

/// Refuses a payer that is none of these wallets. A wallet whose address is not known may be it.
pub(super) fn check_payer(
    config: &Config,
    mut wallets: impl Iterator<Item = Option<Address>>,
) -> Result<(), Failure> {
    let Some(payer) = config.spending.wallet else { return Ok(()) };
    let is_held = wallets.any(|wallet| wallet.is_none_or(|wallet| wallet == payer));
    if is_held { Ok(()) } else { Err(Failure::PayerNotHeld(payer)) }
}

/// Opens all wallets, each once and before there is a runtime: the key derivation takes about a second,
/// and no async thread waits for it.
pub(super) fn unlock(config: &Config) -> Result<Wallets, Failure> {
    let mut common: Option<SecretString> = None;
    let mut unlock = |LockedWallet { key, password, is_common }: LockedWallet| {
        // At a prompt, each is asked for; any other common source is read once.
        let is_shared = is_common && !matches!(password, Source::Prompt);
        if let Some(secret) = common.as_ref().filter(|_| is_shared) {
            return password.unlock_with(&key, secret);
        }
        let (signer, secret) = password.unlock(&key)?;
        common = common.take().or(is_shared.then_some(secret));
        Ok(signer)
    };
    let (first, others) = find(config)?;
    let all = iter::once(&first).chain(&others);
    check_payer(config, all.map(|locked| locked.key.wallet()))?;
    let first = unlock(first)?;
    let others: Result<_, Failure> = others.into_iter().map(unlock).collect();
    let wallets = Wallets { first, others: others? };
    check_payer(config, wallets.iter().map(|key| Some(key.address())))?;
    Ok(wallets)
}
