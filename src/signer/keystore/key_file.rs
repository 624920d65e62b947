//! The format of one key file: Web3 Secret Storage, version 3.

use std::fmt;

use aes::Aes128;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit, StreamCipher},
};
use k256::elliptic_curve::{Generate, subtle::ConstantTimeEq};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    bare_address,
    kdf::{Kdf, KdfError},
};
use crate::{signer::local::LocalKey, types::Address};

/// The cost of scrypt, in the names of RFC 7914, section 2.
#[derive(Debug, Clone, Copy)]
pub struct ScryptCost {
    pub(super) n: u64,
    pub(super) r: u64,
    pub(super) p: u64,
}

impl ScryptCost {
    /// geth's standard: 256 MiB and about a second.
    pub const STANDARD: Self = Self { n: 262_144, r: 8, p: 1 };

    /// geth's light one: 4 MiB and a tenth of a second, for the user and for an attacker alike.
    pub const LIGHT: Self = Self { n: 4096, r: 8, p: 6 };
}

/// The length of a private key, in bytes.
const KEY: usize = 32;

/// A private key under a password. Fields that the standard does not name are ignored.
#[derive(Serialize, Deserialize)]
pub(super) struct KeyFile {
    #[serde(default, with = "bare_address", skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
    /// Capitalised in files of the format's first years.
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    version: Version3,
}

/// Why a key file is refused or does not open. Its text is a clause that follows the file's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Another format, or a part of this one that is not supported. The parser's error is left out, since
    /// a file in the wrong place may be a bare private key.
    #[error(
        "it is no key file of Web3 Secret Storage version 3 (JSON with an aes-128-ctr ciphertext \
         of at most 32 bytes, and scrypt or pbkdf2 with hmac-sha256); if you have the bare private \
         key, run `agentpmt-proxy wallet import` without FILE and paste it"
    )]
    Format,
    /// The parameters of the key derivation make no sense or ask for too much.
    #[error("{}", kdf_text(.0))]
    Kdf(#[from] KdfError),
    /// The MAC does not fit. Nothing tells a wrong password from a changed file.
    #[error("the password does not open it; try another, or a backup if the file was damaged")]
    WrongPassword,
    /// The password is right, but the content is no number that can be a private key.
    #[error("the password opens it, but it holds no private key; use a backup of the wallet")]
    NoKey,
    /// The key inside belongs to another wallet than the file, its name or the caller says.
    #[error(
        "it holds the key of {found}, not of {expected}; correct the address in the file or its \
         name, or set `wallet` to {found}"
    )]
    OtherWallet {
        /// The wallet that it should be.
        expected: Address,
        /// The wallet whose key it is.
        found: Address,
    },
}

fn kdf_text(error: &KdfError) -> String {
    match error {
        // It says what to do.
        KdfError::Memory(_) => error.to_string(),
        _ => format!(
            "{error}; write the file again with usual parameters, such as scrypt with n 262144, r 8, p 1"
        ),
    }
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: Cipher,
    cipherparams: CipherParams,
    /// Of 32 bytes, or of fewer: the first programs left out the zeros that a key began with.
    #[serde(with = "hex::serde")]
    ciphertext: Vec<u8>,
    #[serde(flatten)]
    kdf: Kdf,
    #[serde(with = "hex::serde")]
    mac: [u8; 32],
}

#[derive(Serialize, Deserialize)]
enum Cipher {
    #[serde(rename = "aes-128-ctr")]
    Aes128Ctr,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    #[serde(with = "hex::serde")]
    iv: [u8; 16],
}

/// The number 3.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
struct Version3;

impl KeyFile {
    /// The key file in this JSON, with a key derivation that [`KeyFile::decrypt`] will take.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Format`] and [`KeyFileError::Kdf`].
    pub(super) fn from_json(json: &[u8]) -> Result<Self, KeyFileError> {
        let file: Self = serde_json::from_slice(json).map_err(|_| KeyFileError::Format)?;
        if !(1..=KEY).contains(&file.crypto.ciphertext.len()) {
            return Err(KeyFileError::Format);
        }
        file.crypto.kdf.check()?;
        Ok(file)
    }

    /// The wallet of the key, if the file names it. [`KeyFile::decrypt`] checks that.
    pub(super) fn address(&self) -> Option<Address> {
        self.address
    }

    /// The key. It takes what the file's parameters ask for, at most some seconds and 1 GiB.
    ///
    /// # Errors
    ///
    /// All of [`KeyFileError`] but `Format`.
    pub(super) fn decrypt(&self, password: &SecretString) -> Result<LocalKey, KeyFileError> {
        let Crypto { cipherparams: CipherParams { iv }, ciphertext, kdf, mac, .. } = &self.crypto;
        let keys = kdf.derive(password)?;
        let [cipher_key, mac_key] = &*keys;
        if !bool::from(mac_of(mac_key, ciphertext)[..].ct_eq(mac)) {
            return Err(KeyFileError::WrongPassword);
        }
        let mut bytes = Zeroizing::new([0; KEY]);
        // Reading has checked that it is no longer.
        let stated = &mut bytes[KEY.saturating_sub(ciphertext.len())..];
        stated.copy_from_slice(ciphertext);
        apply_cipher(cipher_key, iv, stated);
        let key = LocalKey::from_bytes(&bytes).map_err(|_| KeyFileError::NoKey)?;
        self.check_wallet(key.address()).map(|()| key)
    }

    /// How its key is derived from the password.
    pub(super) fn kdf(&self) -> &Kdf {
        &self.crypto.kdf
    }

    /// The key under a password.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Kdf`].
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    pub(super) fn encrypt_with(
        key: &LocalKey,
        password: &SecretString,
        ScryptCost { n, r, p }: ScryptCost,
    ) -> Result<Self, KeyFileError> {
        let kdf = Kdf::scrypt(n, r, p, Generate::generate());
        let keys = kdf.derive(password)?;
        let [cipher_key, mac_key] = &*keys;
        let iv = Generate::generate();
        let mut bytes = key.to_bytes();
        apply_cipher(cipher_key, &iv, &mut *bytes);
        let ciphertext = bytes.to_vec();
        let mac = mac_of(mac_key, &ciphertext);
        let cipherparams = CipherParams { iv };
        Ok(Self {
            address: Some(key.address()),
            crypto: Crypto { cipher: Cipher::Aes128Ctr, cipherparams, ciphertext, kdf, mac },
            id: Some(Uuid::new_v4()),
            version: Version3,
        })
    }

    /// A file for the same key, which this one has given, under another password.
    pub(super) fn with_password(
        &self,
        key: &LocalKey,
        password: &SecretString,
        cost: ScryptCost,
    ) -> Result<Self, KeyFileError> {
        Ok(Self { id: self.id, ..Self::encrypt_with(key, password, cost)? })
    }

    /// The text of the file.
    pub(super) fn to_json(&self) -> String {
        // Nothing in it is of a kind that JSON does not have.
        let mut text = serde_json::to_string_pretty(self).expect("a key file is JSON");
        text.push('\n');
        text
    }

    /// The same file. If it does not name its wallet, it opens only if its key is that of `wallet`.
    pub(super) fn expecting(self, wallet: Option<Address>) -> Self {
        Self { address: self.address.or(wallet), ..self }
    }

    fn check_wallet(&self, found: Address) -> Result<(), KeyFileError> {
        match self.address {
            Some(expected) if expected != found => {
                Err(KeyFileError::OtherWallet { expected, found })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for KeyFile {
    /// Leaves out everything by which a password could be guessed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("address", &self.address).finish_non_exhaustive()
    }
}

impl TryFrom<u8> for Version3 {
    type Error = &'static str;

    fn try_from(version: u8) -> Result<Self, Self::Error> {
        if version == 3 { Ok(Self) } else { Err("the version is not 3") }
    }
}

impl From<Version3> for u8 {
    fn from(Version3: Version3) -> Self {
        3
    }
}

/// Encrypts and decrypts: the cipher is its own inverse.
fn apply_cipher(key: &[u8; 16], iv: &[u8; 16], bytes: &mut [u8]) {
    Ctr128BE::<Aes128>::new(key.into(), iv.into()).apply_keystream(bytes);
}

fn mac_of(key: &[u8; 16], ciphertext: &[u8]) -> [u8; 32] {
    Keccak256::new_with_prefix(key).chain_update(ciphertext).finalize().into()
}

#[cfg(test)]
mod tests;
