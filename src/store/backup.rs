//! A copy of the database.

use std::path::Path;

use tempfile::NamedTempFile;

use super::{
    error::{Fault, StoreError},
    file,
};
use crate::files;

/// Copies the database at `path`, as it is at this moment, into one new file, for its owner alone. It
/// works while a proxy runs, which does not wait for it.
///
/// # Errors
/// The database cannot be read; or the copy cannot be written, or is there already.
pub fn backup(path: &Path, copy: &Path) -> Result<(), StoreError> {
    let folder = file::require_folder(copy).map_err(|fault| StoreError::new(copy, fault))?;
    let connection = file::open_to_read(path).map_err(|fault| StoreError::new(path, fault))?;
    let write = || -> Result<(), Fault> {
        // It has its name only when it is whole.
        let file = NamedTempFile::new_in(folder).map_err(files::without_path);
        let file = file.map_err(Fault::io("make it"))?;
        let name = file.path().to_str().ok_or(Fault::PathNotUtf8)?;
        connection.execute("VACUUM INTO ?1", [name])?;
        file.as_file().sync_all().map_err(Fault::io("write it"))?;
        file.persist_noclobber(copy).map_err(|failed| Fault::io("make it")(failed.error))?;
        file::sync(folder).map_err(Fault::io("sync its folder"))
    };
    write().map_err(|fault| StoreError::new(copy, fault.of_copy()))
}
