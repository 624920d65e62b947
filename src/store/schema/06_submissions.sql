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
