-- When the upstream is done with what was sent of a call, in milliseconds; null if nothing was.
ALTER TABLE answers ADD COLUMN quiet INTEGER;
