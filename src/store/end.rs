//! The end of the journal's chain.

use super::{
    db::{Db, Row},
    error::Fault,
};

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
    pub(super) fn read(db: &Db) -> Result<Self, Fault> {
        let sql = "SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1";
        db.row(sql, &[], Self::stored)?.map_or_else(|| Self::before(db), Ok)
    }

    /// Where the chain ended before the first record that is there: where an archive ends, if there is
    /// one.
    pub(super) fn before(db: &Db) -> Result<Self, Fault> {
        db.one("SELECT seq, hash FROM archived", &[], Self::stored)
    }

    fn stored(row: &Row<'_>) -> Result<Self, Fault> {
        Ok(Self { seq: row.int(0)?, hash: row.hash(1)? })
    }

    /// Whether the chain ends here or goes on from here.
    pub(super) fn is_in(&self, db: &Db) -> Result<bool, Fault> {
        let sql = "SELECT EXISTS (SELECT 1 FROM journal WHERE seq = ?1 AND hash = ?2)";
        Ok(self.seq == 0
            || db.one(sql, &[self.seq.into(), (&self.hash).into()], |row| row.flag(0))?)
    }
}
