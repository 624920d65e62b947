//! Reading the journal, without the wallet's key and while a proxy writes it.

use std::path::{Path, PathBuf};

use super::{
    db::{Db, Param, Row},
    end::{End, START},
    error::{Fault, StoreError},
    file,
    head::{self, Head},
    record::{Record, chained},
    schema::has_table,
};

/// The journal of a database, opened to be read.
///
/// Each record is chained to the one before by its hash. So a record that was changed, removed,
/// put in or moved shows, unless all that follow were written anew with it; the hashes take no
/// secret, so who can write the file can do that. That the last records were cut off, or all were
/// written anew, shows as long as the file `journal-head` stands beside the database, which only a
/// proxy with the wallet's key can write; but it can be removed, or put back together with an older
/// database. Against that, keep the hash that [`Journal::verify`] returns somewhere else: a later
/// journal must still hold it ([`Journal::holds`]).
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    db: Db,
}

/// A journal that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// How many were before them and are in archives.
    pub archived: u64,
    /// The hash of the last one; zeros if there was none.
    pub hash: [u8; 32],
    /// Whether there was a `journal-head`, so that it would show if the end had been cut off.
    pub has_head: bool,
}

/// Why reading the journal to its end did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A record is not as it was written.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The journal cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first record that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal was altered: record {seq} {why}")]
pub struct Broken {
    /// Its number.
    pub seq: u64,
    /// The breach.
    pub why: Breach,
}

/// The way in which a record does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// It is not there, but a later one is.
    #[error("is missing; the records before it hold")]
    Missing,
    /// It does not fit its hash and the one before.
    #[error(
        "or its hash was changed, or another record stands in its place; the records before it hold"
    )]
    Changed,
    /// It was the last one when a proxy wrote the head, and is not there or another.
    #[error(
        "was written, as the file journal-head says, and is not there: the end was cut off, or an \
         older or other journal stands in its place"
    )]
    Gone,
}

impl Journal {
    /// How many records are read at once.
    pub const PAGE: u32 = 1000;

    /// Opens the journal of the database at `path`.
    ///
    /// # Errors
    /// There is no database, it cannot be read, or a newer version has written it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = file::open_to_read(path).map_err(|fault| StoreError::new(path, fault))?;
        Ok(Self { path: path.to_owned(), db })
    }

    /// The last `count` records, in order.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tail(&self, count: u32) -> Result<Vec<Record>, StoreError> {
        let mut records = self.before(u64::MAX, count)?;
        records.reverse();
        Ok(records)
    }

    /// The records before the one with this number, at most `count`, the last one first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn before(&self, seq: u64, count: u32) -> Result<Vec<Record>, StoreError> {
        self.page("seq < ?1 ORDER BY seq DESC", seq.into(), count)
    }

    /// The records after the one with this number, at most `count`, in order.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn after(&self, seq: u64, count: u32) -> Result<Vec<Record>, StoreError> {
        self.page("seq > ?1 ORDER BY seq", seq.into(), count)
    }

    fn page(&self, which: &str, seq: Param<'_>, count: u32) -> Result<Vec<Record>, StoreError> {
        let sql = format!("SELECT seq, record, hash FROM journal WHERE {which} LIMIT ?2");
        let records = self.db.rows(&sql, &[seq, count.into()], record);
        records.map_err(|fault| self.failed(fault))
    }

    /// Gives every record to `each`, in order, one at a time, until it fails. Records that are
    /// written meanwhile are not among them. They are read in pages, so that a writer that brings its
    /// log into the file need not wait.
    ///
    /// # Errors
    /// `each` fails, the journal cannot be read, or records were moved into an archive meanwhile.
    pub fn for_each<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let (begin, last) = (self.begin()?, self.last()?);
        // A record that was put before all others is to be found, too.
        let mut page = self.page("seq > ?1 ORDER BY seq", i64::MIN.into(), Self::PAGE)?;
        while let Some(seq) = page.last().map(|record| record.seq) {
            for record in page {
                if record.seq <= last {
                    each(record)?;
                }
            }
            page = if seq < last { self.after(seq, Self::PAGE)? } else { Vec::new() };
        }
        if self.begin()? == begin { Ok(()) } else { Err(self.failed(Fault::Overtaken).into()) }
    }

    /// Gives every record to `each` as a line of JSON, as [`Journal::for_each`]. The first also tells the
    /// hash before it, if that is of an archive.
    ///
    /// # Errors
    /// As of [`Journal::for_each`].
    pub fn export<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.begin()?;
        self.for_each(|record| each(&record.to_json_line_after(&begin)))
    }

    /// Where the chain ended before the first record.
    pub(super) fn begin(&self) -> Result<End, StoreError> {
        // An earlier version has no archives.
        let begin = match has_table(&self.db, "archived") {
            Ok(false) => Ok(End { seq: 0, hash: START }),
            _ => End::before(&self.db),
        };
        begin.map_err(|fault| self.failed(fault))
    }

    /// The number of the last record; 0 if there is none.
    pub(super) fn last(&self) -> Result<u64, StoreError> {
        Ok(self.before(u64::MAX, 1)?.first().map_or(0, |record| record.seq))
    }

    /// Refuses a journal that a proxy would not go on with, since its end is not there.
    ///
    /// # Errors
    /// It is not there, or it cannot be read.
    pub fn check_end(&self) -> Result<(), StoreError> {
        let required = head::require(&self.path, &self.db);
        required.map(drop).map_err(|fault| self.failed(fault))
    }

    /// Whether the journal holds a record with this hash, or goes on from it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn holds(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM journal WHERE hash = ?1)";
        let held = self.db.one(sql, &[hash.into()], |row| row.flag(0));
        Ok(*hash == self.begin()?.hash || held.map_err(|fault| self.failed(fault))?)
    }

    /// Reads the whole journal and checks the chain and that its end is there, with no more than one
    /// record in memory.
    ///
    /// # Errors
    /// The first record that does not hold, or the journal cannot be read.
    pub fn verify(&self) -> Result<Verified, VerifyError> {
        loop {
            let begin = self.begin()?;
            let verified = self.verify_from(begin);
            // Records that were moved into an archive meanwhile are not missing.
            if verified.is_ok() || self.begin()? == begin {
                return verified;
            }
        }
    }

    fn verify_from(&self, begin: End) -> Result<Verified, VerifyError> {
        // Before the records: it may be written anew meanwhile, but never further back.
        let head = Head::read(&self.path).map_err(|fault| self.failed(fault))?;
        let has_head = head.is_some();
        let mut last = begin;
        self.for_each(|record| {
            last = last.and(&record)?;
            Ok::<_, VerifyError>(())
        })?;
        if let Some(Head { end, .. }) = head
            && !end.is_in(&self.db).map_err(|fault| self.failed(fault))?
        {
            return Err(Broken { seq: end.seq, why: Breach::Gone }.into());
        }
        let (archived, records) = (begin.seq, last.seq - begin.seq);
        Ok(Verified { records, archived, hash: last.hash, has_head })
    }

    fn failed(&self, fault: Fault) -> StoreError {
        StoreError::new(&self.path, fault)
    }
}

impl End {
    /// The same after one more record.
    pub(super) fn and(self, record: &Record) -> Result<Self, Broken> {
        let seq = self.seq + 1;
        if record.seq != seq {
            return Err(Broken { seq, why: Breach::Missing });
        }
        if chained(&self.hash, &record.text) != record.hash {
            return Err(Broken { seq, why: Breach::Changed });
        }
        Ok(Self { seq, hash: record.hash })
    }
}

fn record(row: &Row<'_>) -> Result<Record, Fault> {
    // A hash of another length, or a negative number, was altered; it need only be a wrong one.
    let hash = row.blob(2)?.try_into().unwrap_or(START);
    let seq = u64::try_from(row.int::<i64>(0)?).unwrap_or(0);
    Ok(Record { seq, text: row.text(1)?.to_owned(), hash })
}

#[cfg(test)]
mod tests;
