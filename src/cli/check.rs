//! `check`: whether `serve` would start, and what it would do.

use std::iter;

use clap::Args;
use serde_json::json;

use super::{
    config_args::ConfigArgs,
    failure::Failure,
    listen,
    output::{complain, print},
    wallets::{self, LockedWallet},
};
use crate::{
    config::{Config, ListenAddress},
    http::{SocketFile, Tls},
    store::{Journal, check_usable},
    upstream::Upstream,
};

/// Check the configuration, the state and the key file, and print what `serve` would do
///
/// Nothing is sent, listened on or unlocked: a wrong password is not found.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy check --config proxy.toml")]
pub(super) struct Check {
    /// Where to listen: ADDRESS:PORT, unix:PATH or systemd; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Scheme, host and port of the API
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A line of the answer.
struct Finding {
    name: &'static str,
    /// `None` if it is not known; JSON then has `null`.
    value: Option<String>,
    /// The text for people, instead.
    otherwise: &'static str,
}

impl Check {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let settings = settings.with("listen", self.listen).with("upstream.url", self.upstream);
        let config = settings.load()?;
        let rows = rows(&config)?;
        if self.json {
            let row = |Finding { name, value, .. }| (name.to_owned(), json!(value));
            let rows: serde_json::Map<_, _> = rows.into_iter().map(row).collect();
            return print(&format!("{}\n", json!(rows)));
        }
        rows.iter().try_for_each(|Finding { name, value, otherwise }| {
            print(&format!("{name:15}{}\n", value.as_deref().unwrap_or(otherwise)))
        })
    }
}

fn rows(config: &Config) -> Result<[Finding; 10], Failure> {
    Upstream::new(&config.upstream)?;
    Tls::load(&config.tls)?;
    listen::require_client(config, &config.listen)?;
    match Journal::open(&config.database()) {
        Err(error) if error.is_missing() => {}
        journal => journal?.check_end()?,
    }
    check_usable(&config.database()).map_err(Failure::of_state)?;
    for address in &config.listen {
        if let ListenAddress::Unix(path) = address {
            SocketFile::check(path, &config.socket)?;
        }
    }
    let (callers, _) = listen::callers(config, &config.listen)?;
    let (first, others) = wallets::find(config)?;
    let locked: Vec<_> = iter::once(first).chain(others).collect();
    wallets::check_payer(config, locked.iter().map(|wallet| wallet.key.wallet()))?;
    for doubt in config.spending.doubts() {
        complain(format_args!("warning: {doubt}"));
    }
    locked.iter().try_for_each(|wallet| wallet.password.check())?;
    locked.iter().try_for_each(|wallet| wallet.key.check_memory())?;
    // They are unlocked one after the other.
    let memory = locked.iter().map(|wallet| wallet.key.memory()).max().unwrap_or_default();
    let source = config.source.as_ref().map(|path| path.display().to_string());
    let address = |wallet: &LockedWallet| wallet.key.wallet().map(|wallet| wallet.to_string());
    let addresses: Option<Vec<_>> = locked.iter().map(address).collect();
    let of_all =
        |text: fn(&LockedWallet) -> String| locked.iter().map(text).collect::<Vec<_>>().join(", ");
    let listeners = config.listen.iter().map(|address| listen::describe(address, config));
    let listeners: Vec<_> = listeners.collect();
    let row = |name, value, otherwise| Finding { name, value, otherwise };
    let known = |name, value| row(name, Some(value), "");
    Ok([
        row("configuration", source, "no file; defaults"),
        known("listen", listeners.join(", ")),
        known("callers", callers),
        known("state", config.state.display().to_string()),
        known("upstream", config.upstream.url.to_string()),
        row("wallet", addresses.map(|all| all.join(", ")), "known once it is unlocked"),
        known("key_file", of_all(|wallet| wallet.key.path().display().to_string())),
        known("unlock_memory", format!("{memory} MiB")),
        known("password_from", of_all(|wallet| wallet.password.describe())),
        row("payments", config.spending.describe(), "none, without [spending]"),
    ])
}
