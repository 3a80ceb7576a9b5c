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

import attrs
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
BACK_AND_FORTH: Final = {"active": "go_idle", "idle": "resume"}
"""The trigger that leads from each to the other."""


@attrs.frozen(kw_only=True)
class Step:
    """What one move writes.

    Attributes:
        state: The wire form of the new state.
        revision: The number of the event.
        body: The event as JSON.
        digest: The digest of the event, chained to the one before.
    """

    state: dict[str, Any]
    revision: int
    body: bytes
    digest: str

    @property
    def stored(self) -> bytes:
        """The new state as JSON."""
        return orjson.dumps(self.state)


def step_of(
    before: dict[str, Any], revision: int, digest: str, trigger: str, now: datetime
) -> Step:
    """Return what a move writes: the same bytes that the library stores for it.

    Args:
        before: The wire form of the state before it.
        revision: How many events there are before it.
        digest: The digest of the last of them.
        trigger: What is fired.
        now: The instant, in UTC.
    """
    source, target, activity = _MOVES[trigger]
    at = f"{now.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    state = {**before, "status": target, "updated_at": at, "status_since": at}
    changes = {"status_since": at}
    if activity:
        state["last_activity_at"] = changes["last_activity_at"] = at
    body = orjson.dumps(
        {
            "format": 1,
            "session_id": before["session_id"],
            "revision": revision + 1,
            "kind": "moved",
            "trigger": trigger,
            "source": source,
            "target": target,
            "at": at,
            "reason": None,
            "changes": changes,
        }
    )
    chained = hashlib.sha256(digest.encode() + b"\n" + body).hexdigest()
    return Step(state=state, revision=revision + 1, body=body, digest=chained)


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
        step = step_of(self.state, self.revision, self.digest, trigger, self._now())
        session_id, revision = step.state["session_id"], step.revision
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        written = execute(
            "UPDATE session SET revision = ?, status = ?, state = ?"
            " WHERE session_id = ? AND revision = ?",
            (revision, step.state["status"], step.stored.decode(), session_id, self.revision),
        ).rowcount
        if written != 1:
            execute("ROLLBACK")
            raise RuntimeError(f"{session_id} is not at revision {self.revision}")
        execute(
            "INSERT INTO event VALUES (?, ?, ?, ?)", (session_id, revision, step.body, step.digest)
        )
        execute("COMMIT")
        self.state, self.revision, self.digest = step.state, revision, step.digest

    def there_and_back(self) -> Callable[[], None]:
        """Return what makes one move at each call: to rest, and back to work."""
        return lambda: self.fire(BACK_AND_FORTH[self.state["status"]])
