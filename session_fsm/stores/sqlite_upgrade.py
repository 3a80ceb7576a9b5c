"""Bringing a file of an older version to the present one, in place.

It is one transaction: a file has the old version or the new one, whenever it is killed. What was
there is read and written again as it is; histories are copied to the byte. The schema that results
is the one that a new file has, to the letter, so that the same check knows both.

A new version gets a function here that starts from the one before it, and a line in `_STEPS`.

A file also knows the tables of the lifecycles of its sessions. One whose statuses and legal moves
are as they were, and whose rows have other guards, deadlines or triggers, is made known anew. The
deadline of a session that is stored is the old rows' until its next step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from ..errors import SchemaVersionError, StoreUnavailableError
from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from .records import UpgradeReport
from .sqlite_schema import (
    SCHEMA_VERSION,
    TABLES,
    TRIGGERS,
    is_known_otherwise,
    is_ours,
    renew,
    statements,
)
from .sqlite_writer import told

BUSY_TIMEOUT_SECONDS: Final = 30.0


def upgrade_file(
    path: Path,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    *,
    busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
) -> UpgradeReport:
    """Bring a file to the present version; one that has it is left as it is.

    Other processes should have closed the file: one that has it open goes on with what it knows
    of the old version, and is refused what does not fit the new one.

    Args:
        path: The file.
        lifecycle: Whose rows are made known anew, if the file knows others by its name.
        busy_timeout_seconds: Longest wait for a writer of another process.

    Raises:
        SchemaVersionError: It is somebody else's, or of a version that is not known here.
        StoreUnavailableError: It is not there, or can't be written.
        CorruptRecordError: It is no database, or a broken one.
        LifecycleError: The file knows the lifecycle with other statuses or moves; nothing is done.
    """
    if not path.exists():
        raise StoreUnavailableError(problem=f"there is no file {path}")
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connect = sqlite3.connect(uri, uri=True, timeout=busy_timeout_seconds, isolation_level=None)
        with closing(connect) as connection:
            return _upgrade(connection, lifecycle)
    except (sqlite3.Error, UnicodeDecodeError) as fault:
        raise told(fault, path) from fault


def _upgrade(connection: sqlite3.Connection, lifecycle: Lifecycle) -> UpgradeReport:
    found = _version(connection)
    renewed = False
    if found != SCHEMA_VERSION or is_known_otherwise(connection, lifecycle):
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = version = _version(connection)  # as nobody else changes it any longer
            _drop(connection, "trigger")
            while version != SCHEMA_VERSION:
                _STEPS[version](connection)
                version += 1
            renewed = is_known_otherwise(connection, lifecycle)
            if renewed:
                renew(connection, lifecycle)
            # Those of the present version know tables that an older one does not have.
            for statement in statements(TRIGGERS):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    [sessions] = connection.execute("SELECT count(*) FROM session").fetchone()
    return UpgradeReport(found, SCHEMA_VERSION, sessions, renewed)


def _version(connection: sqlite3.Connection) -> int:
    """Return the version of a file of ours, present or older.

    Raises:
        SchemaVersionError: It is somebody else's, or of a version that is not known here.
    """
    version: int
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if not is_ours(connection):
        raise SchemaVersionError(
            found="of another application", supported=f"session stores up to {SCHEMA_VERSION}"
        )
    if version != SCHEMA_VERSION and version not in _STEPS:
        known = ", ".join(map(str, (*_STEPS, SCHEMA_VERSION)))
        raise SchemaVersionError(
            found=f"{version} of a session store", supported=f"versions {known}"
        )
    return version


_NEW_IN_2: Final = ("session", "session_event", "session_checkpoint", "session_key")
_NEW_IN_3: Final = ("session_item", "session_item_by_expiry", "session_item_version")


def _drop(connection: sqlite3.Connection, kind: str, *tables: str) -> None:
    """Drop what is of a kind, of some tables or, where none is named, of all."""
    query = "SELECT tbl_name, name FROM sqlite_schema WHERE type = ? AND sql IS NOT NULL"
    for table, name in connection.execute(query, (kind,)).fetchall():
        if not tables or table in tables:
            connection.execute(f"DROP {kind} {name}")


def _to_2(connection: sqlite3.Connection) -> None:
    """Give sessions the digest of their last event, and each status its count.

    Operations are looked up within their session, and numbers of events need no table of their
    own: an index and a sequence are left out.
    """
    _drop(connection, "index", "session", "session_event")
    for table in ("session", "session_event"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in statements(TABLES):
        kind, name = statement.split()[1:3]
        if kind == "INDEX" and not name.startswith("session_by_"):
            continue
        if kind == "TABLE" and name not in _NEW_IN_2:
            continue
        connection.execute(statement)
    connection.execute(
        "INSERT INTO session (rowid, session_id, lifecycle, revision, status, deadline_at,"
        " ended_at, state, digest)"
        " SELECT old.rowid, session_id, lifecycle, revision, status, deadline_at, ended_at, state,"
        " coalesce(event.digest, '')"
        " FROM old_session AS old LEFT JOIN old_session_event AS event"
        " USING (session_id, revision) ORDER BY old.rowid"
    )
    connection.execute(
        "INSERT INTO session_event (seq, session_id, revision, at, body, digest, operation_id)"
        " SELECT seq, session_id, revision, at, body, digest, operation_id"
        " FROM old_session_event ORDER BY seq"
    )
    for table in ("session", "session_event"):
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute(
        "INSERT OR IGNORE INTO session_count SELECT lifecycle, status, 0 FROM lifecycle_status"
    )


def _to_3(connection: sqlite3.Connection) -> None:
    """Give sessions tables; they are empty."""
    for statement in statements(TABLES):
        if statement.split()[2] in _NEW_IN_3:
            connection.execute(statement)


_STEPS: Final[Mapping[int, Callable[[sqlite3.Connection], None]]] = {1: _to_2, 2: _to_3}
"""For each older version, the step to the next one."""
