//! Errors of key files and of their directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::key_file::KeyFileError;
use crate::{files::Exposed, types::Address};

/// Why a key was not found, read, opened or saved. Each text is complete: it names the file and
/// says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The operating system refused.
    #[error("cannot {doing} {path}: {cause}; check the path and its permissions")]
    Io {
        /// The verb for what failed.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// Another user of the machine may read or change a key file or the directory.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The file is no key file, or does not open.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        cause: KeyFileError,
    },
    /// There is no key file at all.
    #[error(
        "the folder {0} holds no key file; make one with `agentpmt-proxy wallet new` or bring one with \
         `agentpmt-proxy wallet import`"
    )]
    Empty(PathBuf),
    /// There are several key files, and none is chosen.
    #[error(
        "the folder {dir} holds several wallets ({wallets}); set `wallet` to the address of one"
    )]
    Several {
        /// The directory of keys.
        dir: PathBuf,
        /// The addresses, or the paths of files that do not say theirs.
        wallets: String,
    },
    /// There are key files, but none of the chosen wallet.
    #[error(
        "the folder {dir} holds no key file of {wallet}; see `agentpmt-proxy wallet list`, or bring it with \
         `agentpmt-proxy wallet import`"
    )]
    Missing {
        /// The directory of keys.
        dir: PathBuf,
        /// The chosen wallet.
        wallet: Address,
    },
    /// The wallet that was to be saved is there already.
    #[error("{wallet} is already there, in {path}; to replace it, move that file away first")]
    Exists {
        /// The wallet.
        wallet: Address,
        /// Its key file.
        path: PathBuf,
    },
}

pub(super) fn io_error(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> KeystoreError {
    move |cause| KeystoreError::Io { doing, path: path.to_owned(), cause }
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(KeyFileError) -> KeystoreError {
    move |cause| KeystoreError::File { path: path.to_owned(), cause }
}
