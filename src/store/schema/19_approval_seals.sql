-- The seal of an answer that approves, which only the wallet's key makes.
ALTER TABLE approvals ADD COLUMN seal BLOB;
