//! The tables, and how a file of an earlier version becomes one of this version.

use super::{
    db::{Db, Row},
    error::Fault,
};

/// One text a version of the schema; the version of a database is the number of texts it has been
/// through. A text that was ever released is not changed: a change is a new text at the end.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("schema/01_journal.sql"),
    include_str!("schema/02_sent_answers.sql"),
    include_str!("schema/03_clients.sql"),
    include_str!("schema/04_clients_version.sql"),
    include_str!("schema/05_holder_indexes.sql"),
    include_str!("schema/06_submissions.sql"),
    include_str!("schema/07_folded_jobs.sql"),
    include_str!("schema/08_archive.sql"),
    include_str!("schema/09_clock.sql"),
    include_str!("schema/10_client_ids.sql"),
    include_str!("schema/11_freezes.sql"),
    include_str!("schema/12_credits.sql"),
    include_str!("schema/13_payments.sql"),
    include_str!("schema/14_approvals.sql"),
    include_str!("schema/15_copies.sql"),
    include_str!("schema/16_purchase_balances.sql"),
    include_str!("schema/17_events.sql"),
    include_str!("schema/18_freeze_version.sql"),
    include_str!("schema/19_approval_seals.sql"),
    include_str!("schema/20_released_jobs.sql"),
    include_str!("schema/21_pending_purchases.sql"),
];

/// Brings the tables to the newest version in one transaction, so that a new file costs one commit. Where
/// that is done already, nothing is written.
pub(super) fn migrate(db: &Db, migrations: &[&str]) -> Result<(), Fault> {
    let known = migrations.len();
    if version(db, known)? == known {
        return Ok(());
    }
    db.transaction(|db| {
        // Another process may have been faster, so the version is read again under the lock.
        let steps = &migrations[version(db, known)?..];
        steps.iter().try_for_each(|sql| db.run(sql))?;
        db.run(&format!("PRAGMA user_version = {known}"))
    })
}

/// The owner of the tables in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// No owner: there are no tables, in a new file.
    Nothing,
    /// No owner: there are no tables, in a file that something was written to.
    Emptied,
    /// This program, in any version.
    Ours,
    /// Another program, or a version without its tables.
    Foreign,
}

/// Tells whose tables these are, in one read, since another process may be making them.
pub(super) fn content(db: &Db) -> Result<Content, Fault> {
    let sql = "
        SELECT (SELECT user_version FROM pragma_user_version),
            (SELECT page_count FROM pragma_page_count), count(*),
            count(*) FILTER (WHERE name IN ('journal', 'answers', 'reservations'))
        FROM sqlite_schema";
    let row = |row: &Row<'_>| Ok((row.int(0)?, row.int(1)?, row.int(2)?, row.int(3)?));
    let found: (i64, i64, i64, i64) = db.one(sql, &[], row)?;
    Ok(match found {
        (0, 0, 0, _) => Content::Nothing,
        (0, _, 0, _) => Content::Emptied,
        (1.., _, _, 3) => Content::Ours,
        (_, _, _, _) => Content::Foreign,
    })
}

/// Whether there is a table of this name, as an earlier version may not have it.
pub(super) fn has_table(db: &Db, name: &str) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    db.one(sql, &[name.into()], |row| row.flag(0))
}

/// The version of the file, which is at most `known`.
pub(super) fn version(db: &Db, known: usize) -> Result<usize, Fault> {
    let found = db.one("PRAGMA user_version", &[], |row| row.int(0))?;
    if found > known { Err(Fault::NewerSchema { found, known }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE one (a INTEGER); INSERT INTO one VALUES (7);";
    const SECOND: &str = "ALTER TABLE one ADD COLUMN b INTEGER; UPDATE one SET b = a + 1;";

    fn sum(db: &Db) -> i64 {
        db.one("SELECT a + b FROM one", &[], |row| row.int(0)).unwrap()
    }

    #[test]
    fn a_file_of_an_earlier_version_keeps_its_rows() {
        let db = Db::in_memory();
        migrate(&db, &[FIRST]).unwrap();
        assert_eq!(version(&db, 1), Ok(1));
        migrate(&db, &[FIRST, SECOND]).unwrap();
        migrate(&db, &[FIRST, SECOND]).unwrap();
        assert_eq!((version(&db, 2), sum(&db)), (Ok(2), 15));
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before() {
        let db = Db::in_memory();
        migrate(&db, &[FIRST]).unwrap();
        let half = "CREATE TABLE two (a INTEGER); INSERT INTO nowhere VALUES (1);";
        migrate(&db, &[FIRST, half]).unwrap_err();
        assert_eq!(version(&db, 1), Ok(1));
        migrate(&db, &[FIRST, SECOND]).unwrap();
        assert!(!has_table(&db, "two").unwrap());
    }

    #[test]
    fn a_newer_version_is_refused() {
        let db = Db::in_memory();
        migrate(&db, &[FIRST, SECOND]).unwrap();
        let refused = migrate(&db, &[FIRST]);
        assert_eq!(refused, Err(Fault::NewerSchema { found: 2, known: 1 }));
    }

    #[test]
    fn of_two_spellings_of_a_job_the_later_reservation_stays() {
        let db = Db::in_memory();
        let before = MIGRATIONS.iter().position(|sql| sql.contains("NOCASE")).unwrap();
        migrate(&db, &MIGRATIONS[..before]).unwrap();
        let rows = "
            INSERT INTO reservations VALUES ('w', '507F', 'late', 'r-1', 1800, x'01');
            INSERT INTO reservations VALUES ('w', '507f', 'early', 'r-2', 900, NULL);
            INSERT INTO pending_reservations VALUES (7, 'w', '507F', 'late', 1800);
            INSERT INTO submissions VALUES ('w', '508F', 'ci', 'r-3', 0);";
        db.run(rows).unwrap();
        migrate(&db, MIGRATIONS).unwrap();
        let sql = "
            SELECT state || client_name || coalesce(reservation_id || hex(workflow_token), reservation_id, '')
            FROM reservations WHERE job IN ('507f', '508f') ORDER BY state";
        let found = db.rows(sql, &[], |row| Ok(row.text(0)?.to_owned())).unwrap();
        assert_eq!(found, ["pendinglate", "reservedlater-101", "submittedcir-3"]);
    }

    #[test]
    fn the_migrations_of_this_version_apply() {
        let db = Db::in_memory();
        migrate(&db, MIGRATIONS).unwrap();
        assert_eq!(version(&db, MIGRATIONS.len()), Ok(MIGRATIONS.len()));
    }
}
