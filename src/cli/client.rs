//! `client`: who may call the proxy.

mod add;
mod list;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::{add::Add, list::List};
use super::{Failure, Settings, complain, print, tell};
use crate::{config::Config, store::Clients, types::ClientName};

/// Say who may call the proxy, and what
///
/// As long as no client was added, everyone who reaches the proxy on this machine may do everything.
/// From the first on, every caller has to be a client. A proxy that runs follows at once.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  agentpmt-proxy client add ci --allow jobs")]
pub(super) enum Client {
    Add(Box<Add>),
    List(List),
    Revoke(Revoke),
    Remove(Remove),
}

/// Take a client's access away, at once
///
/// Its name stays on the list, and callers still have to be clients, also when this was the last.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy client revoke ci")]
pub(super) struct Revoke {
    /// The name of the client
    name: ClientName,
}

/// Take a revoked client off the list
///
/// When none is left, everyone who reaches the proxy on this machine may do everything again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy client remove ci")]
pub(super) struct Remove {
    /// The name of the client
    name: ClientName,
}

impl Client {
    pub(super) fn run(self, settings: Settings) -> Result<(), Failure> {
        let config = settings.load([])?;
        match self {
            Self::Add(add) => add.run(&config),
            Self::List(list) => list.run(&config),
            Self::Revoke(revoke) => revoke.run(&config),
            Self::Remove(remove) => remove.run(&config),
        }
    }
}

impl Revoke {
    fn run(self, config: &Config) -> Result<(), Failure> {
        Clients::open(&config.database())?.revoke(&self.name, Timestamp::now())?;
        tell(&format!("{} is revoked: its next call is refused.\n", self.name));
        Ok(())
    }
}

impl Remove {
    fn run(self, config: &Config) -> Result<(), Failure> {
        let last = Clients::open(&config.database())?.remove(&self.name)?;
        tell(&format!("{} is removed.\n", self.name));
        if last {
            tell(
                "It was the last client: everyone who reaches the proxy on this machine may do \
                 everything again.\n",
            );
        }
        Ok(())
    }
}
