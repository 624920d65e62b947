//! The connection that writes, and the files that it has open.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use super::{
    db::Db,
    end::End,
    error::Fault,
    file,
    files::{Files, paths},
    head::HeadWriter,
    known::Known,
    reader::Reader,
    run::Run,
    seal::Seal,
};

/// The connection that writes. It is opened anew when it is of no use any more, or when other files
/// stand at its path than those that it has open.
pub(super) struct Writer {
    path: PathBuf,
    /// The paths of its files.
    paths: [PathBuf; 3],
    db: Option<Db>,
    /// The files that it has open.
    files: Files,
    pub(super) head: HeadWriter,
    /// Reads the same files.
    reader: Arc<Reader>,
    known: Arc<Known>,
    /// It ends with the store, not with the thread.
    run: Weak<Run>,
    /// Why it could not be opened anew, if that was the last thing tried.
    refused: Option<Fault>,
}

impl Writer {
    /// With a connection that was just opened.
    pub(super) fn new(
        path: &Path,
        db: Db,
        seal: Arc<Seal>,
        known: Arc<Known>,
        run: &Arc<Run>,
    ) -> Result<Self, Fault> {
        let head = HeadWriter::new(path, End::read(&db)?, seal);
        let paths = paths(path);
        let (files, reader) = (Files::at(&paths)?, Arc::new(Reader::new(paths.clone())));
        reader.allow(files);
        Ok(Self {
            path: path.to_owned(),
            paths,
            db: Some(db),
            files,
            head,
            reader,
            known,
            run: Arc::downgrade(run),
            refused: None,
        })
    }

    /// Reads the files that it has open.
    pub(super) fn reader(&self) -> Arc<Reader> {
        self.reader.clone()
    }

    /// The clients that callers know, who read the same files.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Hands out the connection, which is to be given back if it is still of use.
    pub(super) fn take(&mut self) -> Result<Db, Fault> {
        match self.db.take() {
            Some(db) if Files::at(&self.paths)? == self.files => Ok(db),
            open => {
                // A log that was removed is brought into the file while it is open. To close
                // it does so, too, but not if the reader closes its connection at the same moment.
                if let Some(Err(fault)) = open.as_ref().map(file::checkpoint) {
                    tracing::debug!(%fault, "the log of the files that were open is left as it is");
                }
                drop(open);
                self.open_anew()
            }
        }
    }

    /// Takes the connection back.
    pub(super) fn put_back(&mut self, db: Db) {
        self.db = Some(db);
    }

    /// Begins a transaction. A file that was opened while it was read-only stays so, hence the second
    /// try with a new connection.
    pub(super) fn begin(&mut self, db: Db) -> Result<Db, Fault> {
        match begin(&db) {
            Ok(()) => return Ok(db),
            Err(Fault::ReadOnly | Fault::Io { .. }) => drop(db),
            Err(fault) => return Err(fault),
        }
        let db = self.open_anew()?;
        begin(&db)?;
        Ok(db)
    }

    /// Opens the files at the path, as at the start, and only if the journal goes on from where it was.
    fn open_anew(&mut self) -> Result<Db, Fault> {
        let open = self.files;
        // All open connections of the process share SQLite's knowledge of a file.
        self.reader.close();
        let opened = self.open();
        // Values read from other files no longer count.
        self.known.forget();
        match &opened {
            Ok(_) if self.refused.take().is_some() || self.files != open => {
                tracing::warn!(
                    path = %self.path.display(),
                    "the files of the state were opened anew, and are used from now on"
                );
            }
            Ok(_) => {}
            Err(fault) if self.refused.as_ref() == Some(fault) => {}
            Err(fault) => {
                tracing::error!(path = %self.path.display(), %fault, "the state cannot be used");
                self.refused = Some(fault.clone());
            }
        }
        opened
    }

    fn open(&mut self) -> Result<Db, Fault> {
        let found = Files::at(&self.paths)?;
        let db = file::reopen(&self.path)?;
        let end = self.head.end();
        // Other processes may have gone on, and moved it into an archive.
        let is_archived = End::before(&db)?.seq > end.seq;
        if !is_archived && !end.is_in(&db)? {
            return Err(Fault::Replaced(end.seq));
        }
        let files = Files::at(&self.paths)?;
        if !files.is_same_database(&found) {
            return Err(Fault::Gone);
        }
        if let Some(Err(fault)) = self.run.upgrade().map(|run| run.renew()) {
            tracing::warn!(%fault, "commands cannot see that this proxy runs");
        }
        self.files = files;
        self.reader.allow(files);
        Ok(db)
    }
}

fn begin(db: &Db) -> Result<(), Fault> {
    if db.is_read_only()? { Err(Fault::ReadOnly) } else { db.begin() }
}
