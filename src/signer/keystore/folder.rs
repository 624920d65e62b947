//! The folder of keys, made and closed.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

/// Whether a directory is one that users share, such as `/tmp`.
pub(super) fn is_shared(dir: &Path) -> io::Result<bool> {
    const STICKY: u32 = 0o1000;
    Ok(fs::metadata(dir)?.mode() & STICKY != 0)
}

/// Takes all permissions on a directory from group and others.
pub(super) fn close(dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(dir)?.mode() & 0o7700;
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

/// Creates a directory for its owner alone, if there is none, with what is missing above it.
pub(super) fn create(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
