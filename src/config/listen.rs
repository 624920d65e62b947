//! Where to listen, as it is written in a setting.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{given::Given, mistake::InvalidSetting, upstream_url::LOOPBACK, value::path_of};

/// One place to listen at. It displays as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A port of both loopback addresses, IPv4 and IPv6: programs differ in which of them they take
    /// `localhost` for. Port 0 lets the system choose.
    Localhost(u16),
    /// The path of a unix socket.
    Unix(PathBuf),
    /// Every socket that systemd passes.
    Systemd,
}

impl ListenAddress {
    /// Whether it is a port that other machines may reach. What systemd passes is not known here.
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }

    /// Whether a connection to an address comes here, as far as the port is known.
    pub(super) fn takes(&self, to: SocketAddr) -> bool {
        match self {
            _ if to.port() == 0 => false,
            Self::Tcp(own) => {
                let takes_all = own.ip().is_unspecified() && to.ip().is_loopback();
                own.port() == to.port() && (own.ip() == to.ip() || takes_all)
            }
            Self::Localhost(port) => *port == to.port() && LOOPBACK.contains(&to.ip()),
            Self::Unix(_) | Self::Systemd => false,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

pub(super) fn listen_address(given: &Given<'_>) -> Result<ListenAddress, InvalidSetting> {
    let text = given.text()?;
    if let Some(path) = text.strip_prefix("unix:") {
        return path_of(given, path).map(ListenAddress::Unix);
    }
    if text == "systemd" {
        return Ok(ListenAddress::Systemd);
    }
    if let Some(Ok(port)) = text.strip_prefix("localhost:").map(str::parse) {
        return Ok(ListenAddress::Localhost(port));
    }
    text.parse().map(ListenAddress::Tcp).map_err(|_| half_of_an_address(text))
}

/// Which half of an address is missing from a text that is none, or what is too much.
fn half_of_an_address(text: &str) -> InvalidSetting {
    let half =
        if let Some(scheme) = ["http://", "https://"].into_iter().find(|it| text.starts_with(it)) {
            &format!("leave out {scheme}")
        } else if text.strip_prefix(':').unwrap_or(text).parse::<u16>().is_ok() {
            "the address is missing"
        } else if text == "localhost" || text.parse::<IpAddr>().is_ok() {
            "the port is missing"
        } else {
            return "expected an IP address and a port, such as 127.0.0.1:8402 or [::1]:8402, or \
                unix:PATH, or systemd"
                .into();
        };
    InvalidSetting(format!("{half}: expected address and port, such as 127.0.0.1:8402"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ListenAddress, String> {
        listen_address(&Given::of_variable(text)).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn an_address_displays_as_it_is_written() {
        for text in ["127.0.0.1:8402", "[::1]:0", "localhost:80", "unix:/tmp/p,q", "systemd"] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
        assert_eq!(parsed("localhost:80"), Ok(ListenAddress::Localhost(80)));
    }

    #[test]
    fn an_address_that_is_not_loopback_is_exposed() {
        let exposed = |text: &str| parsed(text).unwrap().is_exposed();
        for text in
            ["127.0.0.1:8402", "127.1.2.3:0", "[::1]:8402", "localhost:1", "unix:x", "systemd"]
        {
            assert!(!exposed(text), "{text}");
        }
        for text in ["0.0.0.0:8402", "[::]:8402", "192.168.1.1:8402", "[::ffff:10.0.0.1]:1"] {
            assert!(exposed(text), "{text}");
        }
    }

    #[test]
    fn the_missing_half_of_an_address_is_named() {
        let refusal = |text| parsed(text).unwrap_err();
        for text in ["8402", ":8402"] {
            assert!(refusal(text).starts_with("the address is missing: "), "{text}");
        }
        for text in ["127.0.0.1", "::1", "localhost"] {
            assert!(refusal(text).starts_with("the port is missing: "), "{text}");
        }
        assert!(refusal("http://[::1]:1").starts_with("leave out http://: "));
        for text in ["", "localhost:", "localhost:65536", "127.0.0.1:65536", "example.com:80"] {
            assert!(refusal(text).starts_with("expected an IP address and a port"), "{text}");
        }
        assert!(refusal("unix:").starts_with("a path is needed"));
    }
}
