//! One run of the process, and whether another run still lives.
//!
//! Several processes may use one file. A call of an earlier process may be taken over when that has died,
//! and not before: two processes would then make the same call. A proxy, and a run that claims anything, holds
//! a lock on a file of its own beside the database; the system drops the lock when the process ends,
//! however it ends.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use super::{
    error::{Fault, StoreError},
    files::{folder, identity},
};

/// A run of the process.
pub(super) struct Run {
    id: Uuid,
    folder: PathBuf,
    /// The locked file, once it is needed.
    lock: Mutex<Option<File>>,
}

impl Run {
    /// A new run, whose lock will be in this folder.
    pub(super) fn new(folder: &Path) -> Self {
        Self { id: Uuid::new_v4(), folder: folder.to_owned(), lock: Mutex::new(None) }
    }

    /// Its name in the database.
    pub(super) fn name(&self) -> String {
        self.id.to_string()
    }

    /// Makes this run known as alive; does nothing as long as it is.
    pub(super) fn show_alive(&self) -> Result<(), Fault> {
        // Nothing here panics while it holds the lock.
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !lock.as_ref().is_some_and(|file| self.is_in_place(file)) {
            *lock = Some(self.lock_file().map_err(Fault::io("lock a file beside it"))?);
            sweep(&self.folder);
        }
        Ok(())
    }

    /// The same if it was known as alive before, as when its folder was replaced.
    pub(super) fn renew(&self) -> Result<(), Fault> {
        let is_held = self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_held { self.show_alive() } else { Ok(()) }
    }

    /// Whether the locked file is the one that others find.
    fn is_in_place(&self, file: &File) -> bool {
        let found = fs::metadata(lock_path(&self.folder, self.id));
        let is_same = |found| file.metadata().is_ok_and(|file| identity(&file) == identity(&found));
        found.is_ok_and(is_same)
    }

    /// Whether the run of this name is alive, be it this one or that of another process.
    pub(super) fn is_alive(&self, name: &str) -> Result<bool, Fault> {
        let id = Uuid::parse_str(name).map_err(|_| Fault::Malformed("name of a run"))?;
        is_locked(&lock_path(&self.folder, id))
    }

    /// The file has its name only when it is locked, so it is never found unlocked while we live.
    fn lock_file(&self) -> io::Result<File> {
        let file = tempfile::Builder::new().prefix(".run-").tempfile_in(&self.folder)?;
        file.as_file().lock()?;
        // In place of its own copy, if the folder was put back from one.
        Ok(file.persist(lock_path(&self.folder, self.id))?)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let lock = self.lock.get_mut().unwrap_or_else(PoisonError::into_inner);
        if lock.take().is_some() {
            // A file that stays is swept by a later run.
            drop(fs::remove_file(lock_path(&self.folder, self.id)));
        }
    }
}

/// Whether a proxy that runs uses the database at this path, so that a change counts at once.
///
/// # Errors
/// Its folder cannot be read.
pub fn is_in_use(database: &Path) -> Result<bool, StoreError> {
    any_is_alive(folder(database)).map_err(|fault| StoreError::new(database, fault))
}

/// Whether any run is alive that has its lock in this folder.
pub(super) fn any_is_alive(folder: &Path) -> Result<bool, Fault> {
    for entry in fs::read_dir(folder).map_err(Fault::io("read its folder"))? {
        let path = entry.map_err(Fault::io("read its folder"))?.path();
        if is_lock(&path) && is_locked(&path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the run with this lock is alive: the one place that decides that.
fn is_locked(path: &Path) -> Result<bool, Fault> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(Fault::io("open the lock of another run beside it"))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(cause)) => Err(Fault::io("lock a file beside it")(cause)),
    }
}

fn lock_path(folder: &Path, id: Uuid) -> PathBuf {
    folder.join(format!("run-{id}.lock"))
}

/// Removes the files of runs that have died, as far as that is possible: another run may be at it.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let file = if is_lock(&path) { File::open(&path).ok() } else { None };
        if file.is_some_and(|file| file.try_lock().is_ok()) {
            drop(fs::remove_file(&path));
        }
    }
}

fn is_lock(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let id = name.strip_prefix("run-").and_then(|name| name.strip_suffix(".lock"));
    id.is_some_and(|id| Uuid::parse_str(id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_alive_from_its_first_claim_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Run::new(folder.path()), Run::new(folder.path()));
        let any = || any_is_alive(folder.path());
        assert_eq!((other.is_alive(&one.name()), any()), (Ok(false), Ok(false)));
        one.show_alive().unwrap();
        one.show_alive().unwrap();
        assert_eq!((one.is_alive(&one.name()), other.is_alive(&one.name())), (Ok(true), Ok(true)));
        assert_eq!(any(), Ok(true));
        let name = one.name();
        drop(one);
        assert_eq!((other.is_alive(&name), any()), (Ok(false), Ok(false)));
    }

    #[test]
    fn the_file_of_a_run_that_was_killed_is_swept_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let killed = lock_path(folder.path(), Uuid::new_v4());
        let foreign = folder.path().join("run-x.lock");
        fs::write(&killed, "").unwrap();
        fs::write(&foreign, "").unwrap();
        let (one, other) = (Run::new(folder.path()), Run::new(folder.path()));
        one.show_alive().unwrap();
        other.show_alive().unwrap();
        assert!(!killed.exists() && foreign.exists());
        assert_eq!(other.is_alive(&one.name()), Ok(true));
    }

    #[test]
    fn a_run_whose_file_was_removed_or_copied_is_alive_again_when_it_is_held_again() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Run::new(folder.path()), Run::new(folder.path()));
        one.renew().unwrap();
        assert_eq!(other.is_alive(&one.name()), Ok(false), "it was never held");
        one.show_alive().unwrap();
        let path = lock_path(folder.path(), one.id);
        for copy in [false, true] {
            fs::remove_file(&path).unwrap();
            if copy {
                fs::write(&path, "").unwrap();
            }
            assert_eq!(other.is_alive(&one.name()), Ok(false));
            one.renew().unwrap();
            assert_eq!(other.is_alive(&one.name()), Ok(true));
        }
    }

    #[test]
    fn a_name_from_the_database_is_no_path() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Run::new(folder.path()).is_alive("../../etc/passwd");
        assert_eq!(refused, Err(Fault::Malformed("name of a run")));
    }
}
