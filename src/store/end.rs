//! The end of the journal's chain.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::Fault;

/// The hash before the first record.
pub(super) const START: [u8; 32] = [0; 32];

/// Where the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The number of the last record; 0 if there is none.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: [u8; 32],
}

impl End {
    pub(super) fn read(connection: &Connection) -> Result<Self, Fault> {
        let last = connection
            .prepare_cached("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| Ok(Self { seq: row.get(0)?, hash: row.get(1)? }))
            .optional()?;
        last.map_or_else(|| Self::before(connection), Ok)
    }

    /// Where the chain ended before the first record that is there: where an archive ends, if there is
    /// one.
    pub(super) fn before(connection: &Connection) -> Result<Self, Fault> {
        let mut statement = connection.prepare_cached("SELECT seq, hash FROM archived")?;
        Ok(statement.query_row([], |row| Ok(Self { seq: row.get(0)?, hash: row.get(1)? }))?)
    }

    /// Whether the chain ends here or goes on from here.
    pub(super) fn is_in(&self, connection: &Connection) -> Result<bool, Fault> {
        if self.seq == 0 {
            return Ok(true);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM journal WHERE seq = ?1 AND hash = ?2)";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![self.seq, self.hash], |row| row.get(0))?)
    }
}
