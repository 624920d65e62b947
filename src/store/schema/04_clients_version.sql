-- One row: another number after every change of who may call or what a client may do. It is
-- random, so that a file that was put back from a copy has no number that was known before.
CREATE TABLE clients_version (version INTEGER NOT NULL) STRICT;
INSERT INTO clients_version VALUES (random());

CREATE TRIGGER client_added AFTER INSERT ON clients
BEGIN UPDATE clients_version SET version = random(); END;

CREATE TRIGGER client_removed AFTER DELETE ON clients
BEGIN UPDATE clients_version SET version = random(); END;

-- Not for what changes with every call: its last use and its arrival.
CREATE TRIGGER client_changed
AFTER UPDATE OF name, token_hash, certificate, uid, allow, wallet, rate, max_reservations,
                admin, expires, revoked
ON clients
BEGIN UPDATE clients_version SET version = random(); END;
