-- The start of the machine since which its clock runs, and by how many milliseconds that is ahead of the
-- time since then.
ALTER TABLE payments ADD COLUMN boot TEXT;
ALTER TABLE payments ADD COLUMN ahead INTEGER;
-- The credits of the recipient before a purchase, as JSON; none once other calls may have changed them.
ALTER TABLE payments ADD COLUMN balance_before TEXT;
