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
