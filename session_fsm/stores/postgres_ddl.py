"""The tables of the PostgreSQL store, as text.

What is ordered is so by code points, as Python orders it: texts have the collation "C". Instants
are `timestamptz`. Beside the bytes of states and events stands the same as JSONB, for queries of
whoever wants to: the store reads the bytes alone, and what is no JSON is NULL there.
"""

from __future__ import annotations

from typing import Final

TABLES: Final = """
CREATE TABLE {s}.meta (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    application text NOT NULL,
    version integer NOT NULL,
    made text NOT NULL
);

CREATE FUNCTION {s}.json_of(body bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

CREATE TABLE {s}.lifecycle (
    name text COLLATE "C" PRIMARY KEY,
    fingerprint text NOT NULL
);

CREATE TABLE {s}.lifecycle_status (
    lifecycle text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    is_initial boolean NOT NULL,
    is_final boolean NOT NULL,
    PRIMARY KEY (lifecycle, status)
);

CREATE TABLE {s}.legal_move (
    lifecycle text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    PRIMARY KEY (lifecycle, source, target)
);

CREATE TABLE {s}.session (
    session_id text COLLATE "C" PRIMARY KEY,
    lifecycle text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    deadline_at timestamptz,
    ended_at timestamptz,
    state bytea NOT NULL,
    digest text COLLATE "C" NOT NULL,
    recovery text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C",
    token bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    taken_at timestamptz,
    document jsonb GENERATED ALWAYS AS ({s}.json_of(state)) STORED
);
CREATE INDEX session_by_status ON {s}.session (lifecycle, status, session_id);
CREATE INDEX session_by_deadline ON {s}.session (lifecycle, deadline_at, session_id)
    WHERE deadline_at IS NOT NULL;
CREATE INDEX session_by_end ON {s}.session (lifecycle, ended_at, session_id)
    WHERE ended_at IS NOT NULL;

CREATE TABLE {s}.session_event (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    session_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    at timestamptz NOT NULL,
    body bytea NOT NULL,
    digest text COLLATE "C" NOT NULL,
    operation_id text COLLATE "C" NOT NULL,
    position bigint,
    document jsonb GENERATED ALWAYS AS ({s}.json_of(body)) STORED,
    PRIMARY KEY (session_id, revision)
);
CREATE UNIQUE INDEX session_event_by_position ON {s}.session_event (position)
    WHERE position IS NOT NULL;
CREATE INDEX session_event_to_number ON {s}.session_event (seq) WHERE position IS NULL;

CREATE TABLE {s}.session_checkpoint (
    session_id text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    body bytea NOT NULL,
    digest text COLLATE "C" NOT NULL,
    document jsonb GENERATED ALWAYS AS ({s}.json_of(body)) STORED
);

CREATE TABLE {s}.session_count (
    lifecycle text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    sessions bigint NOT NULL
);

CREATE TABLE {s}.work (
    session_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    item text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    stop boolean NOT NULL DEFAULT false,
    PRIMARY KEY (session_id, kind, item)
);
CREATE INDEX work_by_owner ON {s}.work (owner_id, session_id);
CREATE INDEX work_to_stop ON {s}.work (owner_id, session_id) WHERE stop;

CREATE TABLE {s}.owner (
    owner_id text COLLATE "C" PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX owner_by_expiry ON {s}.owner (expires_at);

CREATE TABLE {s}.mark (
    name text COLLATE "C" PRIMARY KEY,
    body bytea NOT NULL
);

CREATE TABLE {s}.session_item (
    session_id text COLLATE "C" NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    lifecycle text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    expires_at timestamptz,
    updated_at timestamptz NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (session_id, table_name, key)
);
CREATE INDEX session_item_by_expiry ON {s}.session_item (lifecycle, expires_at)
    WHERE expires_at IS NOT NULL;

CREATE TABLE {s}.session_item_version (
    session_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    operation_id text COLLATE "C" NOT NULL
);

CREATE TABLE {s}.feed (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    newest bigint NOT NULL,
    removed bigint NOT NULL
);
INSERT INTO {s}.feed (newest, removed) VALUES (0, 0);

CREATE TABLE {s}.feed_removed (
    session_id text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
);
"""
