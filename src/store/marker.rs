//! The file beside the database that says that clients were added. With it, a database without clients has
//! lost them; without it, there never were any.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    client_rows,
    db::Db,
    error::Fault,
    files::{folder, sync},
};

const TEXT: &str = "\
Clients were added to the proxy.db in this folder. As long as this file is here, agentpmt-proxy does not
start when they are lost: otherwise every program on this machine could call.
";

/// The path of the marker.
pub(super) fn path(database: &Path) -> PathBuf {
    folder(database).join("clients-required")
}

/// Refuses a database that has lost its clients. A database with clients and without the marker gets it.
pub(super) fn check(database: &Path, db: &Db) -> Result<(), Fault> {
    match update(database, db) {
        Err(fault) if !stands(database)? && client_rows::exist(db)? => {
            let marker = path(database);
            tracing::warn!(
                "{}: cannot make it ({fault}), so a loss of the clients would not be seen",
                marker.display()
            );
            Ok(())
        }
        updated => updated,
    }
}

/// Makes the marker if there are clients. It comes after the first client, and goes before the last: a
/// command that is killed in between leaves no marker without clients, and the next to open the database
/// makes it.
pub(super) fn update(database: &Path, db: &Db) -> Result<(), Fault> {
    if stands(database)? == client_rows::exist(db)? {
        return Ok(());
    }
    // Another process may add clients, or remove the last, at this moment.
    db.transaction(|db| match (stands(database)?, client_rows::exist(db)?) {
        (true, false) => Err(lost(database)),
        (false, true) => make(database).map_err(Fault::io("mark its folder")),
        _ => Ok(()),
    })
}

/// The same check where nothing may be written.
pub(super) fn check_to_read(database: &Path, db: &Db) -> Result<(), Fault> {
    if client_rows::exist(db)? { Ok(()) } else { check_without_clients(database) }
}

/// Refuses a database without clients, unless a command removed the last one or there never were any.
pub(super) fn check_without_clients(database: &Path) -> Result<(), Fault> {
    if stands(database)? { Err(lost(database)) } else { Ok(()) }
}

/// Removes the marker, since the last client is removed.
pub(super) fn remove(database: &Path) -> Result<(), Fault> {
    let removed = match fs::remove_file(path(database)) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
        _ => sync(folder(database)),
    };
    removed.map_err(Fault::io("take its mark away"))
}

pub(super) fn stands(database: &Path) -> Result<bool, Fault> {
    path(database).try_exists().map_err(Fault::io("read its folder"))
}

fn make(database: &Path) -> io::Result<()> {
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

fn lost(database: &Path) -> Fault {
    Fault::ClientsLost(path(database))
}
