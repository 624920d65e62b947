//! The directory of wallets: one file a private key, under a password.
//!
//! The files are those of geth, `cast wallet` and `eth_account`, so that a key moves in and out
//! with known tools. Their format is written here: the crates for it (eth-keystore, web3-keystore)
//! need older versions of the same cryptography crates, which would come in twice, and neither
//! writes a file with mode 0600.
//!
//! Nothing here is async. The key derivation takes about a second and 256 MiB, so an async caller opens
//! and saves keys on a thread for blocking work.

mod bare_address;
mod folder;
mod kdf;

mod key_file;

mod error;
mod writing;

mod export;
mod locked_key;

use std::{fs, io, path::PathBuf};

use jiff::Timestamp;
use secrecy::SecretString;

pub use self::{
    error::KeystoreError,
    export::ExportedKey,
    kdf::KdfError,
    key_file::{KeyFileError, ScryptCost},
    locked_key::LockedKey,
};
use self::{
    error::{file_error, io_error},
    key_file::KeyFile,
};
use super::local::LocalKey;
use crate::{files, types::Address};

/// A directory of key files.
#[derive(Debug, Clone)]
pub struct Keystore {
    dir: PathBuf,
}

impl Keystore {
    /// The directory at this path. It need not exist before [`Keystore::save`] creates it.
    ///
    /// The path is made absolute, so that a message tells where the directory is.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { dir: std::path::absolute(&dir).unwrap_or(dir) }
    }

    /// The keys of the directory, in the order of their file names; none if there is no such directory. A
    /// file that is no key file is listed as its error, so that no wallet is missing without a word; one
    /// that others may read is listed as well. Hidden files and directories are left out.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Io`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Result<LockedKey, KeystoreError>>, KeystoreError> {
        let files = self.files().map_err(io_error("read", &self.dir))?;
        Ok(files.into_iter().map(LockedKey::read).collect())
    }

    /// The one key to use: the chosen wallet's, or without choice the only one.
    ///
    /// A file that says its address neither inside nor in its name is taken for the chosen wallet's
    /// only if there is no other; [`LockedKey::unlock`] then finds out.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Empty`], [`KeystoreError::Several`], [`KeystoreError::Missing`];
    /// [`KeystoreError::Exposed`] if another user may read or change the file, or list or fill the
    /// directory; [`KeystoreError::Io`]; or, if the directory holds nothing but files that
    /// are no key files, what is wrong with the first.
    pub fn find(&self, wallet: Option<Address>) -> Result<LockedKey, KeystoreError> {
        let mut keys = Vec::new();
        let mut refused = None;
        for key in self.list()? {
            match key {
                Ok(key) => keys.push(key),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if keys.is_empty() {
            return Err(refused.unwrap_or_else(|| KeystoreError::Empty(self.dir.clone())));
        }
        let key = self.choose(keys, wallet)?.for_owner_alone()?;
        self.check_closed()?;
        Ok(key)
    }

    /// Checks that the wallet can be saved, before the user is asked for a password.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Exists`] if the wallet is there already; [`KeystoreError::Io`].
    pub fn check_absent(&self, wallet: Address) -> Result<(), KeystoreError> {
        match self.list()?.into_iter().flatten().find(|key| key.wallet() == Some(wallet)) {
            Some(key) => Err(KeystoreError::Exists { wallet, path: key.path().to_owned() }),
            None => Ok(()),
        }
    }

    /// Saves a key under a password, in a new file that only its owner may read, named as geth
    /// names it. The file is whole on the disk or not there; no file is ever overwritten.
    ///
    /// The directory is closed to group and others, as [`Keystore::find`] demands, unless it holds more
    /// than keys. This matters in a clone of the repository, which has an empty one that is open to all.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Exists`] if the wallet is there already; [`KeystoreError::Exposed`];
    /// [`KeystoreError::File`] if there is no memory for the cost; [`KeystoreError::Io`].
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    pub fn save(
        &self,
        key: &LocalKey,
        password: &SecretString,
        cost: ScryptCost,
    ) -> Result<PathBuf, KeystoreError> {
        let wallet = key.address();
        self.check_absent(wallet)?;
        folder::create(&self.dir).map_err(io_error("create", &self.dir))?;
        self.close()?;
        let path = self.dir.join(file_name(wallet));
        let file = KeyFile::encrypt_with(key, password, cost).map_err(file_error(&path))?;
        writing::create(&path, &file).map_err(io_error("write", &path))?;
        Ok(path)
    }

    fn check_closed(&self) -> Result<(), KeystoreError> {
        let data = fs::metadata(&self.dir).map_err(io_error("read", &self.dir))?;
        Ok(files::check_secret_folder(&self.dir, &data)?)
    }

    /// Closes the directory to group and others, if it holds keys and hidden files alone.
    fn close(&self) -> Result<(), KeystoreError> {
        let Err(open) = self.check_closed() else { return Ok(()) };
        let keys = self.list()?.into_iter().filter(Result::is_ok).count();
        let all = self.entries().map_err(io_error("read", &self.dir))?.len();
        let shared = folder::is_shared(&self.dir).map_err(io_error("read", &self.dir))?;
        if shared || keys < all {
            return Err(open);
        }
        folder::close(&self.dir).map_err(io_error("close", &self.dir))
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = self.entries()?;
        // A path whose kind is unknown is kept, since reading it tells why. A pipe is not, since reading
        // it would wait.
        paths.retain(|path| fs::metadata(path).map_or(true, |data| data.is_file()));
        paths.sort();
        Ok(paths)
    }

    /// The entries of the directory in any order, without hidden ones.
    fn entries(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let listing = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
            listing => listing?,
        };
        for item in listing {
            let item = item?;
            if !item.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(item.path());
            }
        }
        Ok(paths)
    }

    /// Chooses one of these keys, of which there is at least one.
    fn choose(
        &self,
        mut keys: Vec<LockedKey>,
        wallet: Option<Address>,
    ) -> Result<LockedKey, KeystoreError> {
        let dir = || self.dir.clone();
        let alone = keys.len() == 1;
        match wallet {
            None if alone => Ok(keys.remove(0)),
            None => Err(KeystoreError::Several { dir: dir(), wallets: names(&keys) }),
            Some(wallet) => {
                let fits = |key: &LockedKey| key.wallet().map_or(alone, |stated| stated == wallet);
                let key = keys.into_iter().find(fits);
                let key = key.ok_or_else(|| KeystoreError::Missing { dir: dir(), wallet })?;
                Ok(key.expecting(wallet))
            }
        }
    }
}

fn names(keys: &[LockedKey]) -> String {
    let name = |key: &LockedKey| match key.wallet() {
        Some(wallet) => wallet.to_string(),
        None => key.path().display().to_string(),
    };
    keys.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The name that geth would give: `UTC--2016-03-22T12-57-55.920751759Z--` and the address.
fn file_name(wallet: Address) -> String {
    let time = Timestamp::now().strftime("UTC--%Y-%m-%dT%H-%M-%S.%9fZ");
    format!("{time}--{}", bare_address::digits(wallet))
}

#[cfg(test)]
mod tests;
