-- When a connected worker last served a function, by the day or better; 0 if it was not written down yet.

ALTER TABLE functions ADD COLUMN served_at REAL NOT NULL DEFAULT 0;
