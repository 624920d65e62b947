//! The file of the database: made, opened for writing, opened for reading.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, FileControl, MAIN_DB, OpenFlags};

use super::{
    error::Fault,
    schema::{Content, MIGRATIONS, content, migrate, version},
};
use crate::files;

/// How long a write waits while another process writes.
const BUSY: Duration = Duration::from_secs(5);

/// How many compiled statements are kept: more than there are different ones.
const STATEMENTS: usize = 64;

/// The most memory for pages of the file: what calls need of it lies close together.
const PAGE_CACHE_KIB: i64 = 512;

/// How long to pause before the next try to switch an empty file to its log.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens the database, made and brought to this version if need be. One that is up to date opens
/// even if it cannot be written to at the moment.
pub(super) fn open(path: &Path) -> Result<Connection, Fault> {
    make_or_open(path).map_err(Fault::of_command)
}

fn make_or_open(path: &Path) -> Result<Connection, Fault> {
    guard(path)?;
    create(path)?;
    let mut connection = open_to_write(path)?;
    // Before anything is changed in it.
    if content(&connection)? == Content::Foreign {
        return Err(Fault::Foreign);
    }
    use_log(&connection)?;
    migrate(&mut connection, MIGRATIONS)?;
    Ok(connection)
}

/// Opens a database that is there and of this version.
pub(super) fn open_to_write(path: &Path) -> Result<Connection, Fault> {
    guard(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A negative number counts KiB instead of pages.
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    // A commit has reached the disk before it returns.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The log and its index stay when the last connection closes: without them, a file in a folder
    // that cannot be written to could not even be read.
    connection.file_control(Some(MAIN_DB), FileControl::PersistWal(&mut 1))?;
    Ok(connection)
}

/// Opens a database that is there, to read only.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Fault> {
    guard(path)?;
    must_exist(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    match content(&connection)? {
        Content::Ours => {}
        Content::Nothing => return Err(Fault::Empty),
        Content::Foreign => return Err(Fault::Foreign),
    }
    version(&connection, MIGRATIONS.len())?;
    Ok(connection)
}

/// Refuses a path with no file.
pub(super) fn must_exist(path: &Path) -> Result<(), Fault> {
    let exists = path.try_exists().map_err(Fault::io("open it"))?;
    if exists { Ok(()) } else { Err(Fault::Missing) }
}

/// Refuses a database that another user of the machine may change, as far as it is there.
fn guard(path: &Path) -> Result<(), Fault> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    for path in [folder(path), path, &beside("-wal"), &beside("-shm")] {
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
fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Switches a new file to a write-ahead log, which the file then remembers.
///
/// SQLite does not wait when two processes switch at the same moment, but refuses the second.
fn use_log(connection: &Connection) -> Result<(), Fault> {
    let begun = Instant::now();
    let switch = || -> Result<(), Fault> {
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if mode != "wal" {
            connection.pragma_update(None, "journal_mode", "WAL")?;
        }
        Ok(())
    };
    loop {
        match switch() {
            Err(Fault::Busy) if begun.elapsed() < BUSY => thread::sleep(PAUSE),
            result => return result,
        }
    }
}
