//! A copy of the database.

use std::path::Path;

use super::{
    error::{Fault, StoreError},
    file, new_file,
};

/// Copies the database at `path`, as it is at this moment, into one new file, for its owner alone. It
/// works while a proxy runs, which does not wait for it.
///
/// # Errors
/// The database cannot be read; or the copy cannot be written, or is there already.
pub fn backup(path: &Path, copy: &Path) -> Result<(), StoreError> {
    let of_copy = |fault: Fault| StoreError::new(copy, fault.of_copy());
    let file = new_file::make(copy).map_err(of_copy)?;
    let db = file::open_to_read(path).map_err(|fault| StoreError::new(path, fault))?;
    let write = || -> Result<(), Fault> {
        let name = file.path().to_str().ok_or(Fault::PathNotUtf8)?;
        db.execute("VACUUM INTO ?1", &[name.into()]).map(drop)
    };
    write().and_then(|()| new_file::name(file, copy)).map_err(of_copy)
}
