//! The values of settings, each parsed from text.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
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
    /// No socket address.
    #[error("expected an IP address and a port, such as 127.0.0.1:8402 or [::1]:8402")]
    Listen,
    /// A port alone.
    #[error("the address is missing: expected address and port, such as 127.0.0.1:8402")]
    ListenAddress,
    /// An address alone.
    #[error("the port is missing: expected address and port, such as 127.0.0.1:8402")]
    ListenPort,
    /// An address that other machines may reach.
    #[error(
        "the proxy listens on loopback only (127.0.0.1, [::1] or localhost), since whoever \
         reaches the port can sign with the wallet"
    )]
    ListenBeyondLoopback,
    /// No path at all.
    #[error("a path is needed, but the value is empty")]
    EmptyPath,
    /// Not the address of a wallet.
    #[error(transparent)]
    Wallet(#[from] InvalidValue),
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
    /// Not a length of time.
    #[error("expected a duration with its unit, such as 5s or 1m 30s")]
    Duration,
    /// A length of time that makes no sense here.
    #[error("a timeout is more than 0s and at most 1h")]
    DurationRange,
    /// Not a number of 1 or more.
    #[error("expected a whole number from 1 to 1000000")]
    Count,
    /// Not one of these words.
    #[error("expected one of {0}")]
    Word(&'static str),
}

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
        let host = self.0.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
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

pub(super) fn listen(text: &str) -> Result<SocketAddr, InvalidSetting> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse::<SocketAddr>().ok(),
    };
    match address {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(_) => Err(InvalidSetting::ListenBeyondLoopback),
        None => Err(half_of_an_address(text)),
    }
}

pub(super) fn wallet(text: &str) -> Result<Option<Address>, InvalidSetting> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

pub(super) fn boolean(text: &str) -> Result<bool, InvalidSetting> {
    text.parse().map_err(|_| InvalidSetting::Boolean)
}

pub(super) fn count(text: &str) -> Result<usize, InvalidSetting> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or(InvalidSetting::Count)
}

pub(super) fn path(given: &Given<'_>) -> Result<PathBuf, InvalidSetting> {
    optional_path(given)?.ok_or(InvalidSetting::EmptyPath)
}

pub(super) fn optional_path(given: &Given<'_>) -> Result<Option<PathBuf>, InvalidSetting> {
    Ok((!given.text.is_empty()).then(|| given.folder.join(given.text)))
}

pub(super) fn timeout(text: &str) -> Result<Duration, InvalidSetting> {
    let duration: SignedDuration = text.parse().map_err(|_| InvalidSetting::Duration)?;
    if duration.is_positive() && duration <= SignedDuration::from_hours(1) {
        Ok(duration.unsigned_abs())
    } else {
        Err(InvalidSetting::DurationRange)
    }
}

/// Which half of an address is missing from a text that is none.
fn half_of_an_address(text: &str) -> InvalidSetting {
    if text.strip_prefix(':').unwrap_or(text).parse::<u16>().is_ok() {
        InvalidSetting::ListenAddress
    } else if text == "localhost" || text.parse::<IpAddr>().is_ok() {
        InvalidSetting::ListenPort
    } else {
        InvalidSetting::Listen
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
    use std::path::Path;

    use super::*;

    #[test]
    fn listening_is_for_loopback_only() {
        for text in ["127.0.0.1:8402", "127.1.2.3:0", "[::1]:8402"] {
            assert_eq!(listen(text), Ok(text.parse().unwrap()));
        }
        assert_eq!(listen("localhost:80"), Ok("127.0.0.1:80".parse().unwrap()));
        for text in ["0.0.0.0:8402", "[::]:8402", "192.168.1.1:8402", "[::ffff:10.0.0.1]:1"] {
            assert_eq!(listen(text), Err(InvalidSetting::ListenBeyondLoopback), "{text}");
        }
    }

    #[test]
    fn the_missing_half_of_an_address_is_named() {
        for text in ["8402", ":8402"] {
            assert_eq!(listen(text), Err(InvalidSetting::ListenAddress), "{text}");
        }
        for text in ["127.0.0.1", "::1", "localhost"] {
            assert_eq!(listen(text), Err(InvalidSetting::ListenPort), "{text}");
        }
        for text in ["", "localhost:", "localhost:x", "127.0.0.1:65536", "example.com:80"] {
            assert_eq!(listen(text), Err(InvalidSetting::Listen), "{text}");
        }
    }

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
    fn words_and_booleans_are_taken_as_documented_only() {
        assert!(level("INFO").is_err() && level("3").is_err());
        assert!("pretty".parse::<LogFormat>().is_err());
        assert!(boolean("yes").is_err() && boolean("1").is_err());
    }
}
