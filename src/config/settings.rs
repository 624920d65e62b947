//! One table of settings: the defaults, the names in the environment, the keys of the file and the
//! text of `proxy.toml` derive from it.
//!
//! To add a setting, add a field to [`Config`] and a row to [`SETTINGS`], and write `proxy.toml`
//! anew: the test that compares it prints the text it should have.

use std::path::Path;

use super::{
    Config, guard, listen,
    value::{self, InvalidSetting},
    wallets,
};

impl Config {
    /// Every setting as (key, default, why), in the order of `proxy.toml`.
    pub fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        SETTINGS.iter().map(|setting| (setting.key, setting.default, setting.why))
    }

    /// The text of `proxy.toml`: every setting with its default and the reason for it.
    #[cfg(test)]
    fn template() -> String {
        let mut text = HEADER.to_owned();
        let mut section = None;
        for setting in SETTINGS {
            if setting.section() != section {
                section = setting.section();
                text.extend(section.map(|name| format!("\n[{name}]\n")));
            }
            text += &setting.as_toml();
        }
        text
    }
}

/// What the name of every environment variable for this program begins with.
pub(super) const ENV_PREFIX: &str = "AGENTPMT_PROXY_";

#[cfg(test)]
const HEADER: &str = "\
# The configuration of agentpmt-proxy: every setting with its default.
#
# The command line goes before the environment, the environment before this file, and this file
# before the defaults. In the environment, upstream.url is AGENTPMT_PROXY_UPSTREAM__URL.
#
# A relative path starts where it was given: in this file, or left at its default, at the folder of
# this file; on the command line or in the environment, at the current directory.
";

/// One row of the table.
pub(super) struct Setting {
    /// Its name in the file, with the section: `upstream.url`.
    pub(super) key: &'static str,
    /// Its option on the command line, if it has one: `--upstream`.
    pub(super) flag: Option<&'static str>,
    /// How it is written in the file.
    pub(super) kind: Kind,
    /// The default, as text that `set` takes.
    pub(super) default: &'static str,
    /// What it is for, in one line.
    why: &'static str,
    /// Whether two configurations differ in it, if it counts from the start only; `None` if a reload
    /// may change it.
    pub(super) fixed: Option<fn(&Config, &Config) -> bool>,
    /// Checks the value and writes it into the configuration.
    pub(super) set: fn(&mut Config, &Given<'_>) -> Result<(), InvalidSetting>,
}

/// The TOML type of a setting.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    String,
    /// One string or an array of them.
    List,
    /// Tables with these keys, strings, of which all but the first may be missing.
    Tables(&'static [&'static str]),
    Boolean,
    Integer,
}

/// A value as somebody gave it.
pub(super) struct Given<'a> {
    pub(super) text: &'a str,
    /// Where a relative path starts; empty for the current directory.
    pub(super) folder: &'a Path,
}

/// Every setting. Those of one section stand together, those without a section first.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        flag: Some("--listen"),
        kind: Kind::List,
        default: "localhost:8402",
        why: "Where to listen, one or a list: ADDRESS:PORT, localhost:PORT (IPv4 and IPv6), unix:PATH, systemd.",
        fixed: Some(|one, other| one.listen != other.listen),
        set: |config, given| listen::listen(given).map(|listen| config.listen = listen),
    },
    Setting {
        key: "behind_tls_proxy",
        flag: None,
        kind: Kind::Boolean,
        default: "false",
        why: "A proxy in front terminates TLS: other addresses need none here, and no caller counts as local.",
        fixed: Some(|one, other| one.behind_tls_proxy != other.behind_tls_proxy),
        set: |config, given| {
            value::boolean(given.text).map(|behind| config.behind_tls_proxy = behind)
        },
    },
    Setting {
        key: "keys",
        flag: Some("--keys"),
        kind: Kind::String,
        default: "keys",
        why: "Folder with the key files (Web3 Secret Storage V3).",
        fixed: Some(|one, other| one.keys != other.keys),
        set: |config, given| value::path(given).map(|path| config.keys = path),
    },
    Setting {
        key: "state",
        flag: Some("--state"),
        kind: Kind::String,
        default: "state",
        why: "Folder for what must survive a restart: journal, reservations, stored answers and clients.",
        fixed: Some(|one, other| one.state != other.state),
        set: |config, given| value::path(given).map(|path| config.state = path),
    },
    Setting {
        key: "clients",
        flag: None,
        kind: Kind::String,
        default: "optional",
        why: "required: nobody may call without a client; optional: all on this machine may, until one is added.",
        fixed: Some(|one, other| one.clients_required != other.clients_required),
        set: |config, given| {
            value::is_required(given.text).map(|required| config.clients_required = required)
        },
    },
    Setting {
        key: "wallet",
        flag: Some("--wallet"),
        kind: Kind::String,
        default: "",
        why: "Address of the wallet to use, if the folder or [[wallets]] has several.",
        fixed: Some(|one, other| one.wallet != other.wallet),
        set: |config, given| value::wallet(given.text).map(|wallet| config.wallet = wallet),
    },
    Setting {
        key: "password_file",
        flag: Some("--password-file"),
        kind: Kind::String,
        default: "",
        why: "File whose first line is the wallet's password, to start with nobody at a prompt.",
        fixed: Some(|one, other| one.password_file != other.password_file),
        set: |config, given| value::optional_path(given).map(|path| config.password_file = path),
    },
    Setting {
        key: "expose_workflow_token",
        flag: None,
        kind: Kind::Boolean,
        default: "false",
        why: "Pass a job's workflow token on to the client instead of withholding it.",
        fixed: None,
        set: |config, given| {
            value::boolean(given.text).map(|expose| config.expose_workflow_token = expose)
        },
    },
    Setting {
        key: "max_in_flight",
        flag: None,
        kind: Kind::Integer,
        default: "1024",
        why: "How many calls may be in flight at once; more are refused with 503 at once.",
        fixed: None,
        set: |config, given| value::count(given.text).map(|count| config.max_in_flight = count),
    },
    Setting {
        key: "allowed_hosts",
        flag: None,
        kind: Kind::List,
        default: "",
        why: "Names that clients may use for the proxy, as in proxy.example; loopback names always are.",
        fixed: None,
        set: |config, given| guard::hosts(given.text).map(|hosts| config.allowed_hosts = hosts),
    },
    Setting {
        key: "allowed_origins",
        flag: None,
        kind: Kind::List,
        default: "",
        why: "Web pages that may call, as in https://app.example; a browser gets nothing otherwise.",
        fixed: None,
        set: |config, given| {
            guard::origins(given.text).map(|origins| config.allowed_origins = origins)
        },
    },
    Setting {
        key: "max_connections_per_peer",
        flag: None,
        kind: Kind::Integer,
        default: "256",
        why: "How many connections one address may have; loopback and behind_tls_proxy have no limit.",
        fixed: Some(|one, other| one.max_connections_per_peer != other.max_connections_per_peer),
        set: |config, given| {
            value::count(given.text).map(|count| config.max_connections_per_peer = count)
        },
    },
    Setting {
        key: "socket.mode",
        flag: None,
        kind: Kind::String,
        default: "0600",
        why: "Permission bits of the unix socket. Without a client, only this user and root may call over it.",
        fixed: Some(|one, other| one.socket.mode != other.socket.mode),
        set: |config, given| value::mode(given.text).map(|mode| config.socket.mode = mode),
    },
    Setting {
        key: "socket.group",
        flag: None,
        kind: Kind::String,
        default: "",
        why: "Group of a unix socket, by name or number, for a mode such as 0660.",
        fixed: Some(|one, other| one.socket.group != other.socket.group),
        set: |config, given| {
            config.socket.group = value::optional(given.text);
            Ok(())
        },
    },
    Setting {
        key: "tls.certificate",
        flag: None,
        kind: Kind::String,
        default: "",
        why: "Certificate chain in PEM. With it every port speaks TLS, loopback too; sockets never do.",
        fixed: Some(|one, other| one.tls.certificate.is_some() != other.tls.certificate.is_some()),
        set: |config, given| value::optional_path(given).map(|path| config.tls.certificate = path),
    },
    Setting {
        key: "tls.key",
        flag: None,
        kind: Kind::String,
        default: "",
        why: "Private key of the certificate in PEM; only its owner may read the file.",
        fixed: None,
        set: |config, given| value::optional_path(given).map(|path| config.tls.key = path),
    },
    Setting {
        key: "tls.client_ca",
        flag: None,
        kind: Kind::String,
        default: "",
        why: "Certificates in PEM to check those of clients against; without it none is asked for.",
        fixed: None,
        set: |config, given| value::optional_path(given).map(|path| config.tls.client_ca = path),
    },
    Setting {
        key: "upstream.url",
        flag: Some("--upstream"),
        kind: Kind::String,
        default: "https://www.agentpmt.com",
        why: "Scheme, host and port of the API: https, unless it runs on this machine.",
        fixed: Some(|one, other| one.upstream.url != other.upstream.url),
        set: |config, given| given.text.parse().map(|url| config.upstream.url = url),
    },
    Setting {
        key: "upstream.connect_timeout",
        flag: None,
        kind: Kind::String,
        default: "5s",
        why: "How long connecting may take, with all tries, at most 1h; then an outage is told.",
        fixed: Some(|one, other| one.upstream.connect_timeout != other.upstream.connect_timeout),
        set: |config, given| {
            value::timeout(given.text).map(|limit| config.upstream.connect_timeout = limit)
        },
    },
    Setting {
        key: "upstream.timeout",
        flag: None,
        kind: Kind::String,
        default: "60s",
        why: "How long a call that only reads may take, with all its tries, at most 1h.",
        fixed: Some(|one, other| one.upstream.timeout != other.upstream.timeout),
        set: |config, given| {
            value::timeout(given.text).map(|limit| config.upstream.timeout = limit)
        },
    },
    Setting {
        key: "upstream.change_timeout",
        flag: None,
        kind: Kind::String,
        default: "60s",
        why: "The same for a call that changes something; a quarter is kept to ask what became of it.",
        fixed: Some(|one, other| one.upstream.change_timeout != other.upstream.change_timeout),
        set: |config, given| {
            value::timeout(given.text).map(|limit| config.upstream.change_timeout = limit)
        },
    },
    Setting {
        key: "upstream.settle_time",
        flag: None,
        kind: Kind::String,
        default: "10s",
        why: "How long the API may still work on a change whose answer was lost: no new try before.",
        fixed: Some(|one, other| one.upstream.settle_time != other.upstream.settle_time),
        set: |config, given| {
            value::timeout(given.text).map(|time| config.upstream.settle_time = time)
        },
    },
    Setting {
        key: "upstream.max_calls",
        flag: None,
        kind: Kind::Integer,
        default: "64",
        why: "How many calls may be sent to the API at once; others wait a while, then get 503.",
        fixed: Some(|one, other| one.upstream.max_calls != other.upstream.max_calls),
        set: |config, given| {
            value::count(given.text).map(|count| config.upstream.max_calls = count)
        },
    },
    Setting {
        key: "log.level",
        flag: None,
        kind: Kind::String,
        default: "info",
        why: "What is logged: error, warn, info, debug or trace.",
        fixed: None,
        set: |config, given| value::level(given.text).map(|level| config.log.level = level),
    },
    Setting {
        key: "log.format",
        flag: None,
        kind: Kind::String,
        default: "auto",
        why: "How a log line is written: text, json, or auto (text on a terminal, else json).",
        fixed: Some(|one, other| one.log.format != other.log.format),
        set: |config, given| given.text.parse().map(|format| config.log.format = format),
    },
    Setting {
        key: "wallets",
        flag: None,
        kind: Kind::Tables(&["address", "password_file"]),
        default: "",
        why: "One table per wallet: its address, and its password file if it has its own.",
        fixed: Some(|one, other| one.wallets != other.wallets),
        set: |config, given| wallets::wallets(given).map(|wallets| config.wallets = wallets),
    },
];

impl Setting {
    pub(super) fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The table of the file that it stands in; `None` at the top.
    pub(super) fn section(&self) -> Option<&'static str> {
        self.key.rsplit_once('.').map(|(section, _)| section)
    }

    #[cfg(test)]
    fn as_toml(&self) -> String {
        let Self { key, default, why, .. } = self;
        let name = key.rsplit_once('.').map_or(*key, |(_, name)| name);
        match self.kind {
            Kind::String | Kind::List => format!("\n# {why}\n{name} = \"{default}\"\n"),
            // Tables end the section that they stand in, so nobody gets some by default.
            Kind::Tables(keys) => {
                let keys = keys.iter().map(|key| format!("# {key} = \"\"\n"));
                format!("\n# {why}\n# [[{name}]]\n{}", keys.collect::<String>())
            }
            Kind::Boolean | Kind::Integer => format!("\n# {why}\n{name} = {default}\n"),
        }
    }
}

/// The name of the environment variable for a key: `AGENTPMT_PROXY_UPSTREAM__URL`.
pub(super) fn variable_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, iter, time::Duration};

    use tracing::Level;

    use super::*;
    use crate::config::LogFormat;

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
    fn no_two_settings_share_a_key_a_flag_or_a_variable() {
        let distinct = |names: Vec<String>| names.iter().collect::<HashSet<_>>().len();
        let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        let flags: Vec<_> = SETTINGS.iter().filter_map(|s| s.flag).map(str::to_owned).collect();
        assert_eq!(distinct(keys.iter().map(|key| variable_name(key)).collect()), SETTINGS.len());
        assert_eq!(distinct(keys), SETTINGS.len());
        assert_eq!(distinct(flags.clone()), flags.len());
    }

    #[test]
    fn a_row_gives_key_default_and_reason() {
        let (key, default, why) = Config::rows().find(|row| row.0 == "log.level").unwrap();
        assert_eq!((key, default), ("log.level", "info"));
        assert!(why.starts_with("What is logged"));
    }
}
