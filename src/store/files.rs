//! Which files stand at the path of a database.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::error::Fault;

/// The database, its log and the index of the log, told apart from any other files by device and
/// inode. A file that is not there is `None`.
///
/// SQLite goes on with the files that it has open when they are removed or replaced, so a record may
/// be written where nobody will find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files([Option<(u64, u64)>; 3]);

impl Files {
    /// Those that are there now.
    pub(super) fn at(paths: &[PathBuf; 3]) -> Result<Self, Fault> {
        let mut files = [None; 3];
        for (file, path) in files.iter_mut().zip(paths) {
            *file = match fs::metadata(path) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
                found => Some(identity(&found.map_err(Fault::io("open it"))?)),
            };
        }
        Ok(Self(files))
    }

    /// Whether the database is the same file in both, whatever stands beside it.
    pub(super) fn is_same_database(&self, other: &Self) -> bool {
        self.0[0].is_some() && self.0[0] == other.0[0]
    }
}

/// What tells a file from any other: its device and inode.
pub(super) fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The database, its log and the index of the log.
pub(super) fn paths(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}
