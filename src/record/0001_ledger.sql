-- The ledger: one row for every event accepted and verdict given, in the order of acceptance.
-- payload is RFC 8785 canonical JSON; hash covers the row and the hash before it.
CREATE TABLE ledger (
    seq     INTEGER PRIMARY KEY CHECK (seq > 0),
    at_ms   INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    payload TEXT NOT NULL,
    prev    BLOB NOT NULL CHECK (length(prev) = 32),
    hash    BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Where the chain ends, so that a cut-off tail is noticed.
CREATE TABLE ledger_head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER ledger_is_not_edited BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_is_not_cut BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- Finds events in the ledger; the ledger's payload is the event.
CREATE TABLE event (
    seq         INTEGER PRIMARY KEY REFERENCES ledger (seq),
    source      TEXT NOT NULL,
    id          TEXT NOT NULL,
    service     TEXT NOT NULL,
    environment TEXT NOT NULL,
    region      TEXT,
    time_ms     INTEGER NOT NULL,
    UNIQUE (source, id)
) STRICT;

CREATE INDEX event_of_target ON event (service, environment, time_ms);

-- Finds verdicts in the ledger; the ledger's payload is the verdict.
CREATE TABLE verdict (
    seq          INTEGER PRIMARY KEY REFERENCES ledger (seq),
    id           TEXT NOT NULL UNIQUE,
    gate         TEXT NOT NULL,
    deployment   TEXT NOT NULL,
    evaluated_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX verdict_of_deployment ON verdict (deployment, seq);
CREATE INDEX verdict_of_gate ON verdict (gate, deployment, seq);
