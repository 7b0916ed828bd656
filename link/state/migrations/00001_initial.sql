-- Every row belongs to a federation, and every key begins with it: no statement of
-- this package can reach from one into another.

-- +goose Up
CREATE TABLE federation (
    id      BLOB PRIMARY KEY CHECK (length(id) = 32),
    origin  TEXT NOT NULL UNIQUE, -- of its log
    version INTEGER NOT NULL,     -- of the newest policy that was hosted
    policy  BLOB NOT NULL         -- its digest
) STRICT, WITHOUT ROWID;

-- Enclave instances, in the order of their first attach, each with its key.
CREATE TABLE instance (
    rank       INTEGER PRIMARY KEY AUTOINCREMENT,
    federation BLOB NOT NULL REFERENCES federation (id),
    id         BLOB NOT NULL,
    public_key BLOB NOT NULL,
    UNIQUE (federation, id)
) STRICT;

-- Payloads on their way; seq is the order of sending.
CREATE TABLE message (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    federation BLOB NOT NULL REFERENCES federation (id),
    recipient  BLOB NOT NULL,
    sender     BLOB NOT NULL,
    handle     BLOB NOT NULL,
    payload    BLOB NOT NULL,
    sent       INTEGER NOT NULL, -- Unix seconds
    UNIQUE (federation, recipient, handle, sender)
) STRICT;
CREATE INDEX message_queue ON message (federation, recipient, seq);
CREATE INDEX message_age ON message (sent);

-- What waits, per pair of addresses and, with an empty sender, per recipient.
CREATE TABLE queue (
    federation BLOB NOT NULL,
    recipient  BLOB NOT NULL,
    sender     BLOB NOT NULL,
    messages   INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    PRIMARY KEY (federation, recipient, sender)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER message_in AFTER INSERT ON message BEGIN
    INSERT INTO queue VALUES (NEW.federation, NEW.recipient, NEW.sender, 1, length(NEW.payload)), (NEW.federation, NEW.recipient, X'', 1, length(NEW.payload))
    ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER message_out AFTER DELETE ON message BEGIN
    UPDATE queue SET messages = messages - 1, bytes = bytes - length(OLD.payload)
    WHERE federation = OLD.federation AND recipient = OLD.recipient AND sender IN (OLD.sender, X'');
    DELETE FROM queue WHERE federation = OLD.federation AND recipient = OLD.recipient AND sender IN (OLD.sender, X'') AND messages = 0;
END;
-- +goose StatementEnd

-- Log entries by digest. What is missing after a crash is read back from the log.
CREATE TABLE entry (
    federation BLOB NOT NULL REFERENCES federation (id),
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    idx        INTEGER NOT NULL,
    PRIMARY KEY (federation, digest),
    UNIQUE (federation, idx)
) STRICT, WITHOUT ROWID;

-- Published checkpoints: signed notes with the log's signature and cosignatures.
CREATE TABLE checkpoint (
    federation BLOB NOT NULL REFERENCES federation (id),
    size       INTEGER NOT NULL,
    note       BLOB NOT NULL,
    PRIMARY KEY (federation, size)
) STRICT, WITHOUT ROWID;

-- Public objects by digest.
CREATE TABLE blob (
    federation BLOB NOT NULL REFERENCES federation (id),
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    data       BLOB NOT NULL,
    PRIMARY KEY (federation, digest)
) STRICT;

-- What else public objects are found by: the lists under a statement's roots.
CREATE TABLE name (
    federation BLOB NOT NULL REFERENCES federation (id),
    instance   BLOB NOT NULL CHECK (length(instance) = 16),
    statement  BLOB NOT NULL CHECK (length(statement) = 32),
    role       TEXT NOT NULL,
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (federation, instance, statement, role)
) STRICT, WITHOUT ROWID;

-- Bytes that count towards a federation's quotas.
CREATE TABLE usage (
    federation BLOB NOT NULL REFERENCES federation (id),
    kind       TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    PRIMARY KEY (federation, kind)
) STRICT, WITHOUT ROWID;
