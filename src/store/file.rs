//! The file of the database: made, opened for writing, opened for reading.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    db::{BUSY, Db, Row},
    error::Fault,
    files::paths,
    head, marker,
    schema::{Content, MIGRATIONS, content, has_clients, migrate, version},
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

/// Opens the database, made and brought to this version if need be. One that is up to date opens
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
        found => found?,
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
    check_clients(path, &db)?;
    Ok(db)
}

/// Refuses a database that has lost its clients. One that has clients and no marker gets it.
fn check_clients(path: &Path, db: &Db) -> Result<(), Fault> {
    match mark(path, db) {
        Err(fault) if !is_marked(path)? && has_clients(db)? => {
            let marker = marker::path(path);
            tracing::warn!(
                "{}: cannot make it ({fault}), so a loss of the clients would not be seen",
                marker.display()
            );
            Ok(())
        }
        marked => marked,
    }
}

/// Sees to it that the marker stands if there are clients. It comes after the first one is there, and
/// goes before the last one does: a command that is killed in between leaves no marker without clients,
/// and the next to open the database puts it there.
pub(super) fn mark(path: &Path, db: &Db) -> Result<(), Fault> {
    if is_marked(path)? == has_clients(db)? {
        return Ok(());
    }
    // Clients may be added, or the last be removed, at this moment.
    db.transaction(|db| match (is_marked(path)?, has_clients(db)?) {
        (true, false) => Err(lost_clients(path)),
        (false, true) => marker::set(path).map_err(Fault::io("mark its folder")),
        _ => Ok(()),
    })
}

fn is_marked(path: &Path) -> Result<bool, Fault> {
    marker::stands(path).map_err(Fault::io("read its folder"))
}

fn lost_clients(path: &Path) -> Fault {
    Fault::ClientsLost { marker: marker::path(path) }
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
    let is_of_this_version = version(&db, MIGRATIONS.len())? == MIGRATIONS.len();
    if is_of_this_version && is_marked(path)? && !has_clients(&db)? {
        return Err(lost_clients(path));
    }
    Ok(db)
}

/// Brings all that is written into the file itself, so that a copy of it alone is the whole state. No
/// other process waits for it, so one that reads for long may stand in its way.
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

/// Refuses a database without the tables of this program. One in which nothing was ever written, as when
/// the process that made it was killed, counts as not there.
fn require_ours(path: &Path, db: &Db) -> Result<(), Fault> {
    match content(db)? {
        Content::Ours => Ok(()),
        Content::Nothing => check_new(path).and(Err(Fault::Missing)),
        Content::Emptied => Err(Fault::Empty),
        Content::Foreign => Err(Fault::Foreign),
    }
}

/// Refuses a path with no file.
pub(super) fn must_exist(path: &Path) -> Result<(), Fault> {
    let exists = path.try_exists().map_err(Fault::io("open it"))?;
    if exists { Ok(()) } else { check_new(path).and(Err(Fault::Missing)) }
}

/// Refuses to take a database that is not there or empty for a new one where one was lost.
fn check_new(path: &Path) -> Result<(), Fault> {
    check_emptied(path)?;
    head::lost_with(path)?.map_or(Ok(()), Err)
}

/// Refuses a database that has no clients any more, unless the last one was removed by a command.
pub(super) fn check_emptied(path: &Path) -> Result<(), Fault> {
    if is_marked(path)? { Err(lost_clients(path)) } else { Ok(()) }
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

/// The folder that a path is in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The folder that a new file is to be in, which must be there.
pub(super) fn require_folder(path: &Path) -> Result<&Path, Fault> {
    let folder = folder(path);
    if folder.is_dir() { Ok(folder) } else { Err(Fault::NoFolder(folder.to_owned())) }
}

/// Makes an empty file, and the folder for it, for their owner alone. SQLite gives the same
/// permissions to the files that it puts beside it.
///
/// An existing file is not touched: closing it here would drop the locks that SQLite may hold on
/// it elsewhere in this process.
fn create(path: &Path) -> Result<(), Fault> {
    if path.try_exists().map_err(Fault::io("open it"))? {
        return Ok(());
    }
    create_folder(folder(path)).map_err(Fault::io("make its folder"))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(Fault::io("make it")(cause)),
        Ok(_) => sync(folder(path)).map_err(Fault::io("sync its folder")),
    }
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Makes a new name in the folder survive a loss of power.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Switches a new file to a write-ahead log, which the file then remembers.
///
/// SQLite does not wait when two processes switch at the same moment, but refuses the second.
fn use_log(db: &Db) -> Result<(), Fault> {
    let begun = Instant::now();
    let switch = || -> Result<(), Fault> {
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
