-- One row: until when events are recorded.
CREATE TABLE listening (until INTEGER NOT NULL) STRICT;
INSERT INTO listening VALUES (0);
-- What events have told: of a reservation, that five minutes are left (1), or one (2), or that it has
-- ended (3); of a submission, that its review has an end (3).
ALTER TABLE reservations ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
CREATE INDEX reservations_to_tell ON reservations (state, ends) WHERE told < 3;
