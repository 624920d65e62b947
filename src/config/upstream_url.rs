//! The URL of the API.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use reqwest::Url;

use super::mistake::InvalidSetting;

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
        let url =
            Url::parse(text).map_err(|_| "expected a URL such as https://www.agentpmt.com")?;
        let url = Self(url);
        match url.0.scheme() {
            "https" => {}
            "http" if url.is_loopback() => {}
            "http" => {
                return Err(
                    "plain http is only for an upstream on this machine (127.0.0.1, [::1] or \
                            localhost); use https"
                        .into(),
                );
            }
            _ => return Err("the URL must begin with https://".into()),
        }
        match surplus(&url.0) {
            Some(part) => Err(InvalidSetting(format!(
                "the URL has {part}; only scheme, host and port are allowed"
            ))),
            None => Ok(url),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// The parts of the URL beyond scheme, host and port.
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

    fn refusal(text: &str) -> String {
        text.parse::<UpstreamUrl>().unwrap_err().to_string()
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
            assert!(refusal(&format!("http://{host}")).starts_with("plain http is only"), "{host}");
            assert!(!format!("https://{host}").parse::<UpstreamUrl>().unwrap().is_loopback());
        }
    }

    #[test]
    fn an_upstream_is_scheme_host_and_port() {
        let url: UpstreamUrl = "https://a.example:8/".parse().unwrap();
        assert_eq!(url.to_string(), "https://a.example:8");
        for text in ["", "www.agentpmt.com", "https://", "https://a b"] {
            assert!(refusal(text).starts_with("expected a URL"), "{text}");
        }
        for text in ["ftp://a.example", "a.example:443", "file:///etc"] {
            assert!(refusal(text).starts_with("the URL must begin"), "{text}");
        }
        for rest in ["me@a", "me:pw@a", ":pw@a", "a/api", "a//", "a?", "a?b", "a#", "a/#b"] {
            assert!(refusal(&format!("https://{rest}")).starts_with("the URL has"), "{rest}");
        }
    }
}
