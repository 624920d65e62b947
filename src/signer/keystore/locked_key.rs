//! Opening one key file, in two steps: all that can be checked without the password, then the key.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    bare_address,
    error::{KeystoreError, file_error, io_error},
    key_file::{KeyFile, ScryptCost},
    writing,
};
use crate::{
    files::{self, Exposed},
    signer::local::LocalKey,
    types::Address,
};

/// The most that is read of a key file, in bytes; one takes about 500.
const MAX_FILE: usize = 64 * 1024;

/// A key file that has been read and waits for its password.
#[derive(Debug)]
pub struct LockedKey {
    path: PathBuf,
    file: KeyFile,
    /// Whether another user may read or change it.
    exposed: Result<(), Exposed>,
}

impl LockedKey {
    /// Reads a key file, even if other users may read it, and checks all that can be checked without the
    /// password.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Io`]; [`KeystoreError::File`] if it is no key file.
    pub fn read(path: PathBuf) -> Result<Self, KeystoreError> {
        let source = files::open(&path).map_err(io_error("open the key file", &path))?;
        let metadata = source.metadata().map_err(io_error("read", &path))?;
        // Wiped, since a file in the wrong place may be a bare private key, and large enough never to
        // grow, which would leave a copy behind.
        let mut json = Zeroizing::new(Vec::with_capacity(MAX_FILE + 64));
        source.take(MAX_FILE as u64).read_to_end(&mut json).map_err(io_error("read", &path))?;
        let file = KeyFile::from_json(&json).map_err(file_error(&path))?;
        let file = file.expecting(bare_address::in_name(&path));
        Ok(Self { exposed: files::check_secret(&path, &metadata), path, file })
    }

    /// Where the file is, for the question for its password.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The wallet whose key it must be, as the file, its name or the user's choice says. `cast` writes it
    /// to neither file nor name.
    pub fn wallet(&self) -> Option<Address> {
        self.file.address()
    }

    /// How much memory unlocking it takes, in MiB.
    pub fn memory(&self) -> u64 {
        self.file.kdf().memory()
    }

    /// Whether the system gives that memory now.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::File`] if not.
    pub fn check_memory(&self) -> Result<(), KeystoreError> {
        let checked = self.file.kdf().check_memory();
        checked.map_err(|error| file_error(&self.path)(error.into()))
    }

    /// The key. It takes what the file asks for, usually a second and 256 MiB, at most some seconds
    /// and 1 GiB.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::File`], with
    /// [`KeyFileError::WrongPassword`](super::key_file::KeyFileError::WrongPassword) if another password may help.
    pub fn unlock(&self, password: &SecretString) -> Result<LocalKey, KeystoreError> {
        self.file.decrypt(password).map_err(file_error(&self.path))
    }

    /// Writes the file anew, with the key that it holds under another password. The file is the old
    /// one or the new one at every moment, and only its owner may read it.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::File`] if there is no memory for the cost, or [`KeystoreError::Io`]: the file is
    /// as it was.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    pub fn rewrite(
        &self,
        key: &LocalKey,
        password: &SecretString,
        cost: ScryptCost,
    ) -> Result<(), KeystoreError> {
        let file = self.file.with_password(key, password, cost);
        let file = file.map_err(file_error(&self.path))?;
        writing::replace(&self.path, &file).map_err(io_error("write", &self.path))
    }

    /// The same key file. If it does not name its wallet, it unlocks only if its key is that of `wallet`.
    pub(super) fn expecting(self, wallet: Address) -> Self {
        Self { file: self.file.expecting(Some(wallet)), ..self }
    }

    /// The same key file, unless other users may read or change it.
    pub(super) fn for_owner_alone(self) -> Result<Self, KeystoreError> {
        self.exposed.clone()?;
        Ok(self)
    }
}
