"""A PostgreSQL store with a million sessions, events and items, filled in seconds.

The rows are made inside the database, behind the back of the rules, with the indexes made behind
them. They are no sessions that could be read: what counts is how many there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from postgres_server import PostgresServer

from session_fsm import SESSION_LIFECYCLE
from session_fsm.stores.postgres_sql import Sql

ROWS = 1_000_000
FEWER = 100_000
"""Of what not every session has, or what is as small as it is here."""
_STATUSES = [str(each) for each in SESSION_LIFECYCLE.statuses]
_ID = "'s' || lpad(i::text, 7, '0')"
_AT = "timestamptz '2026-01-01' + i * interval '1 second'"
_STATUS = f"('{{{','.join(_STATUSES)}}}'::text[])[1 + i % {len(_STATUSES)}]"
_DEADLINE = f"CASE WHEN i % 3 = 0 THEN {_AT} END"
_END = f"CASE WHEN i % 3 = 1 THEN {_AT} END"
_FILLED: dict[str, tuple[str, str, int]] = {
    "session": (
        "session_id, lifecycle, revision, status, deadline_at, ended_at, state, digest, recovery",
        f"{_ID}, 'session', 1, {_STATUS}, {_DEADLINE}, {_END}, '', '', ''",
        ROWS,
    ),
    "session_event": (
        "session_id, revision, at, body, digest, operation_id, position",
        f"{_ID}, 1, {_AT}, '', '', 'o' || i, i",
        ROWS,
    ),
    "session_item": (
        "session_id, table_name, key, lifecycle, version, expires_at, updated_at, body",
        f"{_ID}, 'files', 'k', 'session', 1, CASE WHEN i % 2 = 0 THEN {_AT} END, {_AT}, '1'",
        ROWS,
    ),
    "session_item_version": ("session_id, version, operation_id", f"{_ID}, 1, ''", FEWER),
    "work": (
        "session_id, kind, item, owner_id, stop",
        f"{_ID}, 'task', 't', 'living-' || i % 1000, i % 1000 = 0",
        FEWER,
    ),
    "owner": ("owner_id, expires_at", "'living-' || i - 1, timestamptz '9999-01-01'", 1_000),
    "mark": ("name, body", "'m' || lpad(i::text, 7, '0'), ''", FEWER),
    "feed_removed": ("session_id, position", f"{_ID}, i", FEWER),
    "session_checkpoint": ("session_id, revision, body, digest", f"{_ID}, 1, '', ''", FEWER),
}
LARGE = frozenset(table for table, (_, _, rows) in _FILLED.items() if rows >= FEWER)


def fill(server: PostgresServer, sql: Sql) -> None:
    """Fill the tables of a store that is empty; two at a time."""
    with server.connect() as connection:
        row = connection.execute(
            b"SELECT pg_get_functiondef(oid) FROM pg_proc"
            b" WHERE proname = 'json_of' AND pronamespace = to_regnamespace(%s)",
            (sql.quoted,),
        ).fetchone()
        assert row is not None
        connection.execute(
            sql(
                "CREATE OR REPLACE FUNCTION {s}.json_of(body bytea) RETURNS jsonb LANGUAGE sql"
                " IMMUTABLE AS 'SELECT NULL::jsonb'"
            )
        )
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(partial(_fill_one, server, sql), _FILLED))
        connection.execute(row[0].encode())
        newest = f"UPDATE {{s}}.feed SET newest = {ROWS}, removed = {ROWS // 2}"
        connection.execute(sql(newest))


def _fill_one(server: PostgresServer, sql: Sql, table: str) -> None:
    columns, values, rows = _FILLED[table]
    name = f"{sql.schema}.{table}"
    with server.connect() as connection:

        def run(statement: str, *told: Any) -> list[Any]:
            cursor = connection.execute(sql(statement), told or None)
            return cursor.fetchall() if cursor.description else []

        run("SET session_replication_role = replica")
        run("SET maintenance_work_mem = '256MB'")
        indexes = run(
            "SELECT pg_get_indexdef(indexrelid), relname, conname FROM pg_index"
            " JOIN pg_class ON pg_class.oid = indexrelid"
            " LEFT JOIN pg_constraint ON conindid = indexrelid WHERE indrelid = %s::regclass",
            name,
        )
        run(f"ALTER TABLE {name} SET UNLOGGED")
        for _, index, constraint in indexes:
            if constraint is None:
                run(f"DROP INDEX {sql.schema}.{index}")
            else:
                run(f"ALTER TABLE {name} DROP CONSTRAINT {constraint}")
        run(f"INSERT INTO {name} ({columns}) SELECT {values} FROM generate_series(1, {rows}) AS i")
        for definition, index, constraint in indexes:
            run(definition)
            if constraint is not None:
                added = f"ADD CONSTRAINT {constraint} PRIMARY KEY USING INDEX {index}"
                run(f"ALTER TABLE {name} {added}")
        run(f"ANALYZE {name}")
