//! Whether a proxy could write a state, without touching it.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{self, Path},
};

use rustix::fs::{Access, access};

use super::{
    error::{Fault, StoreError},
    files::folder,
};

/// Refuses a database that could not be written, or for which no folder could be made. Nothing is made.
///
/// # Errors
/// Checks that a database at this path can be used.
pub fn check_usable(database: &Path) -> Result<(), StoreError> {
    check(database).map_err(|fault| StoreError::new(database, fault.of_command()))
}

fn check(database: &Path) -> Result<(), Fault> {
    let folder = path::absolute(folder(database)).map_err(Fault::io("find its folder"))?;
    // The folders that are missing are made in the nearest one that is there.
    let there = folder.ancestors().find_map(|folder| match fs::metadata(folder) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => None,
        found => Some((folder, found)),
    });
    if let Some((folder, found)) = there {
        if !found.map_err(Fault::io("make its folder"))?.is_dir() {
            return Err(Fault::io("make its folder")(ErrorKind::NotADirectory.into()));
        }
        let may_write = access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
        may_write.map_err(Fault::io("write to its folder"))?;
    }
    match access(database, Access::READ_OK | Access::WRITE_OK).map_err(io::Error::from) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        may_write => may_write.map_err(Fault::io("write to it")),
    }
}
