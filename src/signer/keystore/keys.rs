//! The directory of key files.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use secrecy::SecretString;

use super::{
    KeysError, LockedKey, bare_address,
    error::io_error,
    key_file::{KeyFile, STANDARD, ScryptCost},
    locked_key::{load, read},
    permissions,
};
use crate::{signer::Signer, types::Address};

/// A directory of key files.
#[derive(Debug, Clone)]
pub struct Keys {
    dir: PathBuf,
}

/// A key file in the directory.
#[derive(Debug)]
pub struct Entry {
    /// Where the file is.
    pub path: PathBuf,
    /// The wallet, as the file or its name says; [`LockedKey::unlock`] checks it. `cast` writes it
    /// to neither.
    pub wallet: Option<Address>,
}

impl Keys {
    /// The directory at this path. It need not exist before [`Keys::save`] creates it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The files of the directory by name; none if there is no such directory. A file that is no
    /// key file stands there as its error, so that nobody misses a wallet without a word; names
    /// that begin with a dot, and directories, are left out.
    ///
    /// # Errors
    ///
    /// [`KeysError::Io`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Result<Entry, KeysError>>, KeysError> {
        Ok(self.files().map_err(io_error("read", &self.dir))?.into_iter().map(entry).collect())
    }

    /// The one key file to use: the chosen wallet's, or without choice the only one.
    ///
    /// A file that says its address neither inside nor in its name is taken for the chosen wallet's
    /// only if there is no other; [`LockedKey::unlock`] then finds out.
    ///
    /// # Errors
    ///
    /// [`KeysError::Empty`], [`KeysError::Several`], [`KeysError::Missing`]; or, if the directory
    /// holds nothing but files that are no key files, what is wrong with the first.
    pub fn find(&self, wallet: Option<Address>) -> Result<Entry, KeysError> {
        let mut entries = Vec::new();
        let mut refused = None;
        for entry in self.list()? {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match (wallet, entries.len()) {
            (_, 0) => Err(refused.unwrap_or_else(|| KeysError::Empty { dir: self.dir.clone() })),
            (Some(wallet), _) => self.chosen(entries, wallet),
            (None, 1) => Ok(entries.remove(0)),
            (None, _) => {
                Err(KeysError::Several { dir: self.dir.clone(), wallets: names(&entries) })
            }
        }
    }

    /// Saves a key under a password, in a new file that only its owner may read, named as geth
    /// names it. The file is whole on the disk or not there; no file is ever overwritten.
    ///
    /// # Errors
    ///
    /// [`KeysError::Exists`] if the wallet is there already; [`KeysError::Io`].
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    pub fn save(&self, signer: &Signer, password: &SecretString) -> Result<PathBuf, KeysError> {
        self.save_at_cost(signer, password, STANDARD)
    }

    fn save_at_cost(
        &self,
        signer: &Signer,
        password: &SecretString,
        cost: ScryptCost,
    ) -> Result<PathBuf, KeysError> {
        let wallet = signer.address();
        if let Some(entry) = self.list()?.into_iter().flatten().find(|e| e.wallet == Some(wallet)) {
            return Err(KeysError::Exists { wallet, path: entry.path });
        }
        permissions::create_dir(&self.dir).map_err(io_error("create", &self.dir))?;
        let file = KeyFile::encrypt_with(signer, password, cost);
        let path = self.dir.join(file_name(wallet));
        self.write(&path, &file).map_err(io_error("write", &path))?;
        Ok(path)
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
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
        // What cannot be looked at is kept: reading it tells why. A pipe is not: reading it waits.
        paths.retain(|path| fs::metadata(path).map_or(true, |data| data.is_file()));
        paths.sort();
        Ok(paths)
    }

    fn chosen(&self, entries: Vec<Entry>, wallet: Address) -> Result<Entry, KeysError> {
        let alone = entries.len() == 1;
        let fits = |entry: &Entry| entry.wallet.map_or(alone, |stated| stated == wallet);
        match entries.into_iter().find(fits) {
            Some(entry) => Ok(Entry { wallet: Some(wallet), ..entry }),
            None => Err(KeysError::Missing { dir: self.dir.clone(), wallet }),
        }
    }

    fn write(&self, path: &Path, file: &KeyFile) -> io::Result<()> {
        // tempfile creates it new and with mode 0600; the dot hides it from `list`.
        let mut temporary = tempfile::Builder::new().prefix(".").tempfile_in(&self.dir)?;
        temporary.write_all(&serde_json::to_vec_pretty(file)?)?;
        temporary.as_file().sync_all()?;
        temporary.persist_noclobber(path)?;
        // The new name survives a loss of power only once the directory is on the disk.
        File::open(&self.dir)?.sync_all()
    }
}

impl Entry {
    /// Reads the file; everything that can be checked without the password is.
    ///
    /// # Errors
    ///
    /// [`KeysError::Io`], [`KeysError::Exposed`], [`KeysError::File`].
    pub fn load(&self) -> Result<LockedKey, KeysError> {
        let locked = load(&self.path)?;
        Ok(match self.wallet {
            Some(wallet) => locked.expecting(wallet),
            None => locked,
        })
    }
}

fn entry(path: PathBuf) -> Result<Entry, KeysError> {
    let source = File::open(&path).map_err(io_error("open", &path))?;
    let wallet = read(&path, source)?.address().or_else(|| address_in_name(&path));
    Ok(Entry { path, wallet })
}

fn address_in_name(path: &Path) -> Option<Address> {
    let name = path.file_name()?.to_str()?;
    name.split(|c: char| !c.is_ascii_alphanumeric()).find_map(|part| bare_address::parse(part).ok())
}

fn names(entries: &[Entry]) -> String {
    let name = |entry: &Entry| match entry.wallet {
        Some(wallet) => wallet.to_string(),
        None => entry.path.display().to_string(),
    };
    entries.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// As geth has it: `UTC--2016-03-22T12-57-55.920751759Z--` and the address.
fn file_name(wallet: Address) -> String {
    let time = Timestamp::now().strftime("UTC--%Y-%m-%dT%H-%M-%S.%9fZ");
    format!("{time}--{}", bare_address::digits(wallet))
}

#[cfg(test)]
mod tests;
