"""Peers whose moves are awaited: openai-agents' sessions, and ADK's database sessions."""

from __future__ import annotations

import importlib
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

from session_fsm import SessionManager
from session_fsm.history import encode

from .callers import AsyncMove
from .connections import LEVELS, noted, settings_of
from .subjects import Awaiting


class OpenAIAgents(Awaiting):
    """`SQLiteSession.add_items`: one item for each move, as large as one of our events."""

    name = "openai-agents: SQLiteSession.add_items"

    def __init__(self, directory: Path) -> None:
        self._module: Any = importlib.import_module("agents.memory.sqlite_session")
        self._path = directory / "openai.db"
        self._sessions: list[Any] = []
        self._opened: list[sqlite3.Connection] = []

    async def prepare(self) -> None:
        """Note what it opens for a first item."""
        with noted() as self._opened:
            await self._move(self._session("first"))()

    def _session(self, session_id: str) -> Any:
        self._sessions.append(self._module.SQLiteSession(session_id, self._path))
        return self._sessions[-1]

    @property
    def settings(self) -> str:
        """As the connections of its first session report."""
        return settings_of(*self._opened)

    async def mover(self, session_id: str) -> AsyncMove:
        """Open a session of the file."""
        return self._move(self._session(session_id))

    def _move(self, session: Any) -> AsyncMove:
        with SessionManager() as manager:
            manager.create("a")
            manager.fire("a", "go_idle")
            [*_, last] = manager.history("a")
        items = [{"role": "assistant", "content": encode(last).decode()}]

        async def move() -> None:
            await session.add_items(items)

        return move

    async def close(self) -> None:
        """Close the sessions, and with them their connections."""
        for session in self._sessions:
            session.close()


class Adk(Awaiting):
    """`DatabaseSessionService.append_event`: an event with a change of the session's state."""

    name = "google-adk: append_event"
    configured: ClassVar[tuple[str, ...]] = ()

    def __init__(self, directory: Path) -> None:
        sessions = importlib.import_module("google.adk.sessions.database_session_service")
        importlib.import_module("aiosqlite")
        self._sqlalchemy: Any = importlib.import_module("sqlalchemy")
        events = importlib.import_module("google.adk.events.event")
        actions = importlib.import_module("google.adk.events.event_actions")
        self._event: Any = events.Event
        self._actions: Any = actions.EventActions
        path = directory / f"{type(self).__name__.lower()}.db"
        self._service: Any = sessions.DatabaseSessionService(f"sqlite+aiosqlite:///{path}")
        self._settings = ""
        self._sqlalchemy.event.listen(
            self._service.db_engine.sync_engine, "connect", self._configure
        )

    def _configure(self, connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in self.configured:
            cursor.execute(pragma)
        cursor.close()

    async def prepare(self) -> None:
        """Make the tables, and read back how the file is kept."""
        await self._service.create_session(app_name="bench", user_id="u", session_id="first")
        found = []
        async with self._service.db_engine.connect() as connection:
            for name in ("journal_mode", "synchronous"):
                told = await connection.execute(self._sqlalchemy.text(f"PRAGMA {name}"))
                found.append(told.scalar())
        self._settings = f"{found[0].upper()}, {LEVELS[found[1]]}"

    @property
    def settings(self) -> str:
        """As a connection of its engine reports."""
        return self._settings

    async def mover(self, session_id: str) -> AsyncMove:
        """Create a session; each move changes its status and appends the event."""
        session = await self._service.create_session(
            app_name="bench", user_id=session_id, session_id=session_id, state={"status": "active"}
        )
        statuses = ["idle", "active"]

        async def move() -> None:
            actions = self._actions(state_delta={"status": statuses[0]})
            event = self._event(author="agent", invocation_id="i", actions=actions)
            try:
                await self._service.append_event(session, event)
            finally:
                # What it keeps of a session in memory grows with each event, and is not measured.
                session.events.clear()
            statuses.reverse()

        return move

    async def close(self) -> None:
        """Let go of the engine, in the loop that it belongs to."""
        await self._service.db_engine.dispose()


class AdkFull(Adk):
    """The same with a write-ahead log and `synchronous = FULL` on each connection."""

    name = "google-adk, WAL, synchronous=FULL"
    configured = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
