//! The connection that only reads, so that no read waits for a writer: another process may hold the
//! lock for long, or a disk be slow to sync.
//!
//! It reads the files that the writer has checked and no others. What it cannot read is left to the
//! writer, which opens the files anew.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{db::Db, error::Fault, file, files::Files};

/// It is given a connection, or told why there is none, and returns what went wrong.
#[expect(clippy::type_complexity, reason = "this struct is the name for it")]
pub(super) struct Read(pub(super) Box<dyn FnOnce(Result<&Db, Fault>) -> Option<Fault> + Send>);

/// The connection that only reads.
pub(super) struct Reader {
    paths: [PathBuf; 3],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The files that may be read.
    files: Option<Files>,
    db: Option<Db>,
}

impl Reader {
    /// Reads nothing before it is allowed to.
    pub(super) fn new(paths: [PathBuf; 3]) -> Self {
        Self { paths, state: Mutex::default() }
    }

    /// From now on these files may be read.
    pub(super) fn allow(&self, files: Files) {
        self.state().files = Some(files);
    }

    /// Closes the connection, and reads nothing before it is allowed to.
    pub(super) fn close(&self) {
        *self.state() = State::default();
    }

    /// Reads, or gives back what is left to the writer.
    pub(super) fn read(&self, read: Read) -> Option<Read> {
        let mut state = self.state();
        let Some(db) = self.db(&mut state) else { return Some(read) };
        if (read.0)(Ok(&db)).is_none() {
            state.db = Some(db);
        }
        None
    }

    /// Takes the connection to the files that are at the path, if they may be read.
    fn db(&self, state: &mut State) -> Option<Db> {
        let (files, open) = (state.files?, state.db.take());
        let is_in_place = || Files::at(&self.paths).is_ok_and(|found| found == files);
        if !is_in_place() {
            return None;
        }
        open.or_else(|| file::open_for_queries(&self.paths[0]).ok().filter(|_| is_in_place()))
    }

    /// Nothing here panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
