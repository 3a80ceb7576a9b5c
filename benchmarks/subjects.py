"""Who is measured: each stores one change of a session durably, in the way that it has for it.

A subject tells how durable it is as the database itself reports it, and gives each caller what
makes one move after the other in that caller's own session.
"""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from session_fsm import SessionManager, serialize
from session_fsm.aio import SessionManager as AwaitedManager

from . import floor
from .callers import AsyncMove, Move
from .connections import noted, settings_of


class Subject(ABC):
    """Something that keeps sessions in a file or at a server."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def settings(self) -> str:
        """What its durability rests on, read back from its own connection."""


class Blocking(Subject):
    """One whose moves block the thread that makes them."""

    @abstractmethod
    def mover(self, session_id: str) -> Move:
        """Make a session; return what moves it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds."""


class Awaiting(Subject):
    """One whose moves are awaited."""

    @abstractmethod
    async def prepare(self) -> None:
        """Make ready whatever needs the event loop."""

    @abstractmethod
    async def mover(self, session_id: str) -> AsyncMove:
        """Make a session; return what moves it."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what it holds."""


class Ours(Blocking):
    """The manager: decided on the machine, snapshot and sealed event committed, events told."""

    name = "session_fsm"

    def __init__(self, directory: Path) -> None:
        with noted() as self._opened:
            self._manager = SessionManager(f"sqlite:///{directory / 'ours.db'}")

    @property
    def settings(self) -> str:
        """As the connections report that the store opened."""
        return settings_of(*self._opened)

    def mover(self, session_id: str) -> Move:
        """Create a session; move it by its triggers."""
        self._manager.create(session_id)
        return there_and_back(self._manager, session_id)

    def close(self) -> None:
        """Close the manager."""
        self._manager.close()


def there_and_back(manager: SessionManager, session_id: str) -> Move:
    """Return what moves a session to rest, and at the next call back to work."""
    fire, triggers = manager.fire, ["go_idle", "resume"]

    def move() -> None:
        fire(session_id, triggers[0])
        triggers.reverse()

    return move


class OursAwaited(Awaiting):
    """The manager for event loops: the same, for callers that are tasks."""

    name = "session_fsm, awaited"

    def __init__(self, directory: Path) -> None:
        self._manager = AwaitedManager(f"sqlite:///{directory / 'awaited.db'}")
        self._opened: list[sqlite3.Connection] = []

    async def prepare(self) -> None:
        """Open the manager."""
        with noted() as self._opened:
            await self._manager.__aenter__()

    @property
    def settings(self) -> str:
        """As its connections report."""
        return settings_of(*self._opened)

    async def mover(self, session_id: str) -> AsyncMove:
        """Create a session; move it by its triggers."""
        await self._manager.create(session_id)
        return awaited_there_and_back(self._manager, session_id)

    async def close(self) -> None:
        """Close the manager."""
        await self._manager.close()


def awaited_there_and_back(manager: AwaitedManager, session_id: str) -> AsyncMove:
    """Return what moves a session to rest, and at the next call back to work."""
    fire, triggers = manager.fire, ["go_idle", "resume"]

    async def move() -> None:
        await fire(session_id, triggers[0])
        triggers.reverse()

    return move


class Floor(Blocking):
    """Bare `sqlite3`, by hand: the same bytes, one commit for each move, one writer at a time."""

    name = "floor: bare sqlite3"
    synchronous = "FULL"

    def __init__(self, directory: Path) -> None:
        path = directory / f"{type(self).__name__.lower()}.db"
        self._connection = floor.connect(path, synchronous=self.synchronous)
        self._lock = threading.Lock()

    @property
    def settings(self) -> str:
        """As its one connection reports."""
        return settings_of(self._connection)

    def mover(self, session_id: str) -> Move:
        """Begin where one of our sessions is after its creation."""
        with SessionManager() as manager:
            state = serialize(manager.create(session_id).state)
            last = manager.history(session_id)[-1]
        row = floor.Row(self._connection, state, revision=last.revision, digest=last.digest)
        return self._locked(row.there_and_back())

    def _locked(self, move: Callable[[], None]) -> Move:
        def locked() -> None:
            with self._lock:
                move()

        return locked

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class FloorUnsynced(Floor):
    """The same, never synced: what is left when a disk costs nothing. Not durable."""

    name = "floor, synchronous=OFF: not durable"
    synchronous = "OFF"
