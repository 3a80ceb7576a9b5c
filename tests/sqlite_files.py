"""What the tests of the SQLite store do to its file behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def plain(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's, which commits at once."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def tamper(path: Path, statement: str, *values: Any) -> None:
    """Change rows behind the back of the triggers, which are as before afterwards."""
    with plain(path) as connection:
        query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement, values).rowcount == 1
        for _, sql in triggers:
            connection.execute(sql)
