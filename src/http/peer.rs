//! The peer of a connection.

use std::net::{IpAddr, SocketAddr};

/// The peer of a connection. Every request has it as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address; a unix socket has none.
    pub address: Option<IpAddr>,
    /// The address and port that it reached; a unix socket has none.
    pub local: Option<SocketAddr>,
    /// The user that its process runs as, over a unix socket.
    pub uid: Option<u32>,
    /// The SHA-256 of its certificate, if it showed one that `tls.client_ca` vouches for.
    pub certificate: Option<[u8; 32]>,
    /// Whether it is a proxy that passes on what others send.
    pub passes_on: bool,
}

impl Peer {
    /// Whether the request comes from this machine.
    pub fn is_local(&self) -> bool {
        !self.passes_on && self.address.is_none_or(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_over_a_proxy_or_from_another_machine_is_not_local() {
        let peer = |address: &str, passes_on| {
            let address = (!address.is_empty()).then(|| address.parse().unwrap());
            Peer { address, local: None, uid: None, certificate: None, passes_on }
        };
        for address in ["127.0.0.1", "127.1.2.3", "::1", ""] {
            assert!(peer(address, false).is_local(), "{address}");
            assert!(!peer(address, true).is_local(), "{address}");
        }
        for address in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(!peer(address, false).is_local(), "{address}");
        }
    }
}
