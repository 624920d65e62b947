-- What is not signed or not paid until it is thawed, and who froze it.
CREATE TABLE freezes (
    stops TEXT PRIMARY KEY CHECK (stops IN ('signatures', 'payments')),
    frozen_by TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;
