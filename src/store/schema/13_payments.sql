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
