-- Which event a wait was given, and up to which event all waits were told. Events of a name are read from a position on,
-- and the waits that an event may be for in pages.

ALTER TABLE steps ADD COLUMN event_position INTEGER;
CREATE TABLE marks (
    name TEXT NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;
DROP INDEX events_name;
CREATE INDEX events_name ON events (name, position);
DROP INDEX waits_match;
CREATE INDEX waits_match ON waits (event_name, paths, match, run_id, step_id, step_index);
