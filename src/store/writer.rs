//! The connection that writes, and the files that it has open.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    db::Db,
    end::End,
    error::Fault,
    file,
    files::{Files, paths},
    head,
    known::Known,
    reader::Reader,
    run::Run,
    seal::Seal,
};

/// How much older than the journal the head may be where nobody waits for a record.
const HEAD_AGE: Duration = Duration::from_secs(1);

/// The connection that writes. It is opened anew when it is of no use any more, or when other files
/// stand at its path than those that it has open.
pub(super) struct Writer {
    path: PathBuf,
    /// Those of its files.
    paths: [PathBuf; 3],
    head: PathBuf,
    connection: Option<Db>,
    /// The files that it has open.
    files: Files,
    /// The end of the journal as it was seen last.
    end: End,
    /// The same as when the head was written last.
    in_head: End,
    head_written: Option<Instant>,
    /// Reads the same files.
    reader: Arc<Reader>,
    seal: Arc<Seal>,
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
        connection: Db,
        seal: Arc<Seal>,
        known: Arc<Known>,
        run: &Arc<Run>,
    ) -> Result<Self, Fault> {
        let end = End::read(&connection)?;
        let paths = paths(path);
        let (files, reader) = (Files::at(&paths)?, Arc::new(Reader::new(paths.clone())));
        reader.allow(files);
        Ok(Self {
            path: path.to_owned(),
            paths,
            head: head::path(path),
            connection: Some(connection),
            files,
            end,
            in_head: end,
            head_written: None,
            reader,
            seal,
            known,
            run: Arc::downgrade(run),
            refused: None,
        })
    }

    /// Reads the files that it has open.
    pub(super) fn reader(&self) -> Arc<Reader> {
        self.reader.clone()
    }

    /// Hands out the connection, which is to be given back if it is still of use.
    pub(super) fn take(&mut self) -> Result<Db, Fault> {
        match self.connection.take() {
            Some(connection) if Files::at(&self.paths)? == self.files => Ok(connection),
            open => {
                drop(open);
                self.open_anew()
            }
        }
    }

    /// Takes the connection back.
    pub(super) fn put_back(&mut self, connection: Db) {
        self.connection = Some(connection);
    }

    /// Hears where the journal ends, now that it is on the disk. The head says so before anyone who waits
    /// for that goes on, and within a second if it is only for records of the background.
    pub(super) fn hear_end(&mut self, end: End, is_awaited: bool) {
        self.end = end;
        if is_awaited || self.head_is_due().is_some_and(|due| due <= Instant::now()) {
            self.write_head();
        }
    }

    /// When the head is to be written, if it names an earlier record than the last.
    pub(super) fn head_is_due(&self) -> Option<Instant> {
        let due = self.head_written.map_or_else(Instant::now, |written| written + HEAD_AGE);
        (self.end != self.in_head).then_some(due)
    }

    /// Has the head name the last record, if it does not.
    pub(super) fn write_head(&mut self) {
        if self.end != self.in_head {
            // An older head shows less, and is no reason to refuse what is on record.
            let _ = head::write(&self.head, &self.end, &self.seal);
            (self.in_head, self.head_written) = (self.end, Some(Instant::now()));
        }
    }

    /// Opens what stands at the path, as at the start, and only if the journal goes on from where it
    /// was.
    pub(super) fn open_anew(&mut self) -> Result<Db, Fault> {
        let open = self.files;
        // What SQLite knows of a file is known to all connections of the process that are open.
        self.reader.close();
        let opened = self.open();
        // What was read from other files is not to be acted on.
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
        let connection = file::reopen(&self.path)?;
        // Other processes may have gone on, and moved it into an archive.
        let is_archived = End::before(&connection)?.seq > self.end.seq;
        if !is_archived && !self.end.is_in(&connection)? {
            return Err(Fault::Replaced { seq: self.end.seq });
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
        Ok(connection)
    }
}
