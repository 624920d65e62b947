//! The freezes as they are stored: all SQL about them.

use super::{
    db::{Db, Row},
    error::Fault,
    freeze::{Freeze, FreezeOf},
};

/// The freeze that stops these, if one stands.
pub(super) fn standing(db: &Db, of: FreezeOf) -> Result<Option<Freeze>, Fault> {
    // A freeze of signatures stops more than one of payments, so it comes first: its word is behind the other
    // in the alphabet. With `IN`, SQLite would make a table for each query.
    let sql = "SELECT stops, frozen_by, since FROM freezes
               WHERE stops >= ?1 ORDER BY stops DESC LIMIT 1";
    let read = |row: &Row<'_>| {
        let of = FreezeOf::from_str(row.text(0)?).ok_or(Fault::Malformed("freeze"))?;
        Ok(Freeze { of, by: row.text(1)?.to_owned(), since: row.time(2)? })
    };
    db.row(sql, &[of.as_str().into()], read)
}

/// Refuses what is frozen.
pub(super) fn check(db: &Db, of: FreezeOf) -> Result<(), Fault> {
    standing(db, of)?.map_or(Ok(()), |freeze| Err(Fault::Frozen(freeze)))
}

/// Adds a freeze, unless one of the same stands already; tells whether it did.
pub(super) fn insert(db: &Db, freeze: &Freeze) -> Result<bool, Fault> {
    let sql = "INSERT INTO freezes (stops, frozen_by, since) VALUES (?1, ?2, ?3)
               ON CONFLICT DO NOTHING";
    let row = [freeze.of.as_str().into(), (&freeze.by).into(), freeze.since.into()];
    Ok(db.execute(sql, &row)? > 0)
}

/// Ends all freezes, and tells whether there was any.
pub(super) fn delete(db: &Db) -> Result<bool, Fault> {
    Ok(db.execute("DELETE FROM freezes", &[])? > 0)
}
