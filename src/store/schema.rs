//! The tables, and how a file of an earlier version becomes one of this version.

use super::{
    db::{Db, Row},
    error::Fault,
};

/// One text a version of the schema; the version of a file is the number of texts it has been
/// through. A text that was ever released is not changed: a change is a new text at the end.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    -- The record's canonical JSON, and SHA-256 of the hash before it followed by that text.
    CREATE TABLE journal (
        seq INTEGER PRIMARY KEY,
        record TEXT NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;

    -- What was answered to a client's Idempotency-Key; no answer as long as its call runs.
    CREATE TABLE answers (
        client TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        run TEXT NOT NULL,
        claimed INTEGER NOT NULL,
        answer BLOB,
        PRIMARY KEY (client, key)
    ) STRICT;
    CREATE INDEX answers_by_age ON answers (claimed);

    CREATE TABLE reservations (
        wallet TEXT NOT NULL,
        job TEXT NOT NULL,
        client TEXT NOT NULL,
        reservation_id TEXT,
        ends INTEGER NOT NULL,
        workflow_token BLOB,
        PRIMARY KEY (wallet, job)
    ) STRICT;
    CREATE INDEX reservations_by_end ON reservations (ends);

    -- One row, written to find out whether anything can be written.
    CREATE TABLE probe (at INTEGER NOT NULL) STRICT;
    INSERT INTO probe VALUES (0);
",
    "
    -- When the upstream is done with what was sent of a call, in milliseconds; null if nothing was.
    ALTER TABLE answers ADD COLUMN quiet INTEGER;
",
    "
    -- Who may call. A revoked client keeps its row, but not what it was known by.
    CREATE TABLE clients (
        name TEXT PRIMARY KEY,
        token_hash BLOB UNIQUE,
        certificate BLOB UNIQUE,
        uid INTEGER UNIQUE,
        allow TEXT NOT NULL,
        wallet TEXT,
        rate TEXT,
        max_reservations INTEGER,
        admin INTEGER NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER,
        revoked INTEGER,
        last_used INTEGER,
        -- The theoretical arrival time of its rate, in nanoseconds.
        arrival INTEGER
    ) STRICT;

    -- Reserves that are under way or whose answer was lost: until `ends`, they count as reservations.
    CREATE TABLE pending_reservations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        wallet TEXT NOT NULL,
        job TEXT NOT NULL,
        client TEXT NOT NULL,
        ends INTEGER NOT NULL
    ) STRICT;
",
    "
    -- One row: another number after every change of who may call or what a client may do. It is
    -- random, so that a file that was put back from a copy has no number that was known before.
    CREATE TABLE clients_version (version INTEGER NOT NULL) STRICT;
    INSERT INTO clients_version VALUES (random());

    CREATE TRIGGER client_added AFTER INSERT ON clients
    BEGIN UPDATE clients_version SET version = random(); END;

    CREATE TRIGGER client_removed AFTER DELETE ON clients
    BEGIN UPDATE clients_version SET version = random(); END;

    -- Not for what changes with every call: its last use and its arrival.
    CREATE TRIGGER client_changed
    AFTER UPDATE OF name, token_hash, certificate, uid, allow, wallet, rate, max_reservations,
                    admin, expires, revoked
    ON clients
    BEGIN UPDATE clients_version SET version = random(); END;
",
    "
    -- Who holds a job and what a client holds is found without a look at all that is held.
    CREATE INDEX reservations_by_client ON reservations (client, ends);
    CREATE INDEX pending_by_client ON pending_reservations (client, ends);
    CREATE INDEX pending_by_job ON pending_reservations (wallet, job);
    CREATE INDEX pending_by_end ON pending_reservations (ends);
",
    "
    -- Jobs whose proof was submitted, with the client of each, until the job is reserved again.
    CREATE TABLE submissions (
        wallet TEXT NOT NULL,
        job TEXT NOT NULL,
        client TEXT NOT NULL,
        reservation_id TEXT,
        submitted INTEGER NOT NULL,
        PRIMARY KEY (wallet, job)
    ) STRICT;
    CREATE INDEX submissions_by_age ON submissions (submitted);
",
    "
    -- A job id in upper case is that of the same job, so who holds it is found by either.
    CREATE TABLE folded_reservations (
        wallet TEXT NOT NULL,
        job TEXT NOT NULL COLLATE NOCASE,
        client TEXT NOT NULL,
        reservation_id TEXT,
        ends INTEGER NOT NULL,
        workflow_token BLOB,
        PRIMARY KEY (wallet, job)
    ) STRICT;
    INSERT OR REPLACE INTO folded_reservations
        SELECT wallet, job, client, reservation_id, ends, workflow_token
        FROM reservations ORDER BY ends;
    DROP TABLE reservations;
    ALTER TABLE folded_reservations RENAME TO reservations;
    CREATE INDEX reservations_by_end ON reservations (ends);
    CREATE INDEX reservations_by_client ON reservations (client, ends);

    CREATE TABLE folded_pending_reservations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        wallet TEXT NOT NULL,
        job TEXT NOT NULL COLLATE NOCASE,
        client TEXT NOT NULL,
        ends INTEGER NOT NULL
    ) STRICT;
    INSERT INTO folded_pending_reservations
        SELECT id, wallet, job, client, ends FROM pending_reservations;
    DROP TABLE pending_reservations;
    ALTER TABLE folded_pending_reservations RENAME TO pending_reservations;
    CREATE INDEX pending_by_client ON pending_reservations (client, ends);
    CREATE INDEX pending_by_job ON pending_reservations (wallet, job);
    CREATE INDEX pending_by_end ON pending_reservations (ends);

    CREATE TABLE folded_submissions (
        wallet TEXT NOT NULL,
        job TEXT NOT NULL COLLATE NOCASE,
        client TEXT NOT NULL,
        reservation_id TEXT,
        submitted INTEGER NOT NULL,
        PRIMARY KEY (wallet, job)
    ) STRICT;
    INSERT OR REPLACE INTO folded_submissions
        SELECT wallet, job, client, reservation_id, submitted FROM submissions ORDER BY submitted;
    DROP TABLE submissions;
    ALTER TABLE folded_submissions RENAME TO submissions;
    CREATE INDEX submissions_by_age ON submissions (submitted);
",
    "
    -- One row: the number and the hash of the last record that was moved into an archive, from which the
    -- journal goes on; 0 and zeros as long as there was none.
    CREATE TABLE archived (seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
    INSERT INTO archived VALUES (0, zeroblob(32));
",
    "
    -- One row: by how much the clock was ahead of the time since the machine started, in milliseconds.
    CREATE TABLE clock (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        boot TEXT NOT NULL,
        ahead INTEGER NOT NULL
    ) STRICT;
    -- The start of the machine since which an end was written.
    ALTER TABLE reservations ADD COLUMN boot TEXT;
    ALTER TABLE pending_reservations ADD COLUMN boot TEXT;
",
    "
    -- A client has a number, which no other ever has. That of `local`, which has no row, is 0.
    CREATE TABLE numbered_clients (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        token_hash BLOB UNIQUE,
        certificate BLOB UNIQUE,
        uid INTEGER UNIQUE,
        allow TEXT NOT NULL,
        wallet TEXT,
        rate TEXT,
        max_reservations INTEGER,
        admin INTEGER NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER,
        revoked INTEGER,
        last_used INTEGER,
        -- The theoretical arrival time of its rate, in nanoseconds.
        arrival INTEGER
    ) STRICT;
    INSERT INTO numbered_clients
            (name, token_hash, certificate, uid, allow, wallet, rate, max_reservations, admin,
             created, expires, revoked, last_used, arrival)
        SELECT name, token_hash, certificate, uid, allow, wallet, rate, max_reservations, admin,
               created, expires, revoked, last_used, arrival
        FROM clients ORDER BY created, name;

    -- What a client holds of a job: a reserve that is under way or whose answer was lost ('pending'),
    -- a reservation, or a submission. `forgotten` is when the row is of no use any more.
    CREATE TABLE holds (
        id INTEGER PRIMARY KEY,
        wallet TEXT NOT NULL,
        job TEXT NOT NULL COLLATE NOCASE,
        client INTEGER NOT NULL,
        client_name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'reserved', 'submitted')),
        ends INTEGER NOT NULL,
        forgotten INTEGER NOT NULL,
        -- The start of the machine since which the end was written.
        boot TEXT,
        reservation_id TEXT,
        workflow_token BLOB
    ) STRICT;
    -- The client of a name that is there no more has no number.
    INSERT INTO holds (wallet, job, client, client_name, state, ends, forgotten, boot,
                       reservation_id, workflow_token)
        SELECT wallet, job,
               coalesce((SELECT id FROM numbered_clients WHERE name = old.client),
                        CASE old.client WHEN 'local' THEN 0 ELSE -1 END),
               client, state, ends, forgotten, boot, reservation_id, workflow_token
        FROM (
            SELECT wallet, job, client, 'reserved' AS state, ends, ends + 86400000 AS forgotten, boot,
                   reservation_id, workflow_token
            FROM reservations
            UNION ALL
            SELECT wallet, job, client, 'submitted', submitted, submitted + 2592000000, NULL,
                   reservation_id, NULL
            FROM submissions
            UNION ALL
            SELECT wallet, job, client, 'pending', ends, ends + 5000, boot, NULL, NULL
            FROM pending_reservations
        ) AS old;
    DROP TABLE reservations;
    DROP TABLE submissions;
    DROP TABLE pending_reservations;
    ALTER TABLE holds RENAME TO reservations;
    CREATE UNIQUE INDEX reservations_by_job ON reservations (wallet, job, state)
        WHERE state <> 'pending';
    CREATE INDEX reservations_of_job ON reservations (wallet, job);
    CREATE INDEX reservations_of_client ON reservations (client, ends);
    CREATE INDEX reservations_by_age ON reservations (forgotten);
    CREATE INDEX reservations_by_end ON reservations (ends) WHERE state = 'reserved';

    -- What was answered to an Idempotency-Key; no answer as long as its call runs. A key belongs to the
    -- number of a client, or to all completions. When a call that was sent settles, in milliseconds; null
    -- if nothing was sent. What an answer is sealed for besides its key: its owner, unless it says another.
    CREATE TABLE owned_answers (
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        run TEXT NOT NULL,
        claimed INTEGER NOT NULL,
        settles INTEGER,
        answer BLOB,
        sealed_for TEXT,
        PRIMARY KEY (owner, key)
    ) STRICT;
    -- Of the completions with one key, one that was answered comes first.
    INSERT INTO owned_answers
        SELECT CASE WHEN key LIKE 'completion %' THEN 'completions' ELSE
                   coalesce((SELECT CAST(id AS TEXT) FROM numbered_clients WHERE name = client),
                            CASE client WHEN 'local' THEN '0' ELSE 'removed ' || client END)
               END,
               key, fingerprint, run, claimed, quiet, answer, client
        FROM answers WHERE TRUE ORDER BY answer IS NULL, quiet IS NULL
        ON CONFLICT DO NOTHING;
    DROP TABLE answers;
    ALTER TABLE owned_answers RENAME TO answers;
    CREATE INDEX answers_by_age ON answers (claimed);

    DROP TABLE clients;
    ALTER TABLE numbered_clients RENAME TO clients;
    CREATE TRIGGER client_added AFTER INSERT ON clients
    BEGIN UPDATE clients_version SET version = random(); END;
    CREATE TRIGGER client_removed AFTER DELETE ON clients
    BEGIN UPDATE clients_version SET version = random(); END;
    -- Not for what changes with every call: its last use and its arrival.
    CREATE TRIGGER client_changed
    AFTER UPDATE OF name, token_hash, certificate, uid, allow, wallet, rate, max_reservations,
                    admin, expires, revoked
    ON clients
    BEGIN UPDATE clients_version SET version = random(); END;
    UPDATE clients_version SET version = random();
",
    "
    -- What is not signed or not paid until it is thawed, and who froze it.
    CREATE TABLE freezes (
        stops TEXT PRIMARY KEY CHECK (stops IN ('signatures', 'payments')),
        frozen_by TEXT NOT NULL,
        since INTEGER NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE clients ADD COLUMN max_credits TEXT;

    -- Millionths of credits that count against a client's limit until `ends`: for calls that may be charged,
    -- and what calls were charged.
    CREATE TABLE credit_holds (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        client INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        credits INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX credit_holds_of_client ON credit_holds (client, ends);
    CREATE TABLE credit_charges (
        client INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        credits INTEGER NOT NULL,
        PRIMARY KEY (client, ends)
    ) STRICT;
",
    "
    -- Payments, each recorded before it is signed. An open one may still be cashed; one that was returned
    -- surely was not, and does not count.
    CREATE TABLE payments (
        nonce TEXT PRIMARY KEY,
        payer TEXT NOT NULL,
        client INTEGER NOT NULL,
        -- The hash of the call that it is for.
        fingerprint BLOB NOT NULL,
        amount INTEGER NOT NULL,
        recorded INTEGER NOT NULL,
        -- The end of the authorisation, in seconds.
        valid_before INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'settled', 'returned')),
        accepted TEXT NOT NULL,
        resource TEXT NOT NULL,
        -- For a purchase: the credits, and the wallet that gets them.
        credits INTEGER,
        recipient TEXT,
        transaction_hash TEXT,
        -- How many attempts may have brought it to the upstream, in all processes.
        sent INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX payments_of_call ON payments (fingerprint);
    CREATE INDEX payments_by_time ON payments (recorded);
    CREATE INDEX payments_open ON payments (payer, valid_before) WHERE state = 'open';
    ALTER TABLE clients ADD COLUMN spend TEXT;
",
    "
    -- Payments that a person is asked about. Until `ends` a question waits, or its answer counts.
    CREATE TABLE approvals (
        id TEXT PRIMARY KEY,
        client INTEGER NOT NULL,
        client_name TEXT NOT NULL,
        action TEXT NOT NULL,
        resource TEXT NOT NULL,
        network TEXT NOT NULL,
        asset TEXT NOT NULL,
        payee TEXT NOT NULL,
        amount TEXT NOT NULL,
        -- A hash of all that makes it the same payment of the same call.
        fingerprint BLOB NOT NULL,
        asked INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        answer TEXT CHECK (answer IN ('approved', 'denied', 'used')),
        answered_by TEXT
    ) STRICT;
    CREATE INDEX approvals_of_client ON approvals (client, ends);
    CREATE INDEX approvals_by_end ON approvals (ends);
",
    "
    -- One row: whether a proxy has begun the file journal-head. Without that file, it is a copy.
    CREATE TABLE head (is_begun INTEGER NOT NULL) STRICT;
    INSERT INTO head VALUES (FALSE);
",
    "
    -- The start of the machine since which its clock runs, and by how many milliseconds that is ahead of the
    -- time since then.
    ALTER TABLE payments ADD COLUMN boot TEXT;
    ALTER TABLE payments ADD COLUMN ahead INTEGER;
    -- The credits of the recipient before a purchase, as JSON; none once other calls may have changed them.
    ALTER TABLE payments ADD COLUMN balance_before TEXT;
",
    "
    -- One row: until when events are recorded.
    CREATE TABLE listening (until INTEGER NOT NULL) STRICT;
    INSERT INTO listening VALUES (0);
    -- What events have told: of a reservation, that five minutes are left (1), or one (2), or that it has
    -- ended (3); of a submission, that its review has an end (3).
    ALTER TABLE reservations ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX reservations_to_tell ON reservations (state, ends) WHERE told < 3;
",
];

/// Brings the tables to the newest version, each step in a transaction of its own. Where that is
/// done already, nothing is written.
pub(super) fn migrate(db: &Db, migrations: &[&str]) -> Result<(), Fault> {
    while version(db, migrations.len())? < migrations.len() {
        db.transaction(|db| {
            // Another process may have been faster, so the version is read again under the lock.
            let version = version(db, migrations.len())?;
            let Some(sql) = migrations.get(version) else { return Ok(()) };
            db.run(sql)?;
            db.run(&format!("PRAGMA user_version = {}", version + 1))
        })?;
    }
    Ok(())
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
    fn a_step_that_fails_leaves_the_version_before_it() {
        let db = Db::in_memory();
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
