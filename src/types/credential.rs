//! The evidence by which a client is known.

use sha2::{Digest, Sha256};

use super::client_token::TokenHash;

/// The evidence by which a client is known, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A bearer token.
    Token(TokenHash),
    /// A client certificate of a TLS connection.
    Certificate(CertificateHash),
    /// The user id of the process at the other end of a unix socket.
    Uid(u32),
}

/// SHA-256 of the DER form of an end-entity certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// The hash with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash of this certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
