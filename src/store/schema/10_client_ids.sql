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
