//! Files that decide what the program does: how they are opened, and who else may use them.

mod exposed;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

pub use self::exposed::Exposed;
pub(crate) use self::exposed::{check_secret, check_secret_folder, check_unchangeable, closing};

/// The error of the system about a temporary file, without its name, which the user did not choose.
pub(crate) fn without_path(error: io::Error) -> io::Error {
    match error.to_string().rsplit_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what),
        None => error,
    }
}

/// The largest file that is read whole, in bytes.
const MOST: u64 = 4 * 1024 * 1024;

/// Reads the rest of an open file.
///
/// # Errors
/// The error of the system, or that there is more than [`MOST`].
pub(crate) fn read_whole(file: &File, into: &mut Vec<u8>) -> io::Result<()> {
    // Of its length at once, so that what is secret is not moved.
    let length = file.metadata()?.len().min(MOST);
    into.reserve_exact(usize::try_from(length).unwrap_or_default() + 1);
    file.take(MOST + 1).read_to_end(into)?;
    if into.len() as u64 > MOST {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST / 1024 / 1024)));
    }
    Ok(())
}

/// The content of a regular file.
///
/// # Errors
/// See [`open`] and [`read_whole`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_whole(&open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Opens a file to read it. Anything but a regular file is refused: reading a pipe or a device may
/// never end.
///
/// # Errors
/// The error of the system, or that the file is not regular.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // So that a pipe without a writer is opened at once, and then refused.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let kind = if kind.is_dir() { "a folder" } else { "a pipe or device" };
    Err(io::Error::other(format!("it is {kind}, and a regular file is needed")))
}
