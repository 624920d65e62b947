//! The key that seals secrets at rest.

use std::fmt;

use zeroize::Zeroizing;

/// A symmetric key of 32 bytes. It wipes itself when dropped, is not copied, and prints nothing.
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// The key with these bytes, which must be as good as random.
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the cipher only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_key_does_not_print() {
        let text = format!("{:?}", SealKey::new(Zeroizing::new([0x42; 32])));
        assert_eq!(text, "SealKey([REDACTED])");
    }
}
