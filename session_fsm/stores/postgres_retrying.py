"""Doing something again on a PostgreSQL server: for how long, and after undoing what was begun."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

import psycopg

from .postgres_links import Connection

T = TypeVar("T")

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Patience:
    """How long something is tried again, and when next.

    Args:
        seconds: For how long.
        closing: Ends a pause early.
    """

    def __init__(self, seconds: float, closing: threading.Event) -> None:
        self._end = monotonic() + seconds
        self._closing = closing
        self._pause = 0.0

    def pause(self) -> bool:
        """Wait a little, longer each time; returns whether there is time to try again."""
        if monotonic() + self._pause > self._end or self._closing.is_set():
            return False
        if self._pause:
            self._closing.wait(self._pause)
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        return True


class LostError(Exception):
    """A connection was lost before anything was written for good."""

    def __init__(self, fault: psycopg.Error) -> None:
        super().__init__()
        self.fault = fault


def never(_: Connection) -> bool:
    """Return False: what may be done twice is done again where an answer was lost."""
    return False


def undo(link: Connection) -> None:
    """Undo a transaction, as far as the connection still does anything."""
    with contextlib.suppress(psycopg.Error):
        if not link.closed:
            link.execute("ROLLBACK", prepare=False)


def in_savepoint(link: Connection, work: Callable[[Connection], T]) -> T:
    """Do something inside a transaction, so that an error undoes it alone."""
    link.execute("SAVEPOINT part", prepare=False)
    try:
        result = work(link)
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            link.execute("ROLLBACK TO SAVEPOINT part", prepare=False)
            link.execute("RELEASE SAVEPOINT part", prepare=False)
        raise
    link.execute("RELEASE SAVEPOINT part", prepare=False)
    return result
