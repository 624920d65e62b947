//! The configuration: what it holds. `config/settings.rs` has the table that everything else about
//! it derives from; [`Config::load`] reads it.

mod file;
mod guard;
mod listen;
mod load;
mod mistake;
mod service_link;
mod settings;
mod value;
mod wallets;
mod whole;

use std::{path::PathBuf, time::Duration};

use tracing::Level;

use crate::types::Address;
pub use guard::HostName;
pub use listen::ListenAddress;
pub use mistake::Mistakes;
pub(crate) use mistake::nearest;
pub use value::{InvalidSetting, LogFormat, UpstreamUrl};
pub use wallets::WalletConfig;

/// Every setting, checked. [`Config::load`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen: at least one place. Without TLS here or in front, other machines reach none.
    pub listen: Vec<ListenAddress>,
    /// Whether a proxy in front terminates TLS, so that no caller counts as local.
    pub behind_tls_proxy: bool,
    /// The folder with the key files.
    pub keys: PathBuf,
    /// The folder for what must survive a restart.
    pub state: PathBuf,
    /// Whether callers have to be clients also while none is added.
    pub clients_required: bool,
    /// The wallet to use; without it, the first of `wallets`, or the one that `keys` holds.
    pub wallet: Option<Address>,
    /// Several wallets to open.
    pub wallets: Vec<WalletConfig>,
    /// A file whose first line is the wallet's password.
    pub password_file: Option<PathBuf>,
    /// Whether clients see a job's workflow token instead of a stand-in.
    pub expose_workflow_token: bool,
    /// How many calls may be in flight at once: at least 1.
    pub max_in_flight: usize,
    /// The names that clients may use for the proxy, besides loopback names and its addresses.
    pub allowed_hosts: Vec<HostName>,
    /// The origins of the web pages that may call, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// How many connections one address may have that is not loopback: at least 1.
    pub max_connections_per_peer: usize,
    /// Unix sockets.
    pub socket: SocketConfig,
    /// TLS on the ports.
    pub tls: TlsConfig,
    /// The API that calls are forwarded to.
    pub upstream: UpstreamConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The file that was read, if any.
    pub source: Option<PathBuf>,
}

/// The settings under `[socket]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// The permission bits of a unix socket.
    pub mode: u32,
    /// The name or number of its group; without one, that of the process.
    pub group: Option<String>,
}

/// The settings under `[tls]`: certificate and key, or neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The file with the certificate and those above it, in PEM.
    pub certificate: Option<PathBuf>,
    /// The file with its private key, in PEM.
    pub key: Option<PathBuf>,
    /// The file with the certificates, in PEM, that certificates of clients are checked against.
    pub client_ca: Option<PathBuf>,
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
    /// How many calls may be sent to it at once: from one to a million.
    pub max_calls: usize,
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
            max_calls: 1,
        };
        Self {
            listen: Vec::new(),
            behind_tls_proxy: false,
            keys: PathBuf::new(),
            state: PathBuf::new(),
            clients_required: false,
            wallet: None,
            wallets: Vec::new(),
            password_file: None,
            expose_workflow_token: false,
            max_in_flight: 1,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_connections_per_peer: 1,
            socket: SocketConfig { mode: 0, group: None },
            tls: TlsConfig { certificate: None, key: None, client_ca: None },
            upstream,
            log: LogConfig { level: Level::INFO, format: LogFormat::Auto },
            source: None,
        }
    }
}
