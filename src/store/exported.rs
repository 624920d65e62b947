//! Checking a file of records, as `journal export` and `journal archive` write it.

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
};

use super::{
    audit::Broken,
    end::{End, START},
    record::Record,
};
use crate::files;

/// A file of records that hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// How many there are.
    pub records: u64,
    /// The number of the last one.
    pub last: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Why a file of records does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ExportedError {
    /// A record is not as it was written.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A line is none that this program writes.
    #[error("line {0} is no record as `journal export` or `journal archive` prints it")]
    Line(u64),
    /// There is no record in it.
    #[error("it holds no record")]
    Empty,
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

/// Checks the chain of a file of records. It begins where an earlier one ended, if there is one.
///
/// # Errors
/// See [`ExportedError`].
pub fn verify_exported(path: &Path, earlier: Option<Exported>) -> Result<Exported, ExportedError> {
    let mut end = earlier.map(|earlier| End { seq: earlier.last, hash: earlier.hash });
    let mut records = 0;
    for line in BufReader::new(files::open(path)?).lines() {
        records += 1;
        let read = Record::from_json_line(&line?).ok_or(ExportedError::Line(records))?;
        let (record, previous) = read;
        let begin = || End { seq: record.seq.saturating_sub(1), hash: previous.unwrap_or(START) };
        end = Some(end.unwrap_or_else(begin).and(&record)?);
    }
    let end = end.filter(|_| records > 0).ok_or(ExportedError::Empty)?;
    Ok(Exported { records, last: end.seq, hash: end.hash })
}
