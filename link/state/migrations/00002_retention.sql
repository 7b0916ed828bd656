-- What tells when a run's chunks may go.

-- +goose Up
-- Since when a federation has been served without a long break, and when that was last
-- noted: Unix seconds.
CREATE TABLE served (
    federation BLOB PRIMARY KEY REFERENCES federation (id),
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Evidence statements of the log, and whether they passed when they were first read.
CREATE TABLE appraised (
    federation BLOB NOT NULL REFERENCES federation (id),
    statement  BLOB NOT NULL CHECK (length(statement) = 32),
    passed     INTEGER NOT NULL,
    PRIMARY KEY (federation, statement)
) STRICT, WITHOUT ROWID;

-- Runs that ended, and runs whose chunks were released: when that was noted, in Unix
-- seconds. A run need not have ended to be released.
CREATE TABLE retired (
    federation BLOB NOT NULL CHECK (length(federation) = 32),
    run        BLOB NOT NULL CHECK (length(run) = 32),
    ended      INTEGER,
    released   INTEGER,
    PRIMARY KEY (federation, run)
) STRICT, WITHOUT ROWID;
