//! From a password to a key: the `kdf` and `kdfparams` of a key file.

use std::hint::black_box;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The bytes that the format uses. They are also right for a file with a greater `dklen`: both functions
/// end in PBKDF2, and a longer output of it begins with the shorter one.
const DKLEN: u64 = 32;
const MAX_DKLEN: u64 = 128;

/// One MiB, in bytes.
const MIB: u64 = 1 << 20;

/// 1 GiB, for scrypt's table: 128 bytes × n × r.
const MAX_TABLE: u64 = 1 << 30;
/// 1 MiB, for scrypt's blocks: 128 bytes × r × p.
const MAX_BLOCKS: u64 = 1 << 20;
/// n × r × p: eight times geth's standard, some seconds.
const MAX_SCRYPT_WORK: u64 = 1 << 24;
/// Ten times what `eth_account` takes, some seconds.
const MAX_ROUNDS: u32 = 10_000_000;

/// Why the parameters of a key derivation are refused. A file could otherwise ask for all memory of
/// the machine, or for years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// `dklen` is too small for the format, or absurd.
    #[error("dklen must be 32 to 128")]
    DerivedLength,
    /// scrypt is not defined for these numbers.
    #[error("scrypt's n must be a power of two above 1, its r and p above 0")]
    Scrypt,
    /// scrypt would take more memory or time than this program gives.
    #[error("scrypt's n, r and p ask for more than 1 GiB of memory or for too much time")]
    ScryptCost,
    /// The system does not give scrypt this much memory, in MiB.
    #[error(
        "unlocking takes {0} MiB of memory, and the system gives less; raise the limit of the \
         process (ulimit -v), or make a key file that takes 4 MiB, with --light of \
         `agentpmt-proxy wallet new` or, where there is memory, of `agentpmt-proxy wallet passwd`"
    )]
    Memory(u64),
    /// PBKDF2 would take no time at all, or too much.
    #[error("pbkdf2's c must be 1 to 10000000")]
    Rounds,
}

/// A key derivation function with its parameters, as a key file states them.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
pub(super) enum Kdf {
    Scrypt {
        n: u64,
        r: u64,
        p: u64,
        dklen: u64,
        #[serde(with = "hex::serde")]
        salt: Vec<u8>,
    },
    Pbkdf2 {
        c: u64,
        prf: Prf,
        dklen: u64,
        #[serde(with = "hex::serde")]
        salt: Vec<u8>,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) enum Prf {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

/// Parameters that are within the limits.
enum Work {
    Scrypt(scrypt::Params),
    Pbkdf2 { rounds: u32 },
}

impl Kdf {
    /// scrypt with these costs.
    pub(super) fn scrypt(n: u64, r: u64, p: u64, salt: [u8; 32]) -> Self {
        Self::Scrypt { n, r, p, dklen: DKLEN, salt: salt.to_vec() }
    }

    /// Whether [`Kdf::derive`] would accept the parameters. This takes no time.
    pub(super) fn check(&self) -> Result<(), KdfError> {
        self.work().map(drop)
    }

    /// How much memory [`Kdf::derive`] takes, in MiB.
    pub(super) fn memory(&self) -> u64 {
        match self {
            // Reading has checked that it is at most [`MAX_TABLE`].
            Self::Scrypt { n, r, .. } => (128 * n * r).div_ceil(MIB).max(1),
            Self::Pbkdf2 { .. } => 1,
        }
    }

    /// Whether the system gives that memory now. scrypt does not check, and would abort the process.
    pub(super) fn check_memory(&self) -> Result<(), KdfError> {
        let memory = self.memory();
        // With some more for its blocks.
        let bytes = usize::try_from((memory + 1) * MIB).map_err(|_| KdfError::Memory(memory))?;
        let mut table = Vec::<u8>::new();
        let given = table.try_reserve_exact(bytes);
        // Keeps the compiler from removing the allocation.
        black_box(&table);
        given.map_err(|_| KdfError::Memory(memory))
    }

    /// The cipher's key, then the MAC's. Takes up to some seconds and 1 GiB.
    pub(super) fn derive(
        &self,
        password: &SecretString,
    ) -> Result<Zeroizing<[[u8; 16]; 2]>, KdfError> {
        let password = password.expose_secret().as_bytes();
        let mut keys = Zeroizing::new([[0; 16]; 2]);
        let output = keys.as_flattened_mut();
        let work = self.work()?;
        self.check_memory()?;
        match work {
            Work::Scrypt(params) => scrypt::scrypt(password, self.salt(), &params, output)
                .map_err(|_| KdfError::DerivedLength)?,
            Work::Pbkdf2 { rounds } => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password, self.salt(), rounds, output);
            }
        }
        Ok(keys)
    }

    fn work(&self) -> Result<Work, KdfError> {
        let (Self::Scrypt { dklen, .. } | Self::Pbkdf2 { dklen, .. }) = *self;
        if !(DKLEN..=MAX_DKLEN).contains(&dklen) {
            return Err(KdfError::DerivedLength);
        }
        match *self {
            Self::Scrypt { n, r, p, .. } => scrypt_params(n, r, p).map(Work::Scrypt),
            Self::Pbkdf2 { c, .. } => match u32::try_from(c) {
                Ok(rounds @ 1..=MAX_ROUNDS) => Ok(Work::Pbkdf2 { rounds }),
                _ => Err(KdfError::Rounds),
            },
        }
    }

    fn salt(&self) -> &[u8] {
        let (Self::Scrypt { salt, .. } | Self::Pbkdf2 { salt, .. }) = self;
        salt
    }
}

fn scrypt_params(n: u64, r: u64, p: u64) -> Result<scrypt::Params, KdfError> {
    if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
        return Err(KdfError::Scrypt);
    }
    let product = |factors: [u64; 3]| factors.into_iter().fold(1, u64::saturating_mul);
    if product([128, n, r]) > MAX_TABLE
        || product([128, r, p]) > MAX_BLOCKS
        || product([n, r, p]) > MAX_SCRYPT_WORK
    {
        return Err(KdfError::ScryptCost);
    }
    let narrow = |number| u32::try_from(number).map_err(|_| KdfError::ScryptCost);
    let log_n = u8::try_from(n.ilog2()).map_err(|_| KdfError::ScryptCost)?;
    scrypt::Params::new(log_n, narrow(r)?, narrow(p)?).map_err(|_| KdfError::ScryptCost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrypt(n: u64, r: u64, p: u64, dklen: u64) -> Kdf {
        Kdf::Scrypt { n, r, p, dklen, salt: vec![] }
    }

    fn pbkdf2(c: u64, dklen: u64) -> Kdf {
        Kdf::Pbkdf2 { c, prf: Prf::HmacSha256, dklen, salt: vec![] }
    }

    fn refusal(kdf: &Kdf) -> KdfError {
        let error = kdf.derive(&"password".into()).unwrap_err();
        assert_eq!(kdf.check(), Err(error));
        error
    }

    #[test]
    fn numbers_without_meaning_are_refused() {
        for (n, r, p) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (u64::MAX, 8, 1), (2, 0, 1), (2, 8, 0)] {
            assert_eq!(refusal(&scrypt(n, r, p, 32)), KdfError::Scrypt, "{n} {r} {p}");
        }
        assert_eq!(refusal(&pbkdf2(0, 32)), KdfError::Rounds);
    }

    #[test]
    fn absurd_costs_are_refused() {
        let (big, huge) = (1 << 32, 1 << 63);
        let scrypts = [
            (1 << 40, 8, 1),
            (huge, 1, 1),
            (2, huge, 1),
            (2, 8, u64::MAX),
            (2, 1 << 20, 1 << 20),
            (big, big, big),
            (1 << 21, 8, 1),
            (1 << 18, 8, 16),
        ];
        for (n, r, p) in scrypts {
            assert_eq!(refusal(&scrypt(n, r, p, 32)), KdfError::ScryptCost, "{n} {r} {p}");
        }
        for c in [10_000_001, big, big + 1, u64::MAX] {
            assert_eq!(refusal(&pbkdf2(c, 32)), KdfError::Rounds, "{c}");
        }
    }

    #[test]
    fn a_derived_key_of_another_length_is_refused() {
        for dklen in [0, 16, 31, 129, 1 << 31, u64::MAX] {
            assert_eq!(refusal(&scrypt(2, 8, 1, dklen)), KdfError::DerivedLength, "{dklen}");
            assert_eq!(refusal(&pbkdf2(1, dklen)), KdfError::DerivedLength, "{dklen}");
        }
    }

    #[test]
    fn a_longer_derived_key_begins_with_the_32_bytes_in_use() {
        let mut long = [0; 64];
        scrypt::scrypt(b"password", b"", &scrypt_params(2, 8, 1).unwrap(), &mut long).unwrap();
        let keys = scrypt(2, 8, 1, 64).derive(&"password".into()).unwrap();
        assert_eq!(keys.as_flattened(), &long[..32]);

        pbkdf2::pbkdf2_hmac::<Sha256>(b"password", b"", 2, &mut long);
        let keys = pbkdf2(2, 64).derive(&"password".into()).unwrap();
        assert_eq!(keys.as_flattened(), &long[..32]);
    }

    #[test]
    fn the_costs_that_wallets_use_are_taken() {
        // geth's standard and light, the definition's example, 1 GiB, then eth_account's pbkdf2.
        for (n, r, p) in [(1 << 18, 8, 1), (1 << 12, 8, 6), (1 << 18, 1, 8), (1 << 20, 8, 1)] {
            assert_eq!(scrypt(n, r, p, 32).check(), Ok(()), "{n} {r} {p}");
        }
        assert_eq!(pbkdf2(1_000_000, 32).check(), Ok(()));
    }
}
