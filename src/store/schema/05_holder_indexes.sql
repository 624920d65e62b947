-- Who holds a job and what a client holds is found without a look at all that is held.
CREATE INDEX reservations_by_client ON reservations (client, ends);
CREATE INDEX pending_by_client ON pending_reservations (client, ends);
CREATE INDEX pending_by_job ON pending_reservations (wallet, job);
CREATE INDEX pending_by_end ON pending_reservations (ends);
