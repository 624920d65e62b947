//! One table of settings: [`Config`], the defaults, the names in the environment, the keys of the
//! file and the text of `proxy.toml` derive from it.
//!
//! To add a setting, add a row, and write `proxy.toml` anew: the test that compares it prints the
//! text it should have.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::DeValue;
use tracing::Level;

use super::{
    asset::{AssetConfig, amount, resource},
    given::{Given, Location, Value},
    guard::{HostName, host, origin},
    listen::{ListenAddress, listen_address},
    mistake::Mistakes,
    upstream_url::UpstreamUrl,
    value::{
        ClientsAre, LogFormat, boolean, clients_are, count, log_format, log_level, mode, network,
        parsed, path, text, timeout, wallet,
    },
    wallets::WalletConfig,
};
use crate::types::{Address, Amount, Network};

/// Makes of the rows below the struct [`Config`], those of its sections, and [`SETTINGS`].
macro_rules! settings {
    (
        Config { $(
            #[doc = $why:literal]
            $key:ident: $type:ty = $default:tt, $read:ident $by:tt, $applies:ident $(, $option:literal)?;
        )* }
        $($section:ident: $Section:ident { $(
            #[doc = $why_in:literal]
            $key_in:ident: $type_in:ty = $default_in:tt, $read_in:ident $by_in:tt, $applies_in:ident
                $(, $option_in:literal)?;
        )* })*
    ) => {
        /// Every setting, checked. [`Config::load`] makes it.
        #[allow(rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $(#[doc = $why] pub $key: $type,)*
            $(
                #[doc = concat!("The settings under `[", stringify!($section), "]`.")]
                pub $section: $Section,
            )*
            /// The file that was read, if any.
            pub source: Option<PathBuf>,
        }

        $(
            #[doc = concat!("The settings under `[", stringify!($section), "]`.")]
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Section {
                $(#[doc = $why_in] pub $key_in: $type_in,)*
            }
        )*

        impl Config {
            /// The defaults, for a file at this path.
            pub(super) fn defaults(file: &Path) -> Self {
                Self {
                    $($key: default(file, stringify!($default), |given| given.$read $by),)*
                    $($section: $Section {
                        $($key_in: default(
                            file,
                            stringify!($default_in),
                            |given| given.$read_in $by_in,
                        ),)*
                    },)*
                    source: None,
                }
            }
        }

        /// Every setting: those without a section, then section by section.
        pub(super) const SETTINGS: &[Setting] = &[
            $(Setting {
                key: stringify!($key),
                option: first(&[$($option)?]),
                default: stringify!($default),
                why: $why,
                applies: Applies::$applies,
                differs: |one, other| one.$key != other.$key,
                set: |config, given| Ok(config.$key = given.$read $by?),
            },)*
            $($(Setting {
                key: concat!(stringify!($section), ".", stringify!($key_in)),
                option: first(&[$($option_in)?]),
                default: stringify!($default_in),
                why: $why_in,
                applies: Applies::$applies_in,
                differs: |one, other| one.$section.$key_in != other.$section.$key_in,
                set: |config, given| Ok(config.$section.$key_in = given.$read_in $by_in?),
            },)*)*
        ];
    };
}

// A row: the reason for the setting; its name and type; its default as TOML; how a value is read;
// when a change applies; its option, if it has one.
settings! {
    Config {
        /// Where to listen, one or a list: ADDRESS:PORT, localhost:PORT (IPv4 and IPv6), unix:PATH, systemd.
        listen: Vec<ListenAddress> = "localhost:8402", each(listen_address), AtStart, "--listen";
        /// A proxy in front terminates TLS: listen on any address without it, and trust no caller as local.
        behind_tls_proxy: bool = false, one(boolean), AtStart;
        /// Folder with the key files (Web3 Secret Storage V3).
        keys: PathBuf = "keys", one(path), AtStart, "--keys";
        /// Folder for what must survive a restart: journal, reservations, stored answers and clients.
        state: PathBuf = "state", one(path), AtStart, "--state";
        /// required: only clients may call; optional: all on this machine may, until a client is added.
        clients: ClientsAre = "optional", one(clients_are), AtStart;
        /// Address of the wallet to use, if the folder or [[wallets]] has several.
        wallet: Option<Address> = "", optional(wallet), AtStart, "--wallet";
        /// File whose first line is the wallet's password, to start without a prompt.
        password_file: Option<PathBuf> = "", optional(path), AtStart, "--password-file";
        /// Pass a job's workflow token on to the client instead of withholding it.
        expose_workflow_token: bool = false, one(boolean), AtReload;
        /// How many calls may be in flight at once; more are refused with 503 at once.
        max_in_flight: usize = 1024, one(count), AtReload;
        /// Names that clients may use for the proxy, as in proxy.example; loopback names always are.
        allowed_hosts: Vec<HostName> = "", each(host), AtReload;
        /// Web pages that may call, as in https://app.example; a browser gets nothing otherwise.
        allowed_origins: Vec<String> = "", each(origin), AtReload;
        /// How many connections one address may have; loopback and behind_tls_proxy have no limit.
        max_connections_per_peer: usize = 256, one(count), AtStart;
        /// One table per wallet: its address, and its password file if it has its own.
        wallets: Vec<WalletConfig> = [], wallets(), AtStart;
    }
    socket: SocketConfig {
        /// Permission bits of the unix socket. Without a client, only this user and root may call over it.
        mode: u32 = "0600", one(mode), AtStart;
        /// Group of a unix socket, by name or number, for a mode such as 0660.
        group: Option<String> = "", optional(text), AtStart;
    }
    tls: TlsConfig {
        /// Certificate chain in PEM. With it every port speaks TLS, loopback too; sockets never do.
        certificate: Option<PathBuf> = "", optional(path), AtReload;
        /// Private key of the certificate in PEM; only its owner may read the file.
        key: Option<PathBuf> = "", optional(path), AtReload;
        /// Certificates in PEM to check those of clients against; without it none is asked for.
        client_ca: Option<PathBuf> = "", optional(path), AtReload;
    }
    upstream: UpstreamConfig {
        /// Scheme, host and port of the API: https, unless it runs on this machine.
        url: UpstreamUrl = "https://www.agentpmt.com", one(parsed), AtStart, "--upstream";
        /// Time limit for connecting, over all tries, at most 1h; then the call gets 502.
        connect_timeout: Duration = "5s", one(timeout), AtStart;
        /// Time limit for a read, over all tries, at most 1h.
        timeout: Duration = "60s", one(timeout), AtStart;
        /// Time limit for a change, over all tries; the last quarter is kept for status requests.
        change_timeout: Duration = "60s", one(timeout), AtStart;
        /// Time limit for a call that may spend credits, over all tries: tools may take long.
        spend_timeout: Duration = "150s", one(timeout), AtStart;
        /// How long after a lost answer a change may still take effect; until then it is in doubt.
        settle_time: Duration = "10s", one(timeout), AtStart;
        /// How many calls may be sent to the API at once; others wait a while, then get 503.
        max_calls: usize = 64, one(count), AtStart;
    }
    spending: SpendingConfig {
        /// Wallet that pays, best one of its own with little in it. Nothing is paid without these settings.
        wallet: Option<Address> = "", optional(wallet), AtStart;
        /// Networks on which it may pay, as in eip155:8453.
        networks: Vec<Network> = "", each(network), AtStart;
        /// Addresses that it may pay to.
        payees: Vec<Address> = "", each(wallet), AtStart;
        /// URLs that it may pay for, as the API writes them in its demand.
        resources: Vec<String> = "", each(resource), AtStart;
        /// The most for one call, as in 5 or 0.05, in the token's own unit.
        max_per_call: Option<Amount> = "", optional(amount), AtStart;
        /// The most in 24 hours, for all clients together.
        per_day: Option<Amount> = "", optional(amount), AtStart;
        /// The most in 30 days, for all clients together.
        per_month: Option<Amount> = "", optional(amount), AtStart;
        /// A payment above it is not signed unless a person approves it.
        approve_above: Option<Amount> = "", optional(amount), AtStart;
        /// One table per token that may be paid: its contract, and its EIP-712 domain.
        assets: Vec<AssetConfig> = [], assets(), AtStart;
    }
    log: LogConfig {
        /// Log level: error, warn, info, debug or trace.
        level: Level = "info", one(log_level), AtReload;
        /// How a log line is written: text, json, or auto (text on a terminal, else json).
        format: LogFormat = "auto", one(log_format), AtStart;
    }
}

/// One row of the table.
pub(super) struct Setting {
    /// Its name in the file, with the section: `upstream.url`.
    pub(super) key: &'static str,
    /// Its option on the command line, if it has one: `--upstream`.
    pub(super) option: Option<&'static str>,
    /// The default, as TOML.
    pub(super) default: &'static str,
    /// Its purpose, in one line.
    why: &'static str,
    pub(super) applies: Applies,
    /// Whether two configurations differ in it.
    pub(super) differs: fn(&Config, &Config) -> bool,
    /// Checks the value and writes it into the configuration.
    pub(super) set: fn(&mut Config, &Given<'_>) -> Result<(), Mistakes>,
}

/// When a change of a setting applies.
#[derive(PartialEq, Eq)]
pub(super) enum Applies {
    AtStart,
    AtReload,
}

impl Config {
    /// Every setting as (key, default, whether a reload may change it, why).
    pub fn rows() -> impl Iterator<Item = (&'static str, &'static str, bool, &'static str)> {
        let plain = |default: &'static str| default.trim_matches(['"', '[', ']']);
        let reloads = |setting: &Setting| setting.applies == Applies::AtReload;
        SETTINGS.iter().map(move |s| (s.key, plain(s.default), reloads(s), s.why.trim()))
    }

    /// The options of the command line that give a setting.
    pub fn options() -> impl Iterator<Item = &'static str> {
        SETTINGS.iter().filter_map(|setting| setting.option)
    }

    /// The text of `proxy.toml`: every setting with its default and the reason for it.
    #[cfg(test)]
    fn template() -> String {
        let (tables, values): (Vec<_>, Vec<_>) = SETTINGS.iter().partition(|s| s.default == "[]");
        let mut text = HEADER.to_owned();
        let mut section = None;
        for Setting { key, default, why, .. } in values {
            let (new, name) = key.split_once('.').map_or((None, *key), |(s, name)| (Some(s), name));
            if new != section {
                section = new;
                text.extend(section.map(|name| format!("\n[{name}]\n")));
            }
            text += &format!("\n#{why}\n{name} = {default}\n");
        }
        // Tables end the section that they stand in.
        for Setting { key, why, .. } in tables {
            let fields: &[&str] = if *key == "wallets" { &wallets::FIELDS } else { &asset::FIELDS };
            let fields: String = fields.iter().map(|field| format!("# {field} = \"\"\n")).collect();
            text += &format!("\n#{why}\n# [[{key}]]\n{fields}");
        }
        text
    }
}

impl Setting {
    pub(super) fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

const fn first(options: &[&'static str]) -> Option<&'static str> {
    match options {
        [option, ..] => Some(option),
        [] => None,
    }
}

fn default<T>(
    file: &Path,
    text: &'static str,
    read: impl FnOnce(&Given<'_>) -> Result<T, Mistakes>,
) -> T {
    // Every default is a value that its setting takes; any test that loads shows it.
    let value = DeValue::parse(text).expect("a default in TOML");
    let location = Location::File { path: file, text, at: 0 };
    let value = Value::Toml(value.get_ref());
    read(&Given { value, location, key: String::new(), example: text }).expect("a valid default")
}

/// The beginning of the name of every environment variable for this program.
pub(super) const ENV_PREFIX: &str = "AGENTPMT_PROXY_";

/// The name of the environment variable for a key: `AGENTPMT_PROXY_UPSTREAM__URL`.
pub(super) fn variable_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

#[cfg(test)]
use super::{asset, wallets};

#[cfg(test)]
const HEADER: &str = "\
# The configuration of agentpmt-proxy: every setting with its default.
#
# The command line goes before the environment, the environment before this file, and this file
# before the defaults. In the environment, upstream.url is AGENTPMT_PROXY_UPSTREAM__URL, and a list
# has commas between its values or is an array as here.
#
# A relative path starts where it was given: in this file, or left at its default, at the folder of
# this file; on the command line or in the environment, at the current directory.
";

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, iter, time::Duration};

    use tracing::Level;

    use super::*;

    #[test]
    fn proxy_toml_is_the_text_of_the_table() {
        let text = include_str!("../../proxy.toml");
        assert!(text == Config::template(), "proxy.toml should be:\n{}", Config::template());
        assert!(text.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn proxy_toml_holds_the_defaults() {
        // Cargo runs tests in the folder that holds it.
        let config = Config::load(None, iter::empty(), &[]).unwrap();
        assert_eq!(config.source, Some("proxy.toml".into()));
        assert_eq!(config.listen.len(), 1);
        assert_eq!(config.listen[0].to_string(), "localhost:8402");
        assert!(!config.is_covered() && !config.listen[0].is_exposed());
        assert_eq!(config.keys, Path::new("keys"));
        assert_eq!(config.database(), Path::new("state/proxy.db"));
        assert_eq!((config.wallet, config.password_file), (None, None));
        assert!(!config.expose_workflow_token);
        assert_eq!(config.upstream.url.to_string(), "https://www.agentpmt.com");
        assert_eq!(config.upstream.connect_timeout, Duration::from_secs(5));
        assert_eq!(config.upstream.timeout, Duration::from_secs(60));
        assert_eq!((config.log.level, config.log.format), (Level::INFO, LogFormat::Auto));
    }

    #[test]
    fn an_empty_file_gives_what_proxy_toml_gives() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
            Config { source: None, ..config }
        };
        assert_eq!(load("empty.toml", ""), load("full.toml", &Config::template()));
    }

    #[test]
    fn no_two_settings_share_a_key_an_option_or_a_variable() {
        let distinct = |names: Vec<String>| names.iter().collect::<HashSet<_>>().len();
        let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        let options: Vec<_> = Config::options().map(str::to_owned).collect();
        assert_eq!(distinct(keys.iter().map(|key| variable_name(key)).collect()), SETTINGS.len());
        assert_eq!(distinct(keys), SETTINGS.len());
        assert_eq!(distinct(options.clone()), options.len());
    }

    #[test]
    fn a_row_gives_key_default_and_reason() {
        let row = Config::rows().find(|row| row.0 == "log.level").unwrap();
        let (key, default, reloads, why) = row;
        assert_eq!((key, default, reloads), ("log.level", "info", true));
        assert!(why.starts_with("Log level"));
    }
}
