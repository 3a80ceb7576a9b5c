"""The tables of the SQLite store, and the rules that the database enforces on whoever writes.

The legal moves of each lifecycle stand in a table, filled from the lifecycle; triggers compare
every write with it. No status word stands in any statement here.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from ..errors import LifecycleError, SchemaVersionError
from ..lifecycle import Lifecycle

SCHEMA_VERSION: Final = 3
APPLICATION_ID: Final = 0x5F53464D
"""Stands in the header of the file, so that nobody else's file is taken for ours."""

TABLES: Final = """
CREATE TABLE lifecycle (
    name TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE lifecycle_status (
    lifecycle TEXT NOT NULL,
    status TEXT NOT NULL,
    is_initial INTEGER NOT NULL,
    is_final INTEGER NOT NULL,
    PRIMARY KEY (lifecycle, status)
) WITHOUT ROWID, STRICT;

CREATE TABLE legal_move (
    lifecycle TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (lifecycle, source, target)
) WITHOUT ROWID, STRICT;

CREATE TABLE session (
    session_id TEXT PRIMARY KEY,
    lifecycle TEXT NOT NULL,
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    deadline_at TEXT,
    ended_at TEXT,
    state TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
CREATE INDEX session_by_status ON session (lifecycle, status, session_id);
CREATE INDEX session_by_deadline ON session (lifecycle, deadline_at, session_id)
    WHERE deadline_at IS NOT NULL;
CREATE INDEX session_by_end ON session (lifecycle, ended_at, session_id)
    WHERE ended_at IS NOT NULL;

CREATE TABLE session_event (
    seq INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    at TEXT NOT NULL,
    body BLOB NOT NULL,
    digest TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    UNIQUE (session_id, revision)
) STRICT;

CREATE TABLE session_checkpoint (
    session_id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    body BLOB NOT NULL,
    digest TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE session_count (
    lifecycle TEXT NOT NULL,
    status TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    PRIMARY KEY (lifecycle, status)
) WITHOUT ROWID, STRICT;

CREATE TABLE work (
    session_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    item TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    stop INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, kind, item)
) WITHOUT ROWID, STRICT;
CREATE INDEX work_by_owner ON work (owner_id, session_id);
CREATE INDEX work_to_stop ON work (owner_id, session_id) WHERE stop = 1;

CREATE TABLE mark (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE session_key (
    session_id TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    wrapped BLOB NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE session_item (
    session_id TEXT NOT NULL,
    table_name TEXT NOT NULL,
    key TEXT NOT NULL,
    lifecycle TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires_at TEXT,
    updated_at TEXT NOT NULL,
    encryption INTEGER,
    body BLOB NOT NULL,
    UNIQUE (session_id, table_name, key)
) STRICT;
CREATE INDEX session_item_by_expiry ON session_item (lifecycle, expires_at)
    WHERE expires_at IS NOT NULL;

CREATE TABLE session_item_version (
    session_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
"""

TRIGGERS: Final = """
CREATE TRIGGER session_is_new BEFORE INSERT ON session
WHEN EXISTS (SELECT 1 FROM session WHERE session_id = NEW.session_id)
    OR EXISTS (SELECT 1 FROM session WHERE rowid = NEW.rowid)
BEGIN SELECT RAISE(ABORT, 'session_fsm: the session exists'); END;

CREATE TRIGGER session_begins BEFORE INSERT ON session
WHEN NOT EXISTS (
    SELECT 1 FROM lifecycle_status
    WHERE lifecycle = NEW.lifecycle AND status = NEW.status AND is_initial
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: a session begins in the initial status'); END;

CREATE TRIGGER session_stays_itself BEFORE UPDATE ON session
WHEN NEW.session_id IS NOT OLD.session_id OR NEW.lifecycle IS NOT OLD.lifecycle
    OR NEW.rowid IS NOT OLD.rowid
BEGIN SELECT RAISE(ABORT, 'session_fsm: id and lifecycle never change'); END;

CREATE TRIGGER session_goes_on BEFORE UPDATE ON session
WHEN NEW.revision IS NOT OLD.revision + 1
BEGIN SELECT RAISE(ABORT, 'session_fsm: each step raises the revision by one'); END;

CREATE TRIGGER session_final_is_final BEFORE UPDATE ON session
WHEN NOT EXISTS (
    SELECT 1 FROM lifecycle_status
    WHERE lifecycle = OLD.lifecycle AND status = OLD.status AND NOT is_final
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: a final status is final'); END;

CREATE TRIGGER session_moves_legally BEFORE UPDATE ON session
WHEN NEW.status IS NOT OLD.status AND NOT EXISTS (
    SELECT 1 FROM legal_move
    WHERE lifecycle = OLD.lifecycle AND source = OLD.status AND target = NEW.status
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: no row of the table has this move'); END;

CREATE TRIGGER session_ends_first BEFORE DELETE ON session
WHEN NOT EXISTS (
    SELECT 1 FROM lifecycle_status
    WHERE lifecycle = OLD.lifecycle AND status = OLD.status AND is_final
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: only what has ended may be removed'); END;

CREATE TRIGGER session_key_goes_too AFTER DELETE ON session
BEGIN DELETE FROM session_key WHERE session_id = OLD.session_id; END;

CREATE TRIGGER session_item_belongs BEFORE INSERT ON session_item
WHEN NOT EXISTS (
    SELECT 1 FROM session JOIN lifecycle_status USING (lifecycle, status)
    WHERE session_id = NEW.session_id AND lifecycle = NEW.lifecycle AND NOT is_final
) OR NOT EXISTS (
    SELECT 1 FROM session_item_version
    WHERE session_id = NEW.session_id AND version = NEW.version
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: an item is of a session that has not ended'); END;

CREATE TRIGGER session_item_is_written_once BEFORE UPDATE ON session_item
BEGIN SELECT RAISE(ABORT, 'session_fsm: an item is replaced, with another version'); END;

CREATE TRIGGER session_item_version_begins BEFORE INSERT ON session_item_version
WHEN NEW.version IS NOT 1 OR EXISTS (
    SELECT 1 FROM session_item_version WHERE session_id = NEW.session_id
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: the versions of items begin at 1'); END;

CREATE TRIGGER session_item_version_grows BEFORE UPDATE ON session_item_version
WHEN NEW.version IS NOT OLD.version + 1 OR NEW.session_id IS NOT OLD.session_id
BEGIN SELECT RAISE(ABORT, 'session_fsm: each item raises the version by one'); END;

CREATE TRIGGER session_item_version_stays BEFORE DELETE ON session_item_version
WHEN EXISTS (SELECT 1 FROM session WHERE session_id = OLD.session_id)
BEGIN SELECT RAISE(ABORT, 'session_fsm: no version is given twice'); END;

CREATE TRIGGER session_items_go_too AFTER DELETE ON session
BEGIN
    DELETE FROM session_item WHERE session_id = OLD.session_id;
    DELETE FROM session_item_version WHERE session_id = OLD.session_id;
END;

CREATE TRIGGER session_event_is_written_once BEFORE UPDATE ON session_event
BEGIN SELECT RAISE(ABORT, 'session_fsm: an event never changes'); END;

CREATE TRIGGER session_event_is_new BEFORE INSERT ON session_event
WHEN EXISTS (
    SELECT 1 FROM session_event WHERE session_id = NEW.session_id AND revision = NEW.revision
)
    OR EXISTS (SELECT 1 FROM session_event WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'session_fsm: the event exists'); END;

CREATE TRIGGER session_event_stays BEFORE DELETE ON session_event
WHEN EXISTS (SELECT 1 FROM session WHERE session_id = OLD.session_id) AND NOT EXISTS (
    SELECT 1 FROM session_checkpoint
    WHERE session_id = OLD.session_id AND revision >= OLD.revision
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: the events of a session stay with it'); END;

CREATE TRIGGER session_event_is_not_the_newest BEFORE DELETE ON session_event
WHEN OLD.seq = (SELECT max(seq) FROM session_event)
BEGIN SELECT RAISE(ABORT, 'session_fsm: the newest event stays'); END;

CREATE TRIGGER session_checkpoint_stands_for_events BEFORE INSERT ON session_checkpoint
WHEN NOT EXISTS (
    SELECT 1 FROM session JOIN session_event USING (session_id)
    WHERE session_id = NEW.session_id AND session_event.revision = NEW.revision
        AND session.revision > NEW.revision
)
BEGIN SELECT RAISE(ABORT, 'session_fsm: a checkpoint stands for events, the last stays'); END;

CREATE TRIGGER session_checkpoint_is_written_once BEFORE UPDATE ON session_checkpoint
BEGIN SELECT RAISE(ABORT, 'session_fsm: a checkpoint never changes'); END;

CREATE TRIGGER session_checkpoint_stays BEFORE DELETE ON session_checkpoint
WHEN EXISTS (SELECT 1 FROM session WHERE session_id = OLD.session_id)
BEGIN SELECT RAISE(ABORT, 'session_fsm: the checkpoint of a session stays with it'); END;

CREATE TRIGGER session_checkpoint_goes_too AFTER DELETE ON session
BEGIN DELETE FROM session_checkpoint WHERE session_id = OLD.session_id; END;

CREATE TRIGGER session_counted_in AFTER INSERT ON session
BEGIN
    UPDATE session_count SET sessions = sessions + 1
    WHERE lifecycle = NEW.lifecycle AND status = NEW.status;
END;

CREATE TRIGGER session_counted_over AFTER UPDATE OF status ON session
WHEN NEW.status IS NOT OLD.status
BEGIN
    UPDATE session_count SET sessions = sessions - 1
    WHERE lifecycle = OLD.lifecycle AND status = OLD.status;
    UPDATE session_count SET sessions = sessions + 1
    WHERE lifecycle = NEW.lifecycle AND status = NEW.status;
END;

CREATE TRIGGER session_counted_out AFTER DELETE ON session
BEGIN
    UPDATE session_count SET sessions = sessions - 1
    WHERE lifecycle = OLD.lifecycle AND status = OLD.status;
END;
"""


def statements(script: str) -> list[str]:
    """Split a script into its statements; one that holds others is kept whole."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return found


def prepare(connection: sqlite3.Connection, lifecycle: Lifecycle) -> None:
    """Make the tables where the file is new, and make the lifecycle known; in one transaction.

    Args:
        connection: In a write transaction.
        lifecycle: The lifecycle of the sessions that will be written.

    Raises:
        SchemaVersionError: The file is somebody else's, or of a version that is not known here.
        LifecycleError: The file knows a lifecycle of this name with other rows.
    """
    if is_new(connection):
        for statement in statements(TABLES) + statements(TRIGGERS):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    _register(connection, lifecycle)


def is_new(connection: sqlite3.Connection) -> bool:
    """Tell whether a file is empty; if not, it is a session store. Nothing is written.

    Raises:
        SchemaVersionError: The file is somebody else's, or of a version that is not known here.
    """
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if is_ours(connection):
        if version != SCHEMA_VERSION:
            older = 0 < version < SCHEMA_VERSION
            hint = "; `session-fsm upgrade` brings an older file there" if older else ""
            raise SchemaVersionError(
                found=f"{version} of a session store", supported=f"version {SCHEMA_VERSION}{hint}"
            )
        return False
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables or application or version:
        raise SchemaVersionError(
            found=f"of another application (id {application}, {tables} tables)",
            supported=f"session stores of version {SCHEMA_VERSION}",
        )
    return True


def is_ours(connection: sqlite3.Connection) -> bool:
    """Tell whether a file is a session store, of whichever version."""
    [application] = connection.execute("PRAGMA application_id").fetchone()
    return bool(application == APPLICATION_ID)


def _register(connection: sqlite3.Connection, lifecycle: Lifecycle) -> None:
    known = _fingerprint(connection, lifecycle)
    if known is not None:
        if known != lifecycle.fingerprint:
            same = not rule_problems(connection, lifecycle)
            hint = "`session-fsm upgrade` makes these known" if same else _OTHER_NAME
            raise LifecycleError(
                problem=f"{_known_otherwise(known, lifecycle)}; {hint}", lifecycle=lifecycle.name
            )
        return
    connection.execute(
        "INSERT INTO lifecycle VALUES (?, ?)", (lifecycle.name, lifecycle.fingerprint)
    )
    connection.executemany(
        "INSERT INTO lifecycle_status VALUES (?, ?, ?, ?)", _status_rows(lifecycle)
    )
    connection.executemany("INSERT INTO legal_move VALUES (?, ?, ?)", _move_rows(lifecycle))
    counts = [(lifecycle.name, str(status)) for status in lifecycle.statuses]
    connection.executemany("INSERT INTO session_count VALUES (?, ?, 0)", counts)


_OTHER_NAME: Final = "use another name for the changed one"


def _known_otherwise(known: str, lifecycle: Lifecycle) -> str:
    here = lifecycle.fingerprint[:12]
    return f"the store knows it with other rows (fingerprint {known[:12]}, here {here})"


def _fingerprint(connection: sqlite3.Connection, lifecycle: Lifecycle) -> str | None:
    query = "SELECT fingerprint FROM lifecycle WHERE name = ?"
    found = connection.execute(query, (lifecycle.name,)).fetchone()
    return None if found is None else str(found[0])


def is_known_otherwise(connection: sqlite3.Connection, lifecycle: Lifecycle) -> bool:
    """Tell whether a file knows a lifecycle by its name, with other rows."""
    return _fingerprint(connection, lifecycle) not in (None, lifecycle.fingerprint)


def renew(connection: sqlite3.Connection, lifecycle: Lifecycle) -> None:
    """Make other rows of a lifecycle known, which has the statuses and moves that it had.

    Raises:
        LifecycleError: It has not: what is stored might be what it does not allow.
    """
    known = _fingerprint(connection, lifecycle)
    if known is not None and rule_problems(connection, lifecycle):
        problem = f"{_known_otherwise(known, lifecycle)}, and other moves; {_OTHER_NAME}"
        raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
    connection.execute(
        "UPDATE lifecycle SET fingerprint = ? WHERE name = ?",
        (lifecycle.fingerprint, lifecycle.name),
    )


def _status_rows(lifecycle: Lifecycle) -> list[tuple[str, str, bool, bool]]:
    return [
        (lifecycle.name, str(each), each == lifecycle.initial, each in lifecycle.final)
        for each in lifecycle.statuses
    ]


def _move_rows(lifecycle: Lifecycle) -> list[tuple[str, str, str]]:
    return [(lifecycle.name, str(source), str(target)) for source, target in lifecycle.edges]


def rule_problems(connection: sqlite3.Connection, lifecycle: Lifecycle) -> list[str]:
    """Name the rules of a lifecycle that the triggers would read wrongly, or not at all."""
    name = (lifecycle.name,)
    statuses = connection.execute("SELECT * FROM lifecycle_status WHERE lifecycle = ?", name)
    moves = connection.execute("SELECT * FROM legal_move WHERE lifecycle = ?", name)
    return [
        f"{table} is not as lifecycle {lifecycle.name!r} has it"
        for table, found, rows in (
            ("lifecycle_status", statuses, _status_rows(lifecycle)),
            ("legal_move", moves, _move_rows(lifecycle)),
        )
        if set(found) != set(rows)
    ]


def schema_problems(connection: sqlite3.Connection) -> list[str]:
    """Name the tables, indexes and triggers that are missing or were changed."""
    expected = sqlite3.connect(":memory:")
    try:
        for statement in statements(TABLES) + statements(TRIGGERS):
            expected.execute(statement)
        query = "SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"
        wanted = dict(expected.execute(query).fetchall())
    finally:
        expected.close()
    found = dict(connection.execute(query).fetchall())
    return [
        f"{name} is {'missing' if name not in found else 'not as it was made'}"
        for name, sql in sorted(wanted.items())
        if found.get(name) != sql
    ]
