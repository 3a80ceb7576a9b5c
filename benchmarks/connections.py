"""The connections that a library opens to its files, seen from outside of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LEVELS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


@contextmanager
def noted(**options: Any) -> Iterator[list[sqlite3.Connection]]:
    """Note every connection that is opened in a block, in order.

    Args:
        **options: Go to `sqlite3.connect` beside what the caller gives, such as a `factory`.
    """
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noting(*arguments: Any, **given: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **{**given, **options}))
        return opened[-1]

    sqlite3.connect = noting  # type: ignore[assignment]  # put back below
    try:
        yield opened
    finally:
        sqlite3.connect = connect


def settings_of(*connections: sqlite3.Connection) -> str:
    """Return the journal mode and the level of durability, as the open ones report them."""
    found = []
    for connection in connections:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed
            [journal] = connection.execute("PRAGMA journal_mode").fetchone()
            [level] = connection.execute("PRAGMA synchronous").fetchone()
            found.append(f"{journal.upper()}, {LEVELS[level]}")
    return " and ".join(dict.fromkeys(found))
