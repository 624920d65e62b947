//! The head: a file beside the database that names the last record of the journal. It shows when the end of
//! the journal was cut off, or an older database was put in its place.
//!
//! A proxy writes it after a commit and before it answers; for records that no caller waits for, within a
//! second. It is not synced. So it may name an earlier record, above all after a loss of power, but never
//! one that was not on the disk. It is sealed with the wallet's key. Commands have no key, so the head
//! follows their records with the proxy's next one.
//!
//! The database has on record that its head was begun. With that record and no head it is a copy, which
//! does not know what was signed, paid, frozen or revoked since it was made.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::{
    db::Db,
    end::End,
    error::Fault,
    files::{folder, sync as sync_folder},
    seal::{Place, Seal},
};
use crate::{files, types::write_hex};

/// How often it is read until two readings agree: another process may be writing it.
const READINGS: usize = 100;

/// How much older than the journal the head may be where no caller waits for a record.
const AGE: Duration = Duration::from_secs(1);

/// The length of its seal, in bytes, and of the whole line.
const SEALED: usize = 40;
const LINE: usize = 20 + 1 + 64 + 1 + 2 * SEALED + 1;

/// The content of the file.
pub(super) struct Head {
    pub(super) end: End,
    sealed: Vec<u8>,
}

impl Head {
    /// Reads the head of the database at this path. An empty or cut file, as after a loss of power, counts
    /// as none.
    pub(super) fn read(database: &Path) -> Result<Option<Self>, Fault> {
        let mut last = None;
        for _ in 0..READINGS {
            let text = match files::read(&path(database)) {
                Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
                text => text.map_err(Fault::io("read the journal-head beside it"))?,
            };
            if last.as_ref() == Some(&text) {
                return Ok(str::from_utf8(&text).ok().and_then(Self::parse));
            }
            last = Some(text);
        }
        Ok(None)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (seq, hash, sealed) = (words.next()?, words.next()?, words.next()?);
        let hash = <[u8; 32]>::try_from(hex::decode(hash).ok()?).ok()?;
        let end = End { seq: seq.parse().ok()?, hash };
        Some(Self { end, sealed: hex::decode(sealed).ok()? })
    }

    pub(super) fn is_sealed_by(&self, seal: &Seal) -> bool {
        seal.open(&place(&words(&self.end)), self.sealed.clone()).is_ok()
    }
}

/// The path of the head.
pub(super) fn path(database: &Path) -> PathBuf {
    folder(database).join("journal-head")
}

/// Has the head follow the journal.
pub(super) struct HeadWriter {
    path: PathBuf,
    seal: Arc<Seal>,
    /// The end of the journal as it was seen last.
    end: End,
    /// The same as when the head was written last.
    named: End,
    written: Option<Instant>,
}

impl HeadWriter {
    /// The head of the database at this path, which names this end.
    pub(super) fn new(database: &Path, end: End, seal: Arc<Seal>) -> Self {
        Self { path: path(database), seal, end, named: end, written: None }
    }

    /// The end of the journal as it was seen last.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// Takes note of where the journal ends on the disk. The head names that before a caller that waits
    /// for it goes on, and within a second if there is none.
    pub(super) fn follow(&mut self, end: End, is_awaited: bool) {
        self.end = end;
        if is_awaited || self.due().is_some_and(|due| due <= Instant::now()) {
            self.write();
        }
    }

    /// When the head is to be written, if it names an earlier record than the last.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.written.map_or_else(Instant::now, |written| written + AGE);
        (self.end != self.named).then_some(due)
    }

    /// Has the head name the last record, if it does not.
    pub(super) fn write(&mut self) {
        if self.end != self.named {
            // An older head shows less, and is no reason to refuse what is on record.
            let _ = write(&self.path, &self.end, &self.seal);
            (self.named, self.written) = (self.end, Some(Instant::now()));
        }
    }
}

/// Writes where the journal ends, which has to be on the disk already.
fn write(path: &Path, end: &End, seal: &Seal) -> Result<(), Fault> {
    // Always of the same length, so that it is written in place and by one call.
    let mut line = words(end);
    let sealed = seal.seal(&place(&line), Vec::with_capacity(SEALED))?;
    line.push(' ');
    // A string takes all that is written to it, here and below.
    let _ = write_hex(&mut line, &sealed);
    line.push('\n');
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // So that a pipe in its place fails at once.
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        options.open(path)?.write_all(line.as_bytes())
    };
    write().map_err(Fault::io("write the journal-head beside it"))
}

/// Has the head survive a loss of power, if it is there.
pub(super) fn sync(database: &Path) -> Result<(), Fault> {
    match files::open(&path(database)).and_then(|head| head.sync_all()) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(Fault::io("sync the journal-head beside it")),
    }
}

/// Refuses a database whose journal does not hold what the head names.
pub(super) fn require(database: &Path, db: &Db) -> Result<Option<Head>, Fault> {
    match Head::read(database)? {
        Some(head) if !head.end.is_in(db)? => Err(lost(database, &head)),
        head => Ok(head),
    }
}

/// The same for a proxy, which also checks the seal, and begins the head if it is not there.
pub(super) fn check(database: &Path, db: &Db, seal: &Seal) -> Result<(), Fault> {
    let head = path(database);
    let path = head.display().to_string();
    match require(database, db)? {
        Some(head) if head.is_sealed_by(seal) => {
            note_begun(db, &path);
            return Ok(());
        }
        Some(_) => tracing::warn!(
            path,
            "it was not sealed by a wallet that is open, but by another one, or to hide a cut of the \
             journal; compare `agentpmt-proxy journal verify --expect HASH` with a hash you kept"
        ),
        None if is_begun(db)? || End::read(db)?.seq == 0 => {}
        None if is_of_commands(db)? => tracing::info!(
            path,
            "it is not there, and the journal holds only what commands did; it is begun now"
        ),
        None => tracing::warn!(
            path,
            "it is not there, so it does not show whether the end of the journal was cut off; that \
             is so after an upgrade, and it is begun now"
        ),
    }
    // Synced, as a head that is lost with the power would be taken for that of a copy.
    let begun = write(&head, &End::read(db)?, seal).and_then(|()| sync(database));
    match begun.and_then(|()| sync_folder(folder(database)).map_err(Fault::io("sync its folder"))) {
        // Last: another proxy that starts meanwhile sees no copy.
        Ok(()) => note_begun(db, &path),
        Err(fault) => {
            tracing::warn!(path, %fault, "if the end of the journal is cut off, that will not show");
        }
    }
    Ok(())
}

/// Whether the database is a copy: its head was begun, and is not there. A head that is empty or cut, as
/// after a loss of power, is there.
pub(super) fn is_of_copy(database: &Path, db: &Db) -> Result<bool, Fault> {
    let is_there = path(database).try_exists().map_err(Fault::io("read its folder"))?;
    Ok(!is_there && is_begun(db)?)
}

fn is_begun(db: &Db) -> Result<bool, Fault> {
    db.one("SELECT is_begun FROM head", &[], |row| row.flag(0))
}

/// Puts on record that the head was begun. If that cannot be written now, the next start does it.
fn note_begun(db: &Db, path: &str) {
    let noted = is_begun(db).and_then(|is_begun| match is_begun {
        true => Ok(()),
        false => db.execute("UPDATE head SET is_begun = TRUE", &[]).map(drop),
    });
    if let Err(fault) = noted {
        tracing::warn!(path, %fault, "that it was begun is not on record, so a copy is not told apart");
    }
}

/// Whether no call is on record, as when clients were added before the first start.
fn is_of_commands(db: &Db) -> Result<bool, Fault> {
    let sql =
        r#"SELECT NOT EXISTS (SELECT 1 FROM journal WHERE record NOT LIKE '%"kind":"admin"%')"#;
    db.one(sql, &[], |row| row.flag(0))
}

/// Refuses a database without a journal whose head names a record: its records are lost.
pub(super) fn check_without_journal(database: &Path) -> Result<(), Fault> {
    let head = Head::read(database)?.filter(|head| head.end.seq > 0);
    head.map_or(Ok(()), |head| Err(lost(database, &head)))
}

fn lost(database: &Path, head: &Head) -> Fault {
    Fault::RecordsLost { seq: head.end.seq, head: path(database) }
}

/// The number and the hash of the record, with room for the rest of the line.
fn words(end: &End) -> String {
    let mut words = String::with_capacity(LINE);
    let _ = write!(words, "{:020} ", end.seq);
    let _ = write_hex(&mut words, &end.hash);
    words
}

fn place(words: &str) -> Place<'_> {
    let (seq, hash) = words.split_once(' ').unwrap_or_default();
    Place { what: "journal-head", row: [seq, hash] }
}
