//! What keeps files from other users of the machine.
//!
//! On Unix these are the permission bits. Elsewhere the directory's own access list must do it.

pub(super) use self::platform::{create_dir, exposed_mode, sync_dir};

#[cfg(unix)]
mod platform {
    use std::{
        fs::{DirBuilder, File},
        io,
        os::unix::fs::{DirBuilderExt, PermissionsExt},
        path::Path,
    };

    /// The permission bits of a file, if they let group or others do anything.
    pub(in super::super) fn exposed_mode(file: &File) -> io::Result<Option<u32>> {
        let mode = file.metadata()?.permissions().mode() & 0o777;
        Ok((mode & 0o077 != 0).then_some(mode))
    }

    /// Creates a directory for its owner alone, if there is none, with what is missing above it.
    pub(in super::super) fn create_dir(dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    /// Makes a new name in the directory survive a loss of power.
    pub(in super::super) fn sync_dir(dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

#[cfg(not(unix))]
mod platform {
    use std::{fs::File, io, path::Path};

    pub(in super::super) fn exposed_mode(_: &File) -> io::Result<Option<u32>> {
        Ok(None)
    }

    pub(in super::super) fn create_dir(dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    pub(in super::super) fn sync_dir(_: &Path) -> io::Result<()> {
        Ok(())
    }
}
