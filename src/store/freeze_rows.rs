//! The freezes as they are stored: all SQL about them. Each is recorded in the journal as it begins and ends.

use jiff::Timestamp;

use super::{
    db::{Db, Row},
    deed::Deed,
    error::Fault,
    freeze::{Freeze, FreezeOf},
    record::append_deed,
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

/// Adds a freeze, unless one of the same stands already. Returns the freeze that stands.
pub(super) fn freeze(db: &Db, of: FreezeOf, by: &str) -> Result<Freeze, Fault> {
    let freeze = Freeze { of, by: by.to_owned(), since: Timestamp::now() };
    let sql = "INSERT INTO freezes (stops, frozen_by, since) VALUES (?1, ?2, ?3)
               ON CONFLICT DO NOTHING";
    if db.execute(sql, &[of.as_str().into(), by.into(), freeze.since.into()])? > 0 {
        append_deed(db, Deed::Freeze(of), by)?;
    }
    Ok(standing(db, of)?.unwrap_or(freeze))
}

/// Ends all freezes, and tells whether there was any.
pub(super) fn thaw(db: &Db, by: &str) -> Result<bool, Fault> {
    let is_thawed = db.execute("DELETE FROM freezes", &[])? > 0;
    if is_thawed {
        append_deed(db, Deed::Thaw, by)?;
    }
    Ok(is_thawed)
}
