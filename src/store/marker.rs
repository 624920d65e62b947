//! The file beside the database that says that clients were added: with it, a database without clients
//! is one that was lost, and not one that never had any.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::file::{folder, sync};

const TEXT: &str = "\
Clients were added to the proxy.db in this folder. As long as this file is here, agentpmt-proxy does not
start when they are lost: otherwise every program on this machine could call.
";

/// Where it stands.
pub(super) fn path(database: &Path) -> PathBuf {
    folder(database).join("clients-required")
}

/// Whether clients were added and not all removed since.
pub(super) fn stands(database: &Path) -> io::Result<bool> {
    path(database).try_exists()
}

/// Puts it there, to survive a loss of power.
pub(super) fn set(database: &Path) -> io::Result<()> {
    let path = path(database);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(TEXT.as_bytes())?;
            file.sync_all()?;
            sync(folder(&path))
        }
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// Takes it away, as there are no clients any more.
pub(super) fn clear(database: &Path) -> io::Result<()> {
    match fs::remove_file(path(database)) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
        _ => sync(folder(database)),
    }
}
