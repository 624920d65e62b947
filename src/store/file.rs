//! Opening the file of the database: to write, for queries, and to read.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    db::{BUSY, Db, Row},
    error::{Fault, StoreError},
    files::{create, folder, paths},
    head, marker,
    run::any_is_alive,
    schema::{Content, MIGRATIONS, content, migrate, version},
};
use crate::files;

/// How large the log stays, in bytes, after it had to grow.
const LOG_LIMIT: i64 = 8 << 20;

/// The most memory for pages of the file: what calls need of it lies close together.
const PAGE_CACHE_KIB: i64 = 512;

/// How often it is tried to bring what is written into the file.
const CHECKPOINTS: usize = 20;

/// How long to pause before the next try to switch an empty file to its log, or to empty that.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens the database, made and brought to this version if need be. A database of this version opens
/// even if it cannot be written to at the moment. Nothing is made in place of one that was lost.
pub(super) fn open(path: &Path) -> Result<Db, Fault> {
    make_or_open(path).map_err(Fault::of_command)
}

fn make_or_open(path: &Path) -> Result<Db, Fault> {
    guard(path)?;
    match must_exist(path) {
        Err(Fault::Missing) => create(path)?,
        found => found?,
    }
    let db = open_to_write(path)?;
    // Before anything is changed in it.
    match require_ours(path, &db) {
        Err(Fault::Missing) => {}
        found => {
            found?;
            // An older process does not know of later tables, such as that of freezes.
            if version(&db, MIGRATIONS.len())? < MIGRATIONS.len() && any_is_alive(folder(path))? {
                return Err(Fault::OlderInUse);
            }
        }
    }
    prepare(path, db)
}

/// Opens a database that was open before: it must be there, and is never taken for a new one.
pub(super) fn reopen(path: &Path) -> Result<Db, Fault> {
    guard(path)?;
    if !path.try_exists().map_err(Fault::io("open it"))? {
        return Err(Fault::Gone);
    }
    let db = open_to_write(path)?;
    match require_ours(path, &db) {
        Err(Fault::Missing) => return Err(Fault::Gone),
        found => found?,
    }
    prepare(path, db)
}

/// Brings a database to this version.
fn prepare(path: &Path, db: Db) -> Result<Db, Fault> {
    // Before the log, so that no file has pages and no tables.
    migrate(&db, MIGRATIONS)?;
    use_log(&db)?;
    marker::check(path, &db)?;
    Ok(db)
}

fn open_to_write(path: &Path) -> Result<Db, Fault> {
    let db = Db::open(path)?;
    // A negative number counts KiB instead of pages.
    db.run(&format!("PRAGMA cache_size = -{PAGE_CACHE_KIB}"))?;
    db.run(&format!("PRAGMA journal_size_limit = {LOG_LIMIT}"))?;
    // A commit has reached the disk before it returns.
    db.run("PRAGMA synchronous = FULL")?;
    Ok(db)
}

/// Opens a database that is there for queries alone, but not as a read-only file: what SQLite then finds
/// of its log would count for all connections of the process.
pub(super) fn open_for_queries(path: &Path) -> Result<Db, Fault> {
    let db = open_to_write(path)?;
    db.run("PRAGMA query_only = TRUE")?;
    // Opens the log as well.
    version(&db, MIGRATIONS.len())?;
    Ok(db)
}

/// Opens a database that is there, to read only.
pub(super) fn open_to_read(path: &Path) -> Result<Db, Fault> {
    guard(path)?;
    must_exist(path)?;
    let mut db = Db::open_to_read(path)?;
    let mut found = require_ours(path, &db);
    if found == Err(Fault::ReadOnly) {
        // A process was killed while it made or changed the tables, and what it began is undone first.
        db = open_for_queries(path)?;
        found = require_ours(path, &db);
    }
    found.map_err(Fault::of_command)?;
    if version(&db, MIGRATIONS.len())? == MIGRATIONS.len() {
        marker::check_to_read(path, &db)?;
    }
    Ok(db)
}

/// Brings all that is written into the file itself, so that a copy of it alone is the whole state. No
/// other process waits for it, so a process that reads for long may stand in its way.
pub(super) fn checkpoint(db: &Db) -> Result<(), Fault> {
    for _ in 0..CHECKPOINTS {
        let is_done = |row: &Row<'_>| Ok(row.int::<i64>(1)? == row.int::<i64>(2)?);
        if db.one("PRAGMA wal_checkpoint(PASSIVE)", &[], is_done)? {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    Err(Fault::Busy)
}

/// Reads for a command, from a database that must be there.
pub(super) fn read<T>(
    path: &Path,
    read: impl FnOnce(&Db) -> Result<T, Fault>,
) -> Result<T, StoreError> {
    let found = must_exist(path).and_then(|()| read(&open(path)?));
    found.map_err(|fault| StoreError::new(path, fault.of_command()))
}

/// Does the work of a command in one transaction, in a database that must be there.
pub(super) fn change<T>(
    path: &Path,
    work: impl FnOnce(&Db) -> Result<T, Fault>,
) -> Result<T, StoreError> {
    let changed = must_exist(path).and_then(|()| {
        let db = open(path)?;
        let changed = db.transaction(work)?;
        // Without it, the change stands in the log, which has to be copied as well.
        let _ = checkpoint(&db);
        Ok(changed)
    });
    changed.map_err(|fault: Fault| StoreError::new(path, fault.of_command()))
}

/// Refuses a path with no file.
pub(super) fn must_exist(path: &Path) -> Result<(), Fault> {
    let exists = path.try_exists().map_err(Fault::io("open it"))?;
    if exists { Ok(()) } else { Err(missing(path)) }
}

/// Refuses a database without the tables of this program. A database to which nothing was ever written, as
/// when the process that made it was killed, counts as not there.
fn require_ours(path: &Path, db: &Db) -> Result<(), Fault> {
    match content(db)? {
        Content::Ours => Ok(()),
        Content::Nothing => Err(missing(path)),
        Content::Emptied => Err(Fault::Empty),
        Content::Foreign => Err(Fault::Foreign),
    }
}

/// Why a database is not there, or empty: it is new, unless a file beside it says that it was lost.
fn missing(path: &Path) -> Fault {
    let lost = marker::check_without_clients(path).and_then(|()| head::check_without_journal(path));
    lost.err().unwrap_or(Fault::Missing)
}

/// Refuses a database that another user of the machine may change, as far as it is there.
fn guard(path: &Path) -> Result<(), Fault> {
    let (marker, head, files) = (marker::path(path), head::path(path), paths(path));
    let beside = [folder(path), &marker, &head].into_iter();
    for path in beside.chain(files.iter().map(PathBuf::as_path)) {
        match fs::metadata(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            found => files::check_unchangeable(path, &found.map_err(Fault::io("open it"))?)?,
        }
    }
    Ok(())
}

/// Switches a new file to a write-ahead log, which the file then remembers.
///
/// SQLite does not wait when two processes switch at the same moment, but refuses the second.
fn use_log(db: &Db) -> Result<(), Fault> {
    let begun = Instant::now();
    let switch = || {
        let is_used = db.one("PRAGMA journal_mode", &[], |row| Ok(row.text(0)? == "wal"))?;
        if is_used { Ok(()) } else { db.run("PRAGMA journal_mode = WAL") }
    };
    loop {
        match switch() {
            Err(Fault::Busy) if begun.elapsed() < BUSY => thread::sleep(PAUSE),
            result => return result,
        }
    }
}
