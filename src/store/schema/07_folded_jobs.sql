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
