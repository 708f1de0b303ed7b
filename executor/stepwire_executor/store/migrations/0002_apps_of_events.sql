-- The apps that an event reaches, as a JSON array; '' for all.

ALTER TABLE events ADD COLUMN apps TEXT NOT NULL DEFAULT '';
