//! The evidence of a caller: by what it is known as a client.

use std::{fmt, net::IpAddr};

use crate::types::{CertificateHash, ClientToken, InvalidToken};

/// The evidence that a caller gives, whatever face it comes through.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The token that it gives, or why what it gives is none.
    pub token: Option<Result<ClientToken, InvalidToken>>,
    /// Its TLS certificate, which was verified.
    pub certificate: Option<CertificateHash>,
    /// The user that its process runs as, over a unix socket.
    pub uid: Option<u32>,
    /// Its address; over a unix socket there is none.
    pub address: Option<IpAddr>,
    /// Whether it may be the owner of this process, who may call as long as no client was added.
    pub is_owner: bool,
}

/// How the journal names a caller that is no client: by its address, or by its user id on a socket.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.uid) {
            (Some(address), _) => address.fmt(f),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_is_no_client_is_named_by_its_address_or_its_user() {
        let evidence = |address: &str, uid| {
            Evidence { address: address.parse().ok(), uid, ..Evidence::default() }.to_string()
        };
        assert_eq!(evidence("192.0.2.1", None), "192.0.2.1");
        assert_eq!(evidence("", Some(7)), "uid 7");
        assert_eq!(evidence("", None), "unknown");
    }
}
