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
