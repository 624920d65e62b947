//! Files that decide what the program does: how they are opened, and who else may use them.

mod exposed;

use std::{fs::File, io, os::unix::fs::OpenOptionsExt, path::Path};

use rustix::fs::OFlags;

pub use self::exposed::Exposed;
pub(crate) use self::exposed::{check_secret, check_secret_folder, check_unchangeable, closing};

/// What the system said about a temporary file, without its name, which nobody has chosen.
pub(crate) fn without_path(error: io::Error) -> io::Error {
    match error.to_string().rsplit_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what),
        None => error,
    }
}

/// Opens a file to read it. Anything but a regular file is refused: reading a pipe or a device may
/// never end.
///
/// # Errors
/// What the system says, or that the file is not regular.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // So that a pipe to which nobody writes is opened at once, and then refused.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let kind = if kind.is_dir() { "a folder" } else { "a pipe or device" };
    Err(io::Error::other(format!("it is {kind}, and a regular file is needed")))
}
