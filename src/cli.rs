//! The commands. Each reads the configuration, does one thing, and prints its result to standard
//! output; words for people and logs go to standard error.

mod failure;
mod option;
mod secret;

mod config_args;
mod environment;
mod listen;
mod log;
mod process;
mod signals;

mod output;
mod reload;
mod runtime;

mod password;
mod remote;
mod sandbox_state;
mod unused;

mod new_password;
mod wallets;

mod approvals;
mod backup;
mod check;
mod client;
mod events;
mod explain;
mod freeze;
mod journal;
mod manual;
mod openapi;
mod payments;
mod sandbox;
mod wait;
mod wallet;

mod serve;

mod mcp;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use self::config_args::ConfigArgs;
pub use self::{failure::Failure, output::end};

/// The heading of the options that every command takes.
const COMMON: &str = "Options of every command";

/// Signs calls to the AgentPMT external API for programs that hold no key: they send plain HTTP
/// requests to this proxy, which hashes, signs and forwards them.
#[derive(Debug, Parser)]
#[command(name = "agentpmt-proxy", version, arg_required_else_help = true)]
#[command(after_help = "Example, to try it with nothing to set up:\n  \
                        agentpmt-proxy serve --sandbox\n\n\
                        Example, to use it:\n  \
                        agentpmt-proxy wallet new\n  \
                        agentpmt-proxy serve\n\n\
                        The manual, by topics:\n  agentpmt-proxy manual")]
pub struct Cli {
    /// File with the settings; proxy.toml in the current directory if it is there
    #[arg(long, global = true, value_name = "FILE", help_heading = COMMON)]
    #[arg(env = "AGENTPMT_PROXY_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Folder with the key files
    #[arg(long, global = true, value_name = "FOLDER", help_heading = COMMON)]
    keys: Option<String>,
    /// Folder for what must survive a restart
    #[arg(long, global = true, value_name = "FOLDER", help_heading = COMMON)]
    state: Option<String>,
    /// Address of the wallet to use; needed only if there are several
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = COMMON)]
    wallet: Option<String>,
    /// File whose first line is the wallet's password; AGENTPMT_PROXY_PASSWORD overrides it
    #[arg(long, global = true, value_name = "FILE", help_heading = COMMON)]
    password_file: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Sandbox(sandbox::SandboxCommand),
    #[command(subcommand)]
    Wallet(wallet::Wallet),
    Explain(explain::Explain),
    Check(check::Check),
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    #[command(subcommand)]
    Client(client::ClientCommand),
    Approvals(approvals::ApprovalsCommand),
    Payments(payments::PaymentsCommand),
    Events(events::EventsCommand),
    Freeze(freeze::FreezeCommand),
    Thaw(freeze::ThawCommand),
    Backup(backup::Backup),
    Wait(wait::Wait),
    Openapi(openapi::Openapi),
    Mcp(mcp::McpCommand),
    Manual(manual::Manual),
}

impl Cli {
    /// Runs the command to its end. [`end`] comes next.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(self) -> Result<(), Failure> {
        process::close_memory()?;
        signals::outlive_full_files()?;
        let settings = ConfigArgs::of_file(self.config)
            .with("keys", self.keys)
            .with("state", self.state)
            .with("wallet", self.wallet)
            .with("password_file", self.password_file);
        match self.command {
            Command::Serve(serve) => serve.run(settings),
            Command::Sandbox(sandbox) => sandbox.run(settings),
            Command::Wallet(wallet) => wallet.run(settings),
            Command::Explain(explain) => explain.run(settings),
            Command::Check(check) => check.run(settings),
            Command::Journal(journal) => journal.run(settings),
            Command::Client(client) => client.run(settings),
            Command::Approvals(approvals) => approvals.run(settings),
            Command::Payments(payments) => payments.run(settings),
            Command::Events(events) => events.run(settings),
            Command::Freeze(freeze) => freeze.run(settings),
            Command::Thaw(thaw) => thaw.run(settings),
            Command::Backup(backup) => backup.run(settings),
            Command::Wait(wait) => wait.run(settings),
            Command::Openapi(openapi) => openapi.run(),
            Command::Mcp(mcp) => mcp.run(settings),
            Command::Manual(manual) => manual.run(),
        }
    }
}
