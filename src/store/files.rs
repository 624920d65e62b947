//! The files of a state: which stand at the path of its database, and how a new one survives a loss of power.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::error::Fault;

/// The database, its log and the index of the log, told apart from any other files by device and
/// inode. A file that is not there is `None`.
///
/// SQLite goes on with the files that it has open when they are removed or replaced, so a record may
/// be written where no other process finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files([Option<(u64, u64)>; 3]);

impl Files {
    /// The files that are there now.
    pub(super) fn at(paths: &[PathBuf; 3]) -> Result<Self, Fault> {
        let mut files = [None; 3];
        for (file, path) in files.iter_mut().zip(paths) {
            *file = match fs::metadata(path) {
                Err(cause) if cause.kind() == ErrorKind::NotFound => None,
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

/// The identity of a file: its device and inode.
pub(super) fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The paths of a database, its log and the index of the log.
pub(super) fn paths(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

/// The folder that a path is in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes an empty file, and the folder for it, for their owner alone. SQLite gives the same
/// permissions to the files that it puts beside it.
///
/// An existing file is not opened: closing it would drop the locks that SQLite may hold on it elsewhere
/// in this process.
pub(super) fn create(path: &Path) -> Result<(), Fault> {
    if path.try_exists().map_err(Fault::io("open it"))? {
        return Ok(());
    }
    let made = DirBuilder::new().mode(0o700).recursive(true).create(folder(path));
    made.map_err(Fault::io("make its folder"))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(Fault::io("make it")(cause)),
        Ok(_) => sync(folder(path)).map_err(Fault::io("sync its folder")),
    }
}

/// Has a new name in the folder survive a loss of power.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
