//! The commands. Each reads the configuration, does one thing, and prints its result to standard
//! output; words for people and logs go to standard error.

mod backup;
mod check;
mod client;
mod environment;
mod explain;
mod failure;
mod journal;
mod listen;
mod log;
mod manual;
mod new_password;
mod password;
mod process;
mod reload;
mod sandbox;
mod sandbox_state;
mod secret;
mod serve;
mod signals;
mod wait;
mod wallet;
mod wallets;

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stderr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::{Parser, Subcommand};
use jiff::{Span, Timestamp, ZonedDateTime, tz::TimeZone};

pub use self::failure::Failure;
use crate::config::Config;

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
    Sandbox(sandbox::Sandbox),
    #[command(subcommand)]
    Wallet(wallet::Wallet),
    Explain(explain::Explain),
    Check(check::Check),
    #[command(subcommand)]
    Journal(journal::Journal),
    #[command(subcommand)]
    Client(client::Client),
    Backup(backup::Backup),
    Wait(wait::Wait),
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
        let settings = Settings { file: self.config, flags: Vec::new() }
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
            Command::Backup(backup) => backup.run(settings),
            Command::Wait(wait) => wait.run(settings),
            Command::Manual(manual) => manual.run(),
        }
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone)]
struct Settings {
    file: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
}

impl Settings {
    /// The same with the values of one more option.
    fn with(mut self, key: &'static str, values: impl IntoIterator<Item = String>) -> Self {
        self.flags.extend(values.into_iter().map(|value| (key, value)));
        self
    }

    /// The options by which `serve` gets the same, but for the wallet.
    fn as_options(&self) -> String {
        let file = self.file.as_ref().map(|path| ("config", path.display().to_string()));
        let flags = self.flags.iter().filter(|(key, _)| *key != "wallet").cloned();
        let option = |(key, value): (&str, String)| {
            format!(" --{} {}", key.replace('_', "-"), in_shell(&value))
        };
        file.into_iter().chain(flags).map(option).collect()
    }

    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.file.as_deref(), std::env::vars_os(), &self.flags)?)
    }
}

/// Refuses a file to write that is there already.
fn check_new(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Err(Failure::FileExists { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// A word as a shell reads it.
fn in_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    let quoted = || format!("'{}'", word.replace('\'', r"'\''"));
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { quoted() }
}

/// For options that are a number.
fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "expected a whole number from 0 to 4294967295, such as 1000")
}

/// For options that are a number of things.
fn count(text: &str) -> Result<u32, &'static str> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or("expected a whole number of at least 1, such as 3")
}

/// For options that are a length of time.
fn duration(text: &str) -> Result<Duration, &'static str> {
    crate::sandbox::duration(text).ok_or("expected a duration with its unit, such as 10s or 15m")
}

/// For options that are a time, or a length of time before now or after it.
fn moment(
    text: &str,
    from_now: fn(&ZonedDateTime, Span) -> Result<ZonedDateTime, jiff::Error>,
) -> Option<Timestamp> {
    match text.parse() {
        Ok(span) => {
            let now = Timestamp::now().to_zoned_datetime(TimeZone::UTC);
            from_now(&now, span).map(|moment| moment.timestamp()).ok()
        }
        Err(_) => text.parse().ok(),
    }
}

/// Prints to standard output. A reader that has gone away, as in `… | head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    print_while_read(text).map(drop)
}

/// The same; tells whether the reader is still there.
fn print_while_read(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(Failure::Io { doing: "write to", path: "standard output".into(), cause }),
    }
}

/// Prints to standard output from a thread of its own: what serves waits for no reader.
fn announce(text: String) -> Result<(), Failure> {
    let printing = move || {
        if let Err(failure) = print(&text) {
            complain(failure);
        }
    };
    let thread = thread::Builder::new().name("print".to_owned()).spawn(printing);
    thread.map(drop).map_err(|cause| Failure::Runtime { cause })
}

/// Says why the command failed, if it did, and ends the log. A proxy waits for no reader of its
/// standard error.
pub fn end(failure: Option<&Failure>) {
    if let Some(failure) = failure {
        complain(failure);
    }
    log::flush();
}

/// Tells people more than the result, on standard error.
fn tell(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Says something on standard error. Nobody may be listening.
fn complain(what: impl Display) {
    let line = format!("agentpmt-proxy: {what}\n");
    if !log::push(line.as_bytes()) {
        let _ = stderr().write_all(line.as_bytes());
    }
}
