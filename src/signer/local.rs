//! A private key in memory.

use std::fmt;

use hkdf::Hkdf;
use k256::{
    ecdsa::{SigningKey, VerifyingKey},
    elliptic_curve::Generate,
};
use sha2::Sha256;
use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

use crate::{
    message::Message,
    payment::{Payment, SponsorMessage},
    types::{Address, SealKey, Signature},
};

/// The context of the derived key (HKDF's `info`). A key for another purpose needs another text.
const SEAL_PURPOSE: &[u8] = b"agentpmt-proxy: seal what is stored, 1";

/// A wallet's private key. It wipes itself when dropped, is not copied, and prints nothing but its
/// address.
pub struct LocalKey {
    key: SigningKey,
    address: Address,
}

/// Why a text or the content of a key file is no private key. It never repeats the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a private key is 64 hexadecimal digits, with or without 0x, and a number from 1 to the order \
     of secp256k1 less 1"
)]
pub struct InvalidKey;

impl LocalKey {
    /// A new key, from the operating system's randomness.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give: no key is better than a weak one.
    pub fn random() -> Self {
        Self::new(SigningKey::generate())
    }

    /// The key written as 64 hexadecimal digits, with or without `0x`; white space around it is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] for anything else, for 0, and for a number not below the order of the curve.
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| InvalidKey)?;
        Self::from_bytes(&bytes)
    }

    /// The address of the wallet.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs as EIP-191 says: `r` and a low `s` with a nonce of RFC 6979, then `v`, 27 or 28.
    pub fn sign(&self, message: &Message) -> Signature {
        self.sign_digest(&message.eip191_digest())
    }

    /// Signs the typed data of a payment (EIP-712), in the same form.
    pub fn sign_payment(&self, payment: &Payment) -> Signature {
        self.sign_digest(&payment.digest())
    }

    /// Signs the message by which a payer gives credits to another wallet.
    pub fn sign_sponsor_message(&self, message: &SponsorMessage) -> Signature {
        self.sign_digest(&message.eip191_digest())
    }

    fn sign_digest(&self, digest: &[u8; 32]) -> Signature {
        let (signature, recovery_id) = self.key.sign_prehash_recoverable(digest);
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery_id.to_byte();
        Signature::new(bytes)
    }

    /// A key that seals what is stored: HKDF-SHA256 (RFC 5869) of the private key, without salt. It does
    /// not reveal the private key, which can derive it again.
    pub fn seal_key(&self) -> SealKey {
        let mut bytes = Zeroizing::new([0; 32]);
        // HKDF gives up to 255 times the 32 bytes of a SHA-256.
        Hkdf::<Sha256>::new(None, self.to_bytes().as_slice())
            .expand(SEAL_PURPOSE, bytes.as_mut_slice())
            .expect("32 bytes are few enough");
        SealKey::new(bytes)
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
    }

    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        SigningKey::from_slice(bytes).map(Self::new).map_err(|_| InvalidKey)
    }

    fn new(key: SigningKey) -> Self {
        let address = address_of(key.verifying_key());
        Self { key, address }
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The address that belongs to a public key: the last 20 bytes of the Keccak-256 of its 64
/// uncompressed bytes.
fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    // The first byte is SEC 1's tag for "uncompressed"; it is not hashed.
    let hash: [u8; 32] = Keccak256::digest(&point.as_bytes()[1..]).into();
    let mut address = [0; 20];
    address.copy_from_slice(&hash[12..]);
    Address::new(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    #[test]
    fn a_key_has_the_address_that_other_wallets_show() {
        let key = LocalKey::from_hex(&"42".repeat(32)).unwrap();
        let address = "0x17c5185167401eD00cF5F5b2fc97D9BBfDb7D025".parse().unwrap();
        assert_eq!(key.address(), address);
        assert_eq!(address_of(key.key.verifying_key()), address);
    }

    #[test]
    fn a_key_is_read_with_prefix_and_surrounding_white_space() {
        let digits = "aB".repeat(32);
        let plain = LocalKey::from_hex(&digits).unwrap().address();
        for text in [format!("0x{digits}"), format!(" \t{digits}\r\n"), format!("0x{digits}\n")] {
            assert_eq!(LocalKey::from_hex(&text).unwrap().address(), plain, "{text:?}");
        }
    }

    #[test]
    fn a_key_outside_the_curve_is_refused() {
        for text in [&"0".repeat(64), ORDER, &"f".repeat(64)] {
            assert_eq!(LocalKey::from_hex(text).unwrap_err(), InvalidKey, "{text}");
        }
        assert!(LocalKey::from_hex(&ORDER.replace("4141", "4140")).is_ok());
    }

    #[test]
    fn a_refused_key_is_not_repeated() {
        let digits = "42".repeat(32);
        let spaced = digits.replacen("42", "4 2", 1);
        for text in
            ["", "0x", &digits[1..], &format!("{digits}42"), &format!("0x0x{digits}"), &spaced]
        {
            let error = LocalKey::from_hex(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("4242"), "{text}");
        }
    }

    #[test]
    fn a_wallet_always_has_the_same_seal_key_and_another_wallet_another() {
        let seal_key =
            |digits: &str| *LocalKey::from_hex(&digits.repeat(32)).unwrap().seal_key().expose();
        assert_eq!(seal_key("42"), seal_key("42"));
        assert_ne!(seal_key("42"), seal_key("43"));
        // Of OpenSSL: openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:4242…
        // -kdfopt info:"agentpmt-proxy: seal what is stored, 1" HKDF
        assert_eq!(
            hex::encode(seal_key("42")),
            "06a65e62ddd49a756919fc4c208f1361636550fc7afa752953cfbb876265a405"
        );
    }

    #[test]
    fn random_keys_differ() {
        assert_ne!(LocalKey::random().address(), LocalKey::random().address());
    }

    #[test]
    fn debug_shows_the_address_only() {
        let key = LocalKey::from_hex(&"42".repeat(32)).unwrap();
        let text = format!("{key:?} {key:#?}");
        assert!(text.contains("0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"));
        assert!(!text.contains("4242") && !text.contains("66, 66"), "{text}");
    }
}
