//! Writing key files: whole on the disk or not there, and never open to others.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    path::Path,
};

use tempfile::{NamedTempFile, PersistError};

use super::key_file::KeyFile;

/// Writes a new file.
pub(super) fn create(path: &Path, file: &KeyFile) -> io::Result<()> {
    write(path, file, |temporary| temporary.persist_noclobber(path))
}

/// Writes a file in place of one that is there; at every moment there is one of them.
pub(super) fn replace(path: &Path, file: &KeyFile) -> io::Result<()> {
    // A link is followed, so that its target is replaced and not the link.
    let path = &path.canonicalize()?;
    write(path, file, |temporary| temporary.persist(path))
}

fn write(
    path: &Path,
    file: &KeyFile,
    name: impl FnOnce(NamedTempFile) -> Result<File, PersistError>,
) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let dir = path.parent().ok_or(ErrorKind::IsADirectory)?;
    // tempfile creates a new file with mode 0600. The dot keeps it out of lists of key files.
    let mut temporary = tempfile::Builder::new().prefix(".").tempfile_in(dir)?;
    temporary.write_all(file.to_json().as_bytes())?;
    temporary.as_file().sync_all()?;
    name(temporary)?;
    // The new name survives a loss of power only once the directory is on the disk.
    File::open(dir)?.sync_all()
}
