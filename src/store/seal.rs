//! Sealing of secrets at rest: XChaCha20-Poly1305 under keys that the caller of [`Store::open`] gives.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{AeadInOut, Generate},
};
use zeroize::Zeroizing;

use super::error::Fault;
use crate::types::SealKey;

/// The length of a nonce, in bytes: long enough to be random for every value.
const NONCE: usize = 24;

/// Seals and opens. Every value is bound to its place, so that rows cannot be exchanged.
///
/// It seals with the first of its keys and opens with any, so that what was stored before another
/// wallet became the first still opens.
pub(super) struct Seal(Vec<XChaCha20Poly1305>);

/// Where a sealed value stands.
pub(super) struct Place<'a> {
    /// The name of the value in errors.
    pub(super) what: &'static str,
    /// The key of its row.
    pub(super) row: [&'a str; 2],
}

impl Seal {
    pub(super) fn new(keys: &[SealKey]) -> Self {
        Self(keys.iter().map(|key| XChaCha20Poly1305::new(key.expose().into())).collect())
    }

    /// The sealed form: cipher text, tag and nonce.
    pub(super) fn seal(&self, place: &Place<'_>, mut value: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let nonce = XNonce::try_generate().map_err(|error| Fault::Io {
            doing: "get randomness to seal with",
            cause: error.to_string(),
        })?;
        let refused = || Fault::Sealed(place.what);
        let cipher = self.0.first().ok_or_else(refused)?;
        // The cipher refuses only values of more than 256 GiB.
        let sealed = cipher.encrypt_in_place(&nonce, &place.to_bytes(), &mut value);
        sealed.map_err(|_| refused())?;
        value.extend_from_slice(&nonce);
        Ok(value)
    }

    /// The value that was sealed at this place with one of the keys.
    pub(super) fn open(
        &self,
        place: &Place<'_>,
        mut sealed: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let refused = Fault::Sealed(place.what);
        let Some(length) = sealed.len().checked_sub(NONCE) else { return Err(refused) };
        let nonce = XNonce::try_from(&sealed[length..]).map_err(|_| refused.clone())?;
        sealed.truncate(length);
        for cipher in &self.0 {
            let mut value = Zeroizing::new(sealed.clone());
            if cipher.decrypt_in_place(&nonce, &place.to_bytes(), &mut *value).is_ok() {
                return Ok(value);
            }
        }
        Err(refused)
    }
}

impl Place<'_> {
    /// Each part with its length before it, so that no two places have the same bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let parts = [self.what, self.row[0], self.row[1]];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(byte: u8) -> Seal {
        Seal::new(&[key(byte)])
    }

    fn key(byte: u8) -> SealKey {
        SealKey::new(Zeroizing::new([byte; 32]))
    }

    const HERE: Place<'_> = Place { what: "token", row: ["ab", "c"] };

    #[test]
    fn a_value_opens_at_its_place_with_its_key_only() {
        let sealed = seal(1).seal(&HERE, b"secret".to_vec()).unwrap();
        assert_eq!(**seal(1).open(&HERE, sealed.clone()).unwrap(), *b"secret");
        let refused = Err(Fault::Sealed("token"));
        assert_eq!(seal(2).open(&HERE, sealed.clone()), refused);
        let elsewhere = Place { what: "token", row: ["a", "bc"] };
        assert_eq!(seal(1).open(&elsewhere, sealed.clone()), refused);
    }

    #[test]
    fn what_another_key_has_sealed_opens_while_that_one_is_held() {
        let sealed = seal(1).seal(&HERE, b"secret".to_vec()).unwrap();
        let both = Seal::new(&[key(2), key(1)]);
        assert_eq!(**both.open(&HERE, sealed).unwrap(), *b"secret");
        let sealed = both.seal(&HERE, b"new".to_vec()).unwrap();
        assert_eq!(**seal(2).open(&HERE, sealed.clone()).unwrap(), *b"new");
        assert!(seal(1).open(&HERE, sealed).is_err());
    }

    #[test]
    fn no_altered_or_shortened_value_opens() {
        let sealed = seal(1).seal(&HERE, b"secret".to_vec()).unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(seal(1).open(&HERE, altered), Err(Fault::Sealed("token")), "byte {at}");
            assert!(seal(1).open(&HERE, sealed[..at].to_vec()).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn equal_values_are_sealed_differently() {
        let sealed = || seal(1).seal(&HERE, b"secret".to_vec()).unwrap();
        assert_ne!(sealed(), sealed());
    }
}
