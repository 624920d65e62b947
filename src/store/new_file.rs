//! A new file for its owner alone, which has its name only when it is whole and on the disk.

use std::path::Path;

use tempfile::NamedTempFile;

use super::{
    error::Fault,
    files::{folder, sync},
};
use crate::files;

/// Makes the file that is to have this path, in its folder, which must be there.
pub(super) fn make(path: &Path) -> Result<NamedTempFile, Fault> {
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(Fault::NoFolder(folder.to_owned()));
    }
    let file = NamedTempFile::new_in(folder).map_err(files::without_path);
    file.map_err(Fault::io("make it"))
}

/// Gives it its path. A file that is there already stays as it is.
pub(super) fn name(file: NamedTempFile, path: &Path) -> Result<(), Fault> {
    file.as_file().sync_all().map_err(Fault::io("write it"))?;
    file.persist_noclobber(path).map_err(|failed| Fault::io("make it")(failed.error))?;
    sync(folder(path)).map_err(Fault::io("sync its folder"))
}
