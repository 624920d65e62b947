-- One row: by how much the clock was ahead of the time since the machine started, in milliseconds.
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot TEXT NOT NULL,
    ahead INTEGER NOT NULL
) STRICT;
-- The start of the machine since which an end was written.
ALTER TABLE reservations ADD COLUMN boot TEXT;
ALTER TABLE pending_reservations ADD COLUMN boot TEXT;
