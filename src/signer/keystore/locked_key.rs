//! Opening one key file, in two steps: all that can be checked without the password, then the key.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::{
    KeysError,
    error::{file_error, io_error},
    key_file::KeyFile,
    permissions,
};
use crate::{signer::Signer, types::Address};

/// What is read of a key file, in bytes; one takes about 500.
const MAX_FILE: u64 = 64 * 1024;

/// A key file that has been read and waits for its password.
#[derive(Debug)]
pub struct LockedKey {
    path: PathBuf,
    file: KeyFile,
}

impl LockedKey {
    /// Where the file is, for the question for its password.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The wallet that the key must turn out to be of, if anything says so.
    pub fn wallet(&self) -> Option<Address> {
        self.file.address()
    }

    /// The key. It takes what the file asks for, usually a second and 256 MiB, at most some seconds
    /// and 1 GiB.
    ///
    /// # Errors
    ///
    /// [`KeysError::File`], with
    /// [`KeyFileError::WrongPassword`](super::KeyFileError::WrongPassword) if another password may help.
    pub fn unlock(&self, password: &SecretString) -> Result<Signer, KeysError> {
        self.file.decrypt(password).map_err(file_error(&self.path))
    }

    /// The same, which unlocks only if the key is this wallet's, whatever the file says.
    pub(super) fn expecting(self, wallet: Address) -> Self {
        Self { file: self.file.expecting(wallet), ..self }
    }
}

/// Reads a key file; everything that can be checked without the password is.
///
/// # Errors
///
/// [`KeysError::Io`]; [`KeysError::Exposed`] if group or others have any permission on the file;
/// [`KeysError::File`] if it is no key file.
pub(super) fn load(path: &Path) -> Result<LockedKey, KeysError> {
    let source = File::open(path).map_err(io_error("open", path))?;
    if let Some(mode) = permissions::exposed_mode(&source).map_err(io_error("read", path))? {
        return Err(KeysError::Exposed { path: path.to_owned(), mode });
    }
    Ok(LockedKey { path: path.to_owned(), file: read(path, source)? })
}

/// The key file behind an open file, whatever its mode.
pub(super) fn read(path: &Path, source: File) -> Result<KeyFile, KeysError> {
    let mut json = Vec::new();
    source.take(MAX_FILE).read_to_end(&mut json).map_err(io_error("read", path))?;
    KeyFile::from_json(&json).map_err(file_error(path))
}
