//! A key for another program.

use std::path::Path;

use secrecy::SecretString;

use super::{
    error::{KeystoreError, io_error},
    key_file::{KeyFile, KeyFileError, ScryptCost},
    writing,
};
use crate::signer::local::LocalKey;

/// A copy of a key under a password of its own, as a V3 key file.
#[derive(Debug)]
pub struct ExportedKey(KeyFile);

impl ExportedKey {
    /// The key under this password. It takes about a second and 256 MiB.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Kdf`] if there is not that much memory.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    pub fn new(key: &LocalKey, password: &SecretString) -> Result<Self, KeyFileError> {
        KeyFile::encrypt_with(key, password, ScryptCost::STANDARD).map(Self)
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        self.0.to_json()
    }

    /// Writes a new file that only its owner may read.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Io`], also if there is a file at this path.
    pub fn save(&self, path: &Path) -> Result<(), KeystoreError> {
        writing::create(path, &self.0).map_err(io_error("create", path))
    }
}
