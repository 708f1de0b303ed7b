-- Events of a name are read for an app: those that do not reach it are left out without being looked at. The sets of
-- apps that events reach are few, and each is a range of its own.

DROP INDEX events_name;
CREATE INDEX events_reach ON events (apps, name, position);
