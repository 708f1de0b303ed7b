-- The app of a wait's run: an event is compared with the waits of one app after the other, and of those that it reaches.

ALTER TABLE waits ADD COLUMN app TEXT NOT NULL DEFAULT '';
UPDATE waits SET app = (SELECT runs.app FROM runs WHERE runs.id = waits.run_id);
DROP INDEX waits_match;
CREATE INDEX waits_match ON waits (event_name, app, paths, match, run_id, step_id, step_index);
