-- The body of a purchase, by which another call can ask after its transaction, and whether one has learned
-- so that it has settled: then no other purchase waits for it, and only its own call asks once more.
ALTER TABLE payments ADD COLUMN body TEXT;
ALTER TABLE payments ADD COLUMN lets_others INTEGER NOT NULL DEFAULT FALSE;
