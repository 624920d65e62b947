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
