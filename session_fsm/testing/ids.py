"""Ids that can be foretold."""

from __future__ import annotations

import threading


class SequentialIds:
    """An `IdFactory` that counts: `session-1`, `session-2` and so on.

    Args:
        prefix: What stands before the number.
        start: The first number.

    Threads: safe; no id is given twice.
    """

    def __init__(self, prefix: str = "session-", *, start: int = 1) -> None:
        self._prefix = prefix
        self._next = start
        self._counting = threading.Lock()

    def __call__(self) -> str:
        """Return the next id."""
        with self._counting:
            number = self._next
            self._next += 1
        return f"{self._prefix}{number}"
