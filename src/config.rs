//! The configuration: what it holds. `config/settings.rs` has the table that everything else about
//! it derives from; [`Config::load`] reads it.

mod file;
mod load;
mod mistake;
mod settings;
mod value;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tracing::Level;

use crate::types::Address;
pub use mistake::Mistakes;
pub(crate) use mistake::nearest;
pub use value::{InvalidSetting, LogFormat, UpstreamUrl};

/// Every setting, checked. [`Config::load`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen: always a loopback address. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The folder with the key files.
    pub keys: PathBuf,
    /// The folder for what must survive a restart.
    pub state: PathBuf,
    /// The wallet to use; without it, `keys` must hold exactly one.
    pub wallet: Option<Address>,
    /// A file whose first line is the wallet's password.
    pub password_file: Option<PathBuf>,
    /// Whether clients see a job's workflow token instead of a stand-in.
    pub expose_workflow_token: bool,
    /// How many calls may be in flight at once: at least 1.
    pub max_in_flight: usize,
    /// The API that calls are forwarded to.
    pub upstream: UpstreamConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The file that was read, if any.
    pub source: Option<PathBuf>,
}

/// The settings under `[upstream]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Scheme, host and port of the API.
    pub url: UpstreamUrl,
    /// How long connecting may take: more than zero, at most an hour.
    pub connect_timeout: Duration,
    /// How long a call that only reads may take, tries included: more than zero, at most an hour.
    pub timeout: Duration,
    /// The same for a call that changes something.
    pub change_timeout: Duration,
    /// How long the upstream may still be at work on a change whose answer was lost.
    pub settle_time: Duration,
}

/// The settings under `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe level that is logged.
    pub level: Level,
    /// How a log line is written.
    pub format: LogFormat,
}

impl Config {
    /// The file of the store, in the folder `state`.
    pub fn database(&self) -> PathBuf {
        self.state.join("proxy.db")
    }

    /// A configuration for the defaults to be written over: no value of it is ever used.
    fn blank() -> Self {
        // The text is a valid URL, as any test of this module shows.
        let url = "https://localhost".parse().expect("a valid upstream");
        let upstream = UpstreamConfig {
            url,
            connect_timeout: Duration::ZERO,
            timeout: Duration::ZERO,
            change_timeout: Duration::ZERO,
            settle_time: Duration::ZERO,
        };
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            keys: PathBuf::new(),
            state: PathBuf::new(),
            wallet: None,
            password_file: None,
            expose_workflow_token: false,
            max_in_flight: 1,
            upstream,
            log: LogConfig { level: Level::INFO, format: LogFormat::Auto },
            source: None,
        }
    }
}
