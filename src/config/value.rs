//! The values of settings, each parsed from text.

use std::{
    env, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use jiff::SignedDuration;
use reqwest::Url;
use tracing::Level;

use super::settings::Given;
use crate::types::{Address, InvalidValue};

/// Why the value of a setting was refused. Its text says what is allowed; it never repeats the
/// value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// No place to listen at.
    #[error(
        "expected an IP address and a port, such as 127.0.0.1:8402 or [::1]:8402, or unix:PATH, or \
         systemd"
    )]
    Listen,
    /// A port alone.
    #[error("the address is missing: expected address and port, such as 127.0.0.1:8402")]
    ListenAddress,
    /// An address alone.
    #[error("the port is missing: expected address and port, such as 127.0.0.1:8402")]
    ListenPort,
    /// A URL.
    #[error("leave out {0}: expected address and port, such as 127.0.0.1:8402")]
    ListenScheme(&'static str),
    /// An address that other machines reach, without TLS.
    #[error(
        "other machines reach {0}, and tokens must not cross the network in the clear, so it \
         needs TLS: set tls.certificate and tls.key, or behind_tls_proxy = true if a proxy in front \
         terminates TLS; or listen on loopback only (127.0.0.1, [::1] or localhost)"
    )]
    Exposed(SocketAddr),
    /// A setting that is of no use without another.
    #[error("it needs {0} as well")]
    Alone(&'static str),
    /// No path at all.
    #[error("a path is needed, but the value is empty")]
    EmptyPath,
    /// A path in a home that is not known.
    #[error("only ~/ is known, and only if there is a home; write the whole path (./~ for a file)")]
    Home,
    /// Not the address of a wallet.
    #[error(transparent)]
    Wallet(#[from] InvalidValue),
    /// The same wallet again.
    #[error("a wallet stands there twice; name each once")]
    TwiceTheWallet,
    /// A wallet that is none of several.
    #[error("it is none of [[wallets]]; name one of them, or add it there")]
    NotAmong,
    /// Neither `required` nor `optional`.
    #[error("expected required or optional")]
    Required,
    /// Neither `true` nor `false`.
    #[error("expected true or false")]
    Boolean,
    /// Not an absolute URL.
    #[error("expected a URL such as https://www.agentpmt.com")]
    Url,
    /// A scheme other than `https` and `http`.
    #[error("the URL must begin with https://")]
    UrlScheme,
    /// Plain HTTP to another machine.
    #[error(
        "plain http is only for an upstream on this machine (127.0.0.1, [::1] or localhost); \
         use https"
    )]
    UrlPlain,
    /// More than scheme, host and port.
    #[error("the URL has {0}; only scheme, host and port are allowed")]
    UrlPart(&'static str),
    /// An address of this proxy as its upstream, so that it would call itself.
    #[error("it is one of the addresses that this proxy listens on; set it to the API")]
    OwnAddress,
    /// Not a length of time.
    #[error("expected a duration with its unit, such as 5s or 1m 30s")]
    Duration,
    /// A length of time that makes no sense here.
    #[error("a timeout is more than 0s and at most 1h")]
    DurationRange,
    /// Not a number of 1 or more.
    #[error("expected a whole number from 1 to 1000000")]
    Count,
    /// No host that a client could name.
    #[error(
        "expected the name or address of a host, with or without a port, such as proxy.example"
    )]
    Host,
    /// No origin that a browser would send.
    #[error("expected scheme, host and port of a web page, such as https://app.example")]
    Origin,
    /// No permission bits.
    #[error("expected permission bits in octal, such as 0600 or 0660")]
    Mode,
    /// Not one of these words.
    #[error("expected one of {0}")]
    Word(&'static str),
}

/// The addresses that `localhost` stands for.
pub(super) const LOOPBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Where the API is: scheme, host and port. It displays without a slash at the end, so that a path
/// can follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUrl(Url);

impl UpstreamUrl {
    /// A program on this machine: plain HTTP to a port of 127.0.0.1.
    pub fn on_this_machine(port: u16) -> Self {
        // A number is all that varies in the text, so it always is a URL.
        Self(Url::parse(&format!("http://127.0.0.1:{port}")).expect("a valid URL"))
    }

    /// Whether the host is this machine: 127.0.0.0/8, `[::1]` or `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.addresses().any(|address| address.ip().is_loopback())
    }

    /// The addresses that it names itself: both of loopback for `localhost`, none for any other name.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let host = self.0.host_str().unwrap_or_default();
        let port = self.0.port_or_known_default().unwrap_or_default();
        let ips = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) if host == "localhost" => LOOPBACK.to_vec(),
            Err(_) => Vec::new(),
        };
        ips.into_iter().map(move |ip| (ip, port).into())
    }
}

impl FromStr for UpstreamUrl {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let url = Self(Url::parse(text).map_err(|_| InvalidSetting::Url)?);
        match url.0.scheme() {
            "https" => {}
            "http" if url.is_loopback() => {}
            "http" => return Err(InvalidSetting::UrlPlain),
            _ => return Err(InvalidSetting::UrlScheme),
        }
        match surplus(&url.0) {
            Some(part) => Err(InvalidSetting::UrlPart(part)),
            None => Ok(url),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidSetting::Word("auto, text, json")),
        }
    }
}

pub(super) fn level(text: &str) -> Result<Level, InvalidSetting> {
    match text {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err(InvalidSetting::Word("error, warn, info, debug, trace")),
    }
}

pub(super) fn wallet(text: &str) -> Result<Option<Address>, InvalidSetting> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

pub(super) fn is_required(text: &str) -> Result<bool, InvalidSetting> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(InvalidSetting::Required),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, InvalidSetting> {
    text.parse().map_err(|_| InvalidSetting::Boolean)
}

pub(super) fn count(text: &str) -> Result<usize, InvalidSetting> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or(InvalidSetting::Count)
}

pub(super) fn mode(text: &str) -> Result<u32, InvalidSetting> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or(InvalidSetting::Mode)
}

pub(super) fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn path(given: &Given<'_>) -> Result<PathBuf, InvalidSetting> {
    optional_path(given)?.ok_or(InvalidSetting::EmptyPath)
}

pub(super) fn optional_path(given: &Given<'_>) -> Result<Option<PathBuf>, InvalidSetting> {
    if given.text.is_empty() { Ok(None) } else { file(given.text, given.folder).map(Some) }
}

/// The path of a file that is named from this folder, or from the home of the user as in `~/keys`:
/// a shell does not see all paths.
pub(super) fn file(text: &str, folder: &Path) -> Result<PathBuf, InvalidSetting> {
    match text.strip_prefix('~') {
        None => Ok(folder.join(text)),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = env::home_dir().filter(|home| home.is_absolute());
            Ok(home.ok_or(InvalidSetting::Home)?.join(rest.trim_start_matches('/')))
        }
        Some(_) => Err(InvalidSetting::Home),
    }
}

pub(super) fn timeout(text: &str) -> Result<Duration, InvalidSetting> {
    let duration: SignedDuration = text.parse().map_err(|_| InvalidSetting::Duration)?;
    if duration.is_positive() && duration <= SignedDuration::from_hours(1) {
        Ok(duration.unsigned_abs())
    } else {
        Err(InvalidSetting::DurationRange)
    }
}

/// What the URL has beyond scheme, host and port.
fn surplus(url: &Url) -> Option<&'static str> {
    let parts = [
        (!url.username().is_empty() || url.password().is_some(), "a user name or password"),
        (url.path() != "/", "a path"),
        (url.query().is_some(), "a query"),
        (url.fragment().is_some(), "a fragment"),
    ];
    parts.into_iter().find_map(|(present, name)| present.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for host in ["127.0.0.1:8403", "127.9.9.9", "[::1]:8403", "localhost:8403"] {
            let url: UpstreamUrl = format!("http://{host}").parse().unwrap();
            assert!(url.is_loopback(), "{host}");
            assert_eq!(url.to_string(), format!("http://{host}"));
        }
        for host in ["www.agentpmt.com", "localhost.example.com", "10.0.0.1", "[::2]", "128.0.0.1"]
        {
            let parsed = format!("http://{host}").parse::<UpstreamUrl>();
            assert_eq!(parsed, Err(InvalidSetting::UrlPlain), "{host}");
            assert!(!format!("https://{host}").parse::<UpstreamUrl>().unwrap().is_loopback());
        }
    }

    #[test]
    fn an_upstream_is_scheme_host_and_port() {
        let parse = |text: &str| text.parse::<UpstreamUrl>();
        assert_eq!(parse("https://a.example:8/").unwrap().to_string(), "https://a.example:8");
        for text in ["", "www.agentpmt.com", "https://", "https://a b"] {
            assert_eq!(parse(text), Err(InvalidSetting::Url), "{text}");
        }
        for text in ["ftp://a.example", "a.example:443", "file:///etc"] {
            assert_eq!(parse(text), Err(InvalidSetting::UrlScheme), "{text}");
        }
        for rest in ["me@a", "me:pw@a", ":pw@a", "a/api", "a//", "a?", "a?b", "a#", "a/#b"] {
            let parsed = parse(&format!("https://{rest}"));
            assert!(matches!(parsed, Err(InvalidSetting::UrlPart(_))), "{rest}");
        }
    }

    #[test]
    fn a_timeout_has_a_unit_and_is_at_most_an_hour() {
        assert_eq!(timeout("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(timeout("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(timeout("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "5", "soon", "5 parsecs"] {
            assert_eq!(timeout(text), Err(InvalidSetting::Duration), "{text}");
        }
        for text in ["0s", "-5s", "1h 1ns", "24h"] {
            assert_eq!(timeout(text), Err(InvalidSetting::DurationRange), "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_no_wallet_and_no_file_but_never_a_folder() {
        let empty = Given { text: "", folder: Path::new("/etc") };
        assert_eq!(wallet(""), Ok(None));
        assert_eq!(optional_path(&empty), Ok(None));
        assert_eq!(path(&empty), Err(InvalidSetting::EmptyPath));
    }

    #[test]
    fn permission_bits_are_octal() {
        assert_eq!((mode("0600"), mode("660")), (Ok(0o600), Ok(0o660)));
        for text in ["", "6", "0o600", "+600", "0680", "1777", "rw-------"] {
            assert_eq!(mode(text), Err(InvalidSetting::Mode), "{text}");
        }
    }

    #[test]
    fn words_and_booleans_are_taken_as_documented_only() {
        assert!(level("INFO").is_err() && level("3").is_err());
        assert!("pretty".parse::<LogFormat>().is_err());
        assert!(boolean("yes").is_err() && boolean("1").is_err());
    }
}
