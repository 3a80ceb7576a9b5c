"""The floor: what one would write by hand with `sqlite3` to keep a session durably.

It decides nothing and checks nothing. Each move rewrites a row with the state as JSON and adds one
with the event and its digest, chained to the one before: the same bytes that the library stores,
in one transaction, at the same durability.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from session_fsm.clock import utc_now

_TABLES: Final = """
CREATE TABLE session (
    session_id TEXT PRIMARY KEY, revision INTEGER NOT NULL, status TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE event (
    session_id TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (session_id, revision)
);
"""
_MOVES: Final = {"go_idle": ("active", "idle", False), "resume": ("idle", "active", True)}
"""Source, target, and whether it is an activity."""


def connect(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a file of the floor, made if it is missing."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        connection.executescript(_TABLES)
    return connection


class Row:
    """One session of the floor, whose last state its owner keeps at hand.

    Args:
        connection: Where it is stored.
        state: The wire form of its state.
        revision: How many events it has behind it.
        digest: The digest of the last one.
        now: What tells the time.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        state: dict[str, Any],
        *,
        revision: int,
        digest: str,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._connection = connection
        self._now = now
        self.state = state
        self.revision = revision
        self.digest = digest
        connection.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?)",
            (state["session_id"], revision, state["status"], orjson.dumps(state).decode()),
        )

    def fire(self, trigger: str) -> None:
        """Make a move, durably."""
        source, target, activity = _MOVES[trigger]
        at = f"{self._now().replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
        state = {**self.state, "status": target, "updated_at": at, "status_since": at}
        changes = {"status_since": at}
        if activity:
            state["last_activity_at"] = changes["last_activity_at"] = at
        session_id, revision = state["session_id"], self.revision + 1
        body = orjson.dumps(
            {
                "format": 1,
                "session_id": session_id,
                "revision": revision,
                "kind": "moved",
                "trigger": trigger,
                "source": source,
                "target": target,
                "at": at,
                "reason": None,
                "changes": changes,
            }
        )
        digest = hashlib.sha256(self.digest.encode() + b"\n" + body).hexdigest()
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        written = execute(
            "UPDATE session SET revision = ?, status = ?, state = ?"
            " WHERE session_id = ? AND revision = ?",
            (revision, target, orjson.dumps(state).decode(), session_id, self.revision),
        ).rowcount
        if written != 1:
            execute("ROLLBACK")
            raise RuntimeError(f"{session_id} is not at revision {self.revision}")
        execute("INSERT INTO event VALUES (?, ?, ?, ?)", (session_id, revision, body, digest))
        execute("COMMIT")
        self.state, self.revision, self.digest = state, revision, digest

    def there_and_back(self) -> Callable[[], None]:
        """Return what makes one move at each call: to rest, and back to work."""
        triggers = {"active": "go_idle", "idle": "resume"}
        return lambda: self.fire(triggers[self.state["status"]])
