-- Listing runs by whatever a client may ask for, newest first, without walking through runs that are not meant.
-- State, app, function and parent are in the partial ones so that it need not follow each entry to its run.

-- PostgreSQL: ALTER TABLE runs ALTER COLUMN app SET STATISTICS 0, ALTER COLUMN function_id SET STATISTICS 0;
-- Its planner would walk through all runs for an app that it believes to have many.
CREATE INDEX runs_app ON runs (app, id);
CREATE INDEX runs_function_id ON runs (function_id, id);
CREATE INDEX runs_unfinished ON runs (id, state, app, function_id, parent_run_id) WHERE state < 3;
DROP INDEX runs_failed;
CREATE INDEX runs_failed ON runs (id, state, app, function_id) WHERE state > 3;
