//! `wallet`: key files, made, brought in, shown and changed.

mod light;

mod export;
mod passwd;

use std::{
    io::{IsTerminal, stdin},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use self::light::Light;
use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::{complain, print, tell},
    password, secret,
    wallets::{self, LockedWallet},
};
use crate::{
    config::Config,
    signer::{
        LocalKey,
        keystore::{Keystore, KeystoreError, LockedKey},
    },
    types::Address,
};

/// How much of standard input is read for a private key, in bytes.
const MAX_KEY_TEXT: usize = 1024;

/// Make, import, show and export wallets
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  agentpmt-proxy wallet new")]
pub(super) enum Wallet {
    New(New),
    Import(Import),
    List(List),
    Show(Show),
    Passwd(passwd::Passwd),
    Export(export::Export),
}

/// Make a new wallet and write it to a key file
///
/// It prints the address.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy wallet new")]
pub(super) struct New {
    #[command(flatten)]
    light: Light,
    /// Print JSON: the address and the file
    #[arg(long)]
    json: bool,
}

/// Bring in a private key or a key file
///
/// It prints the address.
///
/// Without FILE it takes a private key, 64 hexadecimal digits, from standard input or a hidden
/// prompt. With FILE it takes a V3 key file of geth, cast or eth_account, with its password.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy wallet import < key.txt\n  \
                        agentpmt-proxy wallet import UTC--2026-01-01T00-00-00Z--17c5…")]
pub(super) struct Import {
    /// A V3 key file
    file: Option<PathBuf>,
    #[command(flatten)]
    light: Light,
    /// Print JSON: the address and the file
    #[arg(long)]
    json: bool,
}

/// List the wallets that have a key file
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy wallet list --json")]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show the wallet that `serve` would use
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy wallet show")]
pub(super) struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Wallet {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let options = settings.as_options();
        let config = settings.load()?;
        let keystore = Keystore::new(&config.keys);
        match self {
            Self::New(new) => new.run(&config, &keystore, &options),
            Self::Import(import) => import.run(&config, &keystore, &options),
            Self::List(list) => list.run(&config, &keystore),
            Self::Show(show) => show.run(&config),
            Self::Passwd(passwd) => passwd.run(&config),
            Self::Export(export) => export.run(&config),
        }
    }
}

impl New {
    fn run(self, config: &Config, keystore: &Keystore, options: &str) -> Result<(), Failure> {
        let password = password::Source::of(config).choose()?;
        let signer = LocalKey::random();
        let path = keystore.save(&signer, &password, self.light.cost(&password))?;
        if self.json {
            return print_row(signer.address(), &path);
        }
        print_saved(signer.address(), &path, keystore, options)
    }
}

impl Import {
    fn run(self, config: &Config, keystore: &Keystore, options: &str) -> Result<(), Failure> {
        let source = password::Source::of(config);
        let (signer, password) = match &self.file {
            // It is written anew under the same password, so that every key file here is alike.
            Some(path) => {
                let key = read_key_file(path)?;
                if let Some(wallet) = key.wallet() {
                    keystore.check_absent(wallet)?;
                }
                source.unlock(&key)?
            }
            None => {
                let signer = read_key()?;
                keystore.check_absent(signer.address())?;
                (signer, source.choose()?)
            }
        };
        let path = keystore.save(&signer, &password, self.light.cost(&password))?;
        if self.json {
            return print_row(signer.address(), &path);
        }
        print_saved(signer.address(), &path, keystore, options)
    }
}

fn print_row(wallet: Address, path: &Path) -> Result<(), Failure> {
    print(&format!("{}\n", row(Some(wallet), path)))
}

fn print_saved(
    wallet: Address,
    path: &Path,
    keystore: &Keystore,
    options: &str,
) -> Result<(), Failure> {
    let choice = match keystore.list()?.len() {
        0 | 1 => String::new(),
        _ => format!(" --wallet {wallet}"),
    };
    print(&format!("{wallet}\n"))?;
    tell(&format!(
        "The key is in {}. Keep a copy of that file and of its password: without both, \
         the wallet is lost.\nStart the proxy from the same folder with: agentpmt-proxy serve{options}{choice}\n",
        path.display()
    ));
    Ok(())
}

/// A key file that comes from elsewhere; unlike those that are used, it may be open to others.
fn read_key_file(path: &Path) -> Result<LockedKey, Failure> {
    if path.to_str().is_some_and(|text| LocalKey::from_hex(text).is_ok()) {
        return Err(Failure::KeyAsArgument);
    }
    Ok(LockedKey::read(path.to_owned())?)
}

/// The private key from standard input, or from a hidden prompt if that is a terminal.
fn read_key() -> Result<LocalKey, Failure> {
    if stdin().is_terminal() {
        let key = password::prompt("Private key (64 hexadecimal digits): ", Failure::NoKeyTyped)?;
        return Ok(LocalKey::from_hex(key.expose_secret())?);
    }
    let io = |cause| Failure::Io { doing: "read", path: "standard input".into(), cause };
    let text = secret::input().and_then(|input| secret::read(input, MAX_KEY_TEXT)).map_err(io)?;
    if text.trim_ascii().is_empty() {
        return Err(Failure::NoKey);
    }
    // Bytes that are no text are no key either.
    Ok(LocalKey::from_hex(str::from_utf8(&text).unwrap_or_default())?)
}

impl List {
    fn run(self, config: &Config, keystore: &Keystore) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for key in keystore.list()? {
            match key {
                Ok(key) => rows.push(key),
                Err(error) => complain(&error),
            }
        }
        if self.json {
            let rows: Vec<_> = rows.iter().map(as_json).collect();
            return print(&format!("{}\n", json!(rows)));
        }
        if rows.is_empty() {
            complain(KeystoreError::Empty(config.keys.clone()));
        }
        rows.iter().try_for_each(|key| print(&as_line(key)))
    }
}

impl Show {
    fn run(self, config: &Config) -> Result<(), Failure> {
        let LockedWallet { key, .. } = wallets::first(config)?;
        if self.json { print(&format!("{}\n", as_json(&key))) } else { print(&as_line(&key)) }
    }
}

fn as_json(key: &LockedKey) -> Value {
    row(key.wallet(), key.path())
}

fn row(wallet: Option<Address>, path: &Path) -> Value {
    json!({
        "wallet": wallet.map(|wallet| wallet.to_string()),
        "file": path.display().to_string(),
    })
}

fn as_line(key: &LockedKey) -> String {
    let wallet = key.wallet().map_or("(address not stated)".to_owned(), |w| w.to_string());
    format!("{wallet:42}  {}\n", key.path().display())
}
