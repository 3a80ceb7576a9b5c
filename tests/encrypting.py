"""What the tests of encryption share: keyrings, stores that are opened and closed, raw rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from session_fsm import Keyring, SessionManager
from session_fsm.stores import SqliteStore
from session_fsm.testing import ManualClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY, OTHER_KEY, THIRD_KEY = (bytes([number]) * 32 for number in (1, 2, 3))
RING = Keyring(KEY)
OTHER_RING = Keyring(OTHER_KEY)
BOTH = Keyring(OTHER_KEY, former=[KEY])
"""The keyring of somebody who has just changed the key."""

LLM_CONFIG: Mapping[str, Any] = {"model": "m-1", "api_key": "k-1"}
METADATA: Mapping[str, Any] = {"user": "ada", "numbers": [1, 2.5, True, None]}


@contextmanager
def managed(
    path: Path, keyring: Keyring | None = RING, *, clock: ManualClock | None = None
) -> Iterator[SessionManager]:
    """Give a manager of the sessions in a file, with this keyring or without one."""
    with ExitStack() as closed:
        store = closed.enter_context(closing(SqliteStore(path, keyring=keyring)))
        yield closed.enter_context(SessionManager(store, clock=clock or ManualClock(START)))


def write_two(path: Path) -> Path:
    """Write two encrypted sessions: `a` has a task, `b` has changed last what its state has."""
    with managed(path) as manager:
        manager.create("a", llm_config=LLM_CONFIG, metadata=METADATA)
        manager.update("a", metadata={"user": "eve"})
        manager.begin_task("a", "t")
        manager.create("b", llm_config=LLM_CONFIG, metadata=METADATA)
        manager.update("b", llm_config={"model": "m-2"})
    return path


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection to a file that no rule of ours holds back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)


def rows(path: Path, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Return what a query finds in a file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, arguments).fetchall()


def key_rows(path: Path) -> dict[str, tuple[str, bytes]]:
    """Return the keys that are stored: which key wraps each, and the wrapped key."""
    found = rows(path, "SELECT session_id, key_id, wrapped FROM session_key")
    return {session_id: (key_id, data) for session_id, key_id, data in found}


def files_with(directory: Path, text: bytes) -> set[str]:
    """Return the names of the files below a directory that have some bytes in them."""
    files = (each for each in directory.rglob("*") if each.is_file())
    return {each.name for each in files if text in each.read_bytes()}
