//! `client`: who may call the proxy.

mod limits;
mod list;

mod add;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::{add::Add, list::List};
use super::{config_args::ConfigArgs, failure::Failure, output::tell, unused::tell_if_unused};
use crate::{
    config::{ClientsAre, Config},
    store::Clients,
    types::ClientName,
};

/// Add, list and revoke the clients that may call the proxy
///
/// As long as there is no client, every program that reaches the proxy on this machine may do
/// everything. From the first client on, every caller has to be one. A running proxy follows at once.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  agentpmt-proxy client add ci --allow jobs")]
pub(super) enum ClientCommand {
    Add(Box<Add>),
    List(List),
    Revoke(Revoke),
    Remove(Remove),
}

/// Take a client's access away, at once
///
/// Its name stays on the list. Callers still have to be clients, even if this was the last one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy client revoke ci")]
pub(super) struct Revoke {
    /// The name of the client
    name: ClientName,
}

/// Take a revoked client off the list
///
/// When no client is left, every program that reaches the proxy on this machine may do everything
/// again, unless the setting `clients` is `required`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy client remove ci")]
pub(super) struct Remove {
    /// The name of the client
    name: ClientName,
}

impl ClientCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.load()?;
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
        let clients = Clients::open(&config.database())?;
        clients.revoke(&self.name, Timestamp::now())?;
        tell(&format!("{} is revoked: its next call is refused.\n", self.name));
        tell_if_unused(config)
    }
}

impl Remove {
    fn run(self, config: &Config) -> Result<(), Failure> {
        let clients = Clients::open(&config.database())?;
        let last = clients.remove(&self.name)?;
        tell(&format!("{} is removed.\n", self.name));
        if last {
            tell(if config.clients == ClientsAre::Required {
                "It was the last client: no call is taken, and no proxy starts, until one is added.\n"
            } else {
                "It was the last client: every program that reaches the proxy on this machine may \
                 do everything again.\n"
            });
        }
        tell_if_unused(config)
    }
}
