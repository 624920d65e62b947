//! What keeps files from other users of the machine: their owner and their permission bits.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::process::geteuid;

/// What lets another user at a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Group or others have a permission; all permission bits.
    Mode(u32),
    /// It belongs to this user, who is neither root nor the one that runs the program.
    Owner(u32),
}

/// What lets another user at a file, if anything does.
pub(super) fn opening(file: &Metadata) -> Option<Opening> {
    let owner = file.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(Opening::Owner(owner));
    }
    exposed_mode(file).map(Opening::Mode)
}

/// The permission bits of a file or a directory, if they let group or others do anything. The owner
/// of a directory is let be: only root gets into another user's directory that is closed.
pub(crate) fn exposed_mode(file: &Metadata) -> Option<u32> {
    let mode = file.mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

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
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
