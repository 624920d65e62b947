-- One row: the number and the hash of the last record that was moved into an archive, from which the
-- journal goes on; 0 and zeros as long as there was none.
CREATE TABLE archived (seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
INSERT INTO archived VALUES (0, zeroblob(32));
