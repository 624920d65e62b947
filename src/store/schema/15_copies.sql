-- One row: whether a proxy has begun the file journal-head. Without that file, it is a copy.
CREATE TABLE head (is_begun INTEGER NOT NULL) STRICT;
INSERT INTO head VALUES (FALSE);
