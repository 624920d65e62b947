//! Where to listen, as it is written in a setting.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    settings::Given,
    value::{self, InvalidSetting},
};

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
            Self::Localhost(port) => *port == to.port() && value::LOOPBACK.contains(&to.ip()),
            Self::Unix(_) | Self::Systemd => false,
        }
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, InvalidSetting> {
        match text.strip_prefix("unix:") {
            Some("") => Err(InvalidSetting::EmptyPath),
            Some(path) => Ok(Self::Unix(value::file(path, folder)?)),
            None if text == "systemd" => Ok(Self::Systemd),
            None => match text.strip_prefix("localhost:").map(str::parse) {
                Some(Ok(port)) => Ok(Self::Localhost(port)),
                Some(Err(_)) => Err(InvalidSetting::Listen),
                None => text.parse().map(Self::Tcp).map_err(|_| half_of_an_address(text)),
            },
        }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidSetting;

    /// A relative path starts at the current directory.
    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        Self::parse(text, Path::new(""))
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

/// One or more, with commas between them.
pub(super) fn listen(given: &Given<'_>) -> Result<Vec<ListenAddress>, InvalidSetting> {
    let texts = given.text.split(',');
    texts.map(|text| ListenAddress::parse(text.trim(), given.folder)).collect()
}

/// Which half of an address is missing from a text that is none, or what is too much.
fn half_of_an_address(text: &str) -> InvalidSetting {
    if let Some(scheme) = ["http://", "https://"].into_iter().find(|it| text.starts_with(it)) {
        InvalidSetting::ListenScheme(scheme)
    } else if text.strip_prefix(':').unwrap_or(text).parse::<u16>().is_ok() {
        InvalidSetting::ListenAddress
    } else if text == "localhost" || text.parse::<IpAddr>().is_ok() {
        InvalidSetting::ListenPort
    } else {
        InvalidSetting::Listen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<ListenAddress>, InvalidSetting> {
        listen(&Given { text, folder: Path::new("/run") })
    }

    #[test]
    fn several_addresses_have_commas_between_them() {
        let found = parsed("127.0.0.1:8402, [::1]:0,unix:proxy.sock,unix:/tmp/p,systemd").unwrap();
        let texts: Vec<_> = found.iter().map(ListenAddress::to_string).collect();
        let expected =
            ["127.0.0.1:8402", "[::1]:0", "unix:/run/proxy.sock", "unix:/tmp/p", "systemd"];
        assert_eq!(texts, expected);
        assert_eq!(parsed("localhost:80").unwrap(), [ListenAddress::Localhost(80)]);
        assert_eq!(parsed("localhost:80").unwrap()[0].to_string(), "localhost:80");
    }

    #[test]
    fn an_address_that_is_not_loopback_is_exposed() {
        let exposed = |text: &str| parsed(text).unwrap()[0].is_exposed();
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
        for text in ["8402", ":8402"] {
            assert_eq!(parsed(text), Err(InvalidSetting::ListenAddress), "{text}");
        }
        for text in ["127.0.0.1", "::1", "localhost"] {
            assert_eq!(parsed(text), Err(InvalidSetting::ListenPort), "{text}");
        }
        assert_eq!(parsed("http://[::1]:1"), Err(InvalidSetting::ListenScheme("http://")));
        for text in [
            "",
            "localhost:",
            "localhost:65536",
            "127.0.0.1:65536",
            "example.com:80",
            "127.0.0.1:1,",
        ] {
            assert_eq!(parsed(text), Err(InvalidSetting::Listen), "{text}");
        }
        assert_eq!(parsed("unix:"), Err(InvalidSetting::EmptyPath));
    }
}
