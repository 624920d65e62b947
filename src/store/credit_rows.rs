//! The credits that clients have spent or may be spending: all SQL about them.

use jiff::Timestamp;

use super::{
    credit_use::{CountedCredits, CreditUse},
    db::{Db, Row},
    error::Fault,
};
use crate::types::{ClientId, CreditAmount};

/// All that counts against the limit of a client.
pub(super) fn in_use(db: &Db, client: ClientId, now: Timestamp) -> Result<CreditUse, Fault> {
    let sql = "SELECT credits, ends, FALSE FROM credit_charges WHERE client = ?1 AND ends > ?2
               UNION ALL
               SELECT credits, ends, TRUE FROM credit_holds WHERE client = ?1 AND ends > ?2
               ORDER BY 2";
    let read = |row: &Row<'_>| {
        let credits = CreditAmount::from_millionths(row.int(0)?);
        Ok(CountedCredits { credits, ends: row.time(1)?, is_held: row.flag(2)? })
    };
    db.rows(sql, &[client.number().into(), now.into()], read).map(CreditUse)
}

/// Holds credits for a call that is about to be made, and returns the number of the hold. What no longer
/// counts is forgotten.
pub(super) fn hold(
    db: &Db,
    client: ClientId,
    credits: CreditAmount,
    ends: Timestamp,
    now: Timestamp,
) -> Result<i64, Fault> {
    for table in ["credit_charges", "credit_holds"] {
        let sql = format!("DELETE FROM {table} WHERE client = ?1 AND ends <= ?2");
        db.execute(&sql, &[client.number().into(), now.into()])?;
    }
    let sql = "INSERT INTO credit_holds (client, ends, credits) VALUES (?1, ?2, ?3) RETURNING id";
    let row = [client.number().into(), ends.into(), credits.millionths().into()];
    db.one(sql, &row, |row| row.int(0))
}

/// Counts what a call was charged in place of what it held.
pub(super) fn charge(db: &Db, hold: i64, credits: CreditAmount) -> Result<(), Fault> {
    let sql = "INSERT INTO credit_charges (client, ends, credits)
               SELECT client, ends, ?2 FROM credit_holds WHERE id = ?1
               ON CONFLICT (client, ends) DO UPDATE SET credits = credits + excluded.credits";
    db.execute(sql, &[hold.into(), credits.millionths().into()])?;
    release(db, hold)
}

/// Gives back what a call held, as it was surely not made.
pub(super) fn release(db: &Db, hold: i64) -> Result<(), Fault> {
    db.execute("DELETE FROM credit_holds WHERE id = ?1", &[hold.into()]).map(drop)
}

/// Has what one client spent count against the limit of another.
pub(super) fn inherit(db: &Db, from: ClientId, to: ClientId) -> Result<(), Fault> {
    for table in ["credit_charges", "credit_holds"] {
        let sql = format!("UPDATE {table} SET client = ?1 WHERE client = ?2");
        db.execute(&sql, &[to.number().into(), from.number().into()])?;
    }
    Ok(())
}

/// Forgets what a client spent.
pub(super) fn forget(db: &Db, client: ClientId) -> Result<(), Fault> {
    for table in ["credit_charges", "credit_holds"] {
        db.execute(&format!("DELETE FROM {table} WHERE client = ?1"), &[client.number().into()])?;
    }
    Ok(())
}
