//! The database behind the store: the one file that knows SQLite's types.
//!
//! Rules see rows and give values. SQL texts number their values from `?1` and their columns from 0, and use
//! nothing but what PostgreSQL also has, so that it can stand behind the same four calls.

use std::{path::Path, str::FromStr, time::Duration};

use jiff::Timestamp;
use rusqlite::{
    CachedStatement, Connection, ErrorCode, FileControl, MAIN_DB, OpenFlags, ToSql, ffi,
    params_from_iter,
    types::{FromSqlError, ToSqlOutput, ValueRef},
};

use super::error::Fault;

/// How long a statement waits while another process writes.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// How many compiled statements are kept: more than there are different ones.
const STATEMENTS: usize = 64;

/// A database connection, in or outside of a transaction.
#[derive(Debug)]
pub(super) struct Db(Connection);

/// A value for a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Param<'a> {
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
    Null,
}

/// A row that a query found, with its columns by number.
pub(super) struct Row<'a>(&'a rusqlite::Row<'a>);

/// A compiled statement.
pub(super) struct Statement<'c>(CachedStatement<'c>);

impl Db {
    /// Opens a database that is there, to read and write.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let db = Self::open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // The log and its index stay when the last connection closes: without them, a file in a folder
        // that cannot be written to could not even be read.
        db.0.file_control(Some(MAIN_DB), FileControl::PersistWal(&mut 1))?;
        Ok(db)
    }

    /// Opens a database that is there, to read only.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn open_with(path: &Path, access: OpenFlags) -> Result<Self, Fault> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Self(Connection::open_with_flags(path, flags)?);
        db.set_patience(BUSY)?;
        db.0.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(db)
    }

    /// Runs a statement, and tells how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<usize, Fault> {
        self.prepare(sql)?.execute(params)
    }

    /// Compiles a statement that is run many times in a row.
    pub(super) fn prepare(&self, sql: &str) -> Result<Statement<'_>, Fault> {
        Ok(Statement(self.0.prepare_cached(sql)?))
    }

    /// Reads the first row that a query finds.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(params_from_iter(params))?;
        rows.next()?.map(|row| read(&Row(row))).transpose()
    }

    /// Reads all rows that a query finds.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(params_from_iter(params))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(&Row(row))?);
        }
        Ok(all)
    }

    /// Reads the row of a query that always finds one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.row(sql, params, read)?.ok_or(Fault::Malformed("row"))
    }

    /// Runs several statements without values.
    pub(super) fn run(&self, sql: &str) -> Result<(), Fault> {
        Ok(self.0.execute_batch(sql)?)
    }

    /// Does all of the work or nothing of it, within a transaction.
    pub(super) fn savepoint<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.execute("SAVEPOINT work", &[])?;
        let result = work(self);
        // Some failures end the whole transaction, and all savepoints with it.
        if result.is_err() && self.is_in_transaction() {
            // Half of the work must not stay.
            self.execute("ROLLBACK TO work", &[]).map(drop).or_else(|_| self.rollback())?;
        }
        if self.is_in_transaction() {
            self.execute("RELEASE work", &[])?;
        }
        result
    }

    /// Does all of the work or nothing of it, in a transaction of its own.
    pub(super) fn transaction<T, E: From<Fault>>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        let result = work(self).and_then(|value| {
            self.commit()?;
            Ok(value)
        });
        if result.is_err() {
            // If it cannot be undone now, it is when the connection closes.
            let _ = self.rollback();
        }
        result
    }

    /// Whether the file takes no writes. A transaction begins all the same, and refuses what is written.
    pub(super) fn is_read_only(&self) -> Result<bool, Fault> {
        Ok(self.0.is_readonly(MAIN_DB)?)
    }

    /// Begins a transaction that no other writer is in.
    pub(super) fn begin(&self) -> Result<(), Fault> {
        self.execute("BEGIN IMMEDIATE", &[]).map(drop)
    }

    /// Brings what was written in the transaction to the disk.
    pub(super) fn commit(&self) -> Result<(), Fault> {
        self.execute("COMMIT", &[]).map(drop)
    }

    /// Undoes what was written in the transaction, if it did not end by itself.
    pub(super) fn rollback(&self) -> Result<(), Fault> {
        if self.is_in_transaction() { self.execute("ROLLBACK", &[]).map(drop) } else { Ok(()) }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        !self.0.is_autocommit()
    }

    /// Has statements wait so long while another process writes.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<(), Fault> {
        Ok(self.0.busy_timeout(patience)?)
    }
}

impl Statement<'_> {
    /// Runs it, and tells how many rows it changed.
    pub(super) fn execute(&mut self, params: &[Param<'_>]) -> Result<usize, Fault> {
        Ok(self.0.execute(params_from_iter(params))?)
    }
}

impl Row<'_> {
    /// An integer that fits its type.
    pub(super) fn int<T: TryFrom<i64>>(&self, column: usize) -> Result<T, Fault> {
        self.opt_int(column)?.ok_or(MALFORMED)
    }

    pub(super) fn opt_int<T: TryFrom<i64>>(&self, column: usize) -> Result<Option<T>, Fault> {
        let number = self.get(column)?.as_i64_or_null()?;
        number.map(|number| T::try_from(number).map_err(|_| MALFORMED)).transpose()
    }

    pub(super) fn text(&self, column: usize) -> Result<&str, Fault> {
        self.opt_text(column)?.ok_or(MALFORMED)
    }

    pub(super) fn opt_text(&self, column: usize) -> Result<Option<&str>, Fault> {
        Ok(self.get(column)?.as_str_or_null()?)
    }

    /// A text that is the value of a type. Errors name it as `what`.
    pub(super) fn parsed<T: FromStr>(&self, column: usize, what: &'static str) -> Result<T, Fault> {
        self.opt_parsed(column, what)?.ok_or(Fault::Malformed(what))
    }

    pub(super) fn opt_parsed<T: FromStr>(
        &self,
        column: usize,
        what: &'static str,
    ) -> Result<Option<T>, Fault> {
        let text = self.opt_text(column)?;
        text.map(|text| text.parse().map_err(|_| Fault::Malformed(what))).transpose()
    }

    pub(super) fn blob(&self, column: usize) -> Result<&[u8], Fault> {
        self.opt_blob(column)?.ok_or(MALFORMED)
    }

    pub(super) fn opt_blob(&self, column: usize) -> Result<Option<&[u8]>, Fault> {
        Ok(self.get(column)?.as_blob_or_null()?)
    }

    /// The result of a condition such as `EXISTS`.
    pub(super) fn flag(&self, column: usize) -> Result<bool, Fault> {
        Ok(self.int::<i64>(column)? != 0)
    }

    pub(super) fn hash(&self, column: usize) -> Result<[u8; 32], Fault> {
        self.opt_hash(column)?.ok_or(MALFORMED)
    }

    pub(super) fn opt_hash(&self, column: usize) -> Result<Option<[u8; 32]>, Fault> {
        let bytes = self.opt_blob(column)?;
        bytes.map(|bytes| bytes.try_into().map_err(|_| MALFORMED)).transpose()
    }

    /// A time, which is stored in milliseconds.
    pub(super) fn time(&self, column: usize) -> Result<Timestamp, Fault> {
        self.opt_time(column)?.ok_or(MALFORMED)
    }

    pub(super) fn opt_time(&self, column: usize) -> Result<Option<Timestamp>, Fault> {
        let milliseconds = self.opt_int(column)?;
        let time = milliseconds.map(Timestamp::from_millisecond).transpose();
        time.map_err(|_| Fault::Malformed("time"))
    }

    fn get(&self, column: usize) -> Result<ValueRef<'_>, Fault> {
        Ok(self.0.get_ref(column)?)
    }
}

const MALFORMED: Fault = Fault::Malformed("value");

macro_rules! param_from {
    ($($from:ty, $value:ident => $param:expr;)*) => { $(
        impl<'a> From<$from> for Param<'a> {
            fn from($value: $from) -> Self {
                $param
            }
        }
    )* };
}

param_from! {
    i64, number => Self::Int(number);
    u32, number => Self::Int(number.into());
    // As large as a number of the database can be.
    u64, number => Self::Int(i64::try_from(number).unwrap_or(i64::MAX));
    bool, flag => Self::Int(flag.into());
    Timestamp, time => Self::Int(time.as_millisecond());
    &'a str, text => Self::Text(text);
    &'a String, text => Self::Text(text);
    &'a [u8], bytes => Self::Blob(bytes);
    &'a [u8; 32], bytes => Self::Blob(bytes);
}

impl<'a, T: Into<Self>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Null => ValueRef::Null,
        }))
    }
}

impl From<FromSqlError> for Fault {
    fn from(_: FromSqlError) -> Self {
        MALFORMED
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let Some(failure) = error.sqlite_error() else {
            return match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..) => MALFORMED,
                _ => Self::Statement(text),
            };
        };
        match failure.code {
            // SQLite's fault when it cannot make room for the index of its log.
            _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::Full,
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly => Self::ReadOnly,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
            // The text of the failure, since that of a table may hold what was stored.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Corrupt(failure.to_string())
            }
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                Self::Io { doing: "open it", cause: text }
            }
            _ if failure.extended_code == ffi::SQLITE_IOERR_WRITE => {
                let cause = "the disk failed, or the file has the largest size that the limits of \
                             this process allow (ulimit -f)";
                Self::Io { doing: "write to it", cause: cause.to_owned() }
            }
            ErrorCode::SystemIoFailure => Self::Io { doing: "read or write it", cause: text },
            // No statement of this program is at fault where the tables are all there.
            _ if text.starts_with("no such table") => Self::Corrupt(text),
            _ => Self::Statement(text),
        }
    }
}

#[cfg(test)]
impl Db {
    pub(super) fn in_memory() -> Self {
        Self(Connection::open_in_memory().unwrap())
    }

    /// Opens a file as another program would, and makes it if it is not there.
    pub(super) fn make(path: &Path) -> Self {
        Self(Connection::open(path).unwrap())
    }

    /// The steps in which a query is answered.
    pub(super) fn plan(&self, sql: &str) -> Vec<String> {
        let mut plan = self.0.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = vec![1; plan.parameter_count()];
        let steps = plan.query_map(params_from_iter(values), |row| row.get(3)).unwrap();
        steps.map(Result::unwrap).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_gone_is_damage_and_no_bug() {
        let fault = Db::in_memory().execute("DELETE FROM clients", &[]).unwrap_err();
        assert!(matches!(fault, Fault::Corrupt(_)), "{fault}");
    }
}
