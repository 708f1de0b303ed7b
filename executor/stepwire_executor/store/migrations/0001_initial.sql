-- States are numbered as in the contract. A run has ended from 3 on, a step from 5 on; 3 is a waiting step.
-- Times are Unix seconds. Texts that may be absent are ''. Wide columns come last, so that scans seldom follow them.

CREATE TABLE store (
    epoch INTEGER NOT NULL
);
INSERT INTO store VALUES (0);

CREATE TABLE functions (
    app TEXT NOT NULL,
    function_id TEXT NOT NULL,
    app_version TEXT NOT NULL,
    registered_at REAL NOT NULL,
    event_names TEXT NOT NULL,
    retry TEXT,
    run_timeout REAL,
    PRIMARY KEY (app, function_id)
) WITHOUT ROWID;

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    time REAL NOT NULL,
    received_at REAL NOT NULL,
    traceparent TEXT NOT NULL,
    tracestate TEXT NOT NULL,
    digest TEXT NOT NULL,
    run_ids TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX events_id ON events (id);
CREATE INDEX events_name ON events (name);

CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    state INTEGER NOT NULL,
    wake_at REAL,
    app TEXT NOT NULL,
    function_id TEXT NOT NULL,
    app_version TEXT NOT NULL,
    event_position INTEGER NOT NULL REFERENCES events,
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    deadline_at REAL,
    attempt INTEGER NOT NULL,
    retry_at REAL,
    lost_invocations INTEGER NOT NULL,
    parent_run_id TEXT NOT NULL,
    parent_step_id TEXT,
    parent_step_index INTEGER,
    depth INTEGER NOT NULL,
    cancel_reason TEXT NOT NULL,
    failure TEXT,
    output BLOB
) WITHOUT ROWID;
CREATE INDEX runs_open ON runs (wake_at, id) WHERE state < 3;
CREATE INDEX runs_failed ON runs (id) WHERE state > 3;
CREATE INDEX runs_function ON runs (app, function_id, id);
CREATE INDEX runs_event ON runs (event_position);
CREATE INDEX runs_parent ON runs (parent_run_id, id) WHERE parent_run_id <> '';

CREATE TABLE steps (
    run_id TEXT NOT NULL REFERENCES runs,
    number INTEGER NOT NULL,
    state INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    step_id TEXT NOT NULL,
    step_index INTEGER NOT NULL,
    target TEXT NOT NULL,
    retry TEXT,
    attempt_timeout REAL,
    step_timeout REAL,
    source TEXT NOT NULL,
    found_after INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    worker TEXT NOT NULL,
    planned_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    due_at REAL,
    timed_out INTEGER NOT NULL,
    child_run_id TEXT NOT NULL,
    failure TEXT,
    input BLOB NOT NULL,
    output BLOB,
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID;
CREATE INDEX steps_child ON steps (child_run_id) WHERE state = 3 AND child_run_id <> '';

CREATE TABLE failed_attempts (
    run_id TEXT NOT NULL,
    step_number INTEGER NOT NULL,
    number INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    failure TEXT NOT NULL,
    PRIMARY KEY (run_id, step_number, number, fence),
    FOREIGN KEY (run_id, step_number) REFERENCES steps
) WITHOUT ROWID;

CREATE TABLE waits (
    run_id TEXT NOT NULL REFERENCES runs,
    step_id TEXT NOT NULL,
    step_index INTEGER NOT NULL,
    since INTEGER NOT NULL,
    event_name TEXT NOT NULL,
    paths TEXT NOT NULL,
    match TEXT NOT NULL,
    PRIMARY KEY (run_id, step_id, step_index)
) WITHOUT ROWID;
CREATE INDEX waits_match ON waits (event_name, paths, match);
