-- The answer to the reserve of a running reservation, sealed: its instructions come only once.
ALTER TABLE reservations ADD COLUMN answer BLOB;
CREATE INDEX reservations_with_answer ON reservations (ends) WHERE answer IS NOT NULL;
-- Whether its client has released the job, so that another one may have it.
ALTER TABLE reservations ADD COLUMN released INTEGER NOT NULL DEFAULT 0;
