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
