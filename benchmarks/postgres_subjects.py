"""Ours and the peers on PostgreSQL; each is given the URL of a database and the number of callers.

Each does by its own interface what its users do to make one change of a session durable, with the
connections that its manual shows: a pool that has one for each caller. A peer is imported when it
is made, so that one that is missing is skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from session_fsm import SessionManager, SessionState, serialize
from session_fsm.aio import SessionManager as AwaitedManager

from .callers import AsyncMove, Move
from .postgres_server import DURABLE, told
from .subjects import Awaiting, Blocking, awaited_there_and_back, there_and_back


@contextmanager
def noted() -> Iterator[list[psycopg.Connection[Any]]]:
    """Note every connection that psycopg opens in a block, in order."""
    opened: list[psycopg.Connection[Any]] = []
    connect = psycopg.Connection.__dict__["connect"]

    def noting(cls: type[Any], *arguments: Any, **given: Any) -> psycopg.Connection[Any]:
        opened.append(connect.__func__(cls, *arguments, **given))
        return opened[-1]

    psycopg.Connection.connect = classmethod(noting)  # type: ignore[assignment]  # put back below
    try:
        yield opened
    finally:
        psycopg.Connection.connect = connect  # type: ignore[method-assign]


def settings_of(*connections: psycopg.Connection[Any]) -> str:
    """Return what durability rests on, as the connections report that are still open."""
    found = []
    for connection in connections:
        with contextlib.suppress(psycopg.OperationalError):  # it was closed
            found.append(", ".join(told(connection, *DURABLE).values()))
            if not connection.autocommit:
                connection.rollback()
    return " and ".join(dict.fromkeys(found))


class PostgresOurs(Blocking):
    """The manager: decided on the machine, snapshot and sealed event committed, events told."""

    name = "session_fsm"

    def __init__(self, url: str, callers: int) -> None:
        with noted() as self._opened:
            self._manager = SessionManager(url)

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


class PostgresOursAwaited(Awaiting):
    """The manager for event loops: the same, for callers that are tasks."""

    name = "session_fsm, awaited"

    def __init__(self, url: str, callers: int) -> None:
        self._manager = AwaitedManager(url)
        self._opened: list[psycopg.Connection[Any]] = []

    async def prepare(self) -> None:
        """Open the manager."""
        with noted() as self._opened:
            await self._manager.__aenter__()

    @property
    def settings(self) -> str:
        """As the connections report that the store opened."""
        return settings_of(*self._opened)

    async def mover(self, session_id: str) -> AsyncMove:
        """Create a session; move it by its triggers."""
        await self._manager.create(session_id)
        return awaited_there_and_back(self._manager, session_id)

    async def close(self) -> None:
        """Close the manager."""
        await self._manager.close()


class Checkpoints:
    """What a graph hands to its saver, step by step: a checkpoint with all channels of a thread.

    The channels are the fields of a state. A step gives those that it changed a new version, and
    tells the saver of these alone, so that it stores the others no second time.

    Args:
        session_id: The id of the thread.
        version_after: Gives the version of a channel that follows another one.
        empty: Makes a checkpoint of nothing, with an id and an instant of its own.
    """

    CHANGED = ("status", "status_since", "updated_at")

    def __init__(
        self,
        session_id: str,
        version_after: Callable[[Any, Any], Any],
        empty: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._version_after = version_after
        self._empty = empty
        self._values = serialize(SessionState.new(session_id))
        self._versions: dict[str, Any] = {}
        self.step = 0
        self.place: Any = {"configurable": {"thread_id": session_id, "checkpoint_ns": ""}}

    def next(self) -> tuple[Any, Any, Any, Any]:
        """Return what `put` takes for one step more."""
        changed = self.CHANGED if self.step else tuple(self._values)
        self.step += 1
        self._values["status"] = "idle" if self.step % 2 else "active"
        for channel in changed:
            before = self._versions.get(channel)
            self._versions[channel] = self._version_after(before, None)
        values, versions = dict(self._values), dict(self._versions)
        checkpoint = {**self._empty(), "channel_values": values, "channel_versions": versions}
        metadata = {"source": "loop", "step": self.step, "parents": {}}
        return self.place, checkpoint, metadata, {each: versions[each] for each in changed}


def _langgraph_options() -> Mapping[str, Any]:
    """Return the options of a connection that the manual of its savers prescribes."""
    rows = importlib.import_module("psycopg.rows")
    return {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}


_ASKED: Final = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in DURABLE)


def _settings_of_rows(row: Mapping[str, str]) -> str:
    return ", ".join(row.values())


class PostgresLangGraph(Blocking):
    """`PostgresSaver.put` over a pool; the saver itself lets one caller in at a time."""

    name = "langgraph: PostgresSaver.put"

    def __init__(self, url: str, callers: int) -> None:
        module = importlib.import_module("langgraph.checkpoint.postgres")
        self._empty = importlib.import_module("langgraph.checkpoint.base").empty_checkpoint
        pools = importlib.import_module("psycopg_pool")
        self._pool: Any = pools.ConnectionPool(
            url, min_size=callers, max_size=callers, open=True, kwargs=_langgraph_options()
        )
        self._saver: Any = module.PostgresSaver(self._pool)
        self._saver.setup()

    @property
    def settings(self) -> str:
        """As a connection of its pool reports."""
        with self._pool.connection() as connection:
            return _settings_of_rows(connection.execute(_ASKED).fetchone())

    def mover(self, session_id: str) -> Move:
        """Keep the wire form of a state as the values of the channels of a thread."""
        checkpoints = Checkpoints(session_id, self._saver.get_next_version, self._empty)

        def move() -> None:
            checkpoints.place = self._saver.put(*checkpoints.next())

        return move

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


class PostgresLangGraphAwaited(Awaiting):
    """`AsyncPostgresSaver.aput` over a pool; the saver itself lets one caller in at a time."""

    name = "langgraph: AsyncPostgresSaver.aput"
    unlocked = False

    def __init__(self, url: str, callers: int) -> None:
        self._module = importlib.import_module("langgraph.checkpoint.postgres.aio")
        self._empty = importlib.import_module("langgraph.checkpoint.base").empty_checkpoint
        self._pools = importlib.import_module("psycopg_pool")
        self._url, self._callers = url, callers
        self._settings = ""

    async def prepare(self) -> None:
        """Open the pool, make the tables, and read back how durable they are."""
        size = self._callers
        self._pool: Any = self._pools.AsyncConnectionPool(
            self._url, min_size=size, max_size=size, open=False, kwargs=_langgraph_options()
        )
        await self._pool.open(wait=True)
        self._saver: Any = self._module.AsyncPostgresSaver(self._pool)
        await self._saver.setup()
        if self.unlocked:
            self._saver.lock = contextlib.nullcontext()
        async with self._pool.connection() as connection:
            self._settings = _settings_of_rows(await (await connection.execute(_ASKED)).fetchone())

    @property
    def settings(self) -> str:
        """As a connection of its pool reports."""
        return self._settings

    async def mover(self, session_id: str) -> AsyncMove:
        """Keep the wire form of a state as the values of the channels of a thread."""
        checkpoints = Checkpoints(session_id, self._saver.get_next_version, self._empty)

        async def move() -> None:
            checkpoints.place = await self._saver.aput(*checkpoints.next())

        return move

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()


class PostgresLangGraphUnlocked(PostgresLangGraphAwaited):
    """The same with the lock of the saver taken away, so that its pool is used: a known remedy."""

    name = "langgraph, aput, without the saver's lock"
    unlocked = True


class PostgresAdk(Awaiting):
    """`DatabaseSessionService.append_event`: an event with a change of the session's state."""

    name = "google-adk: append_event, asyncpg"
    driver: ClassVar[str] = "asyncpg"

    def __init__(self, url: str, callers: int) -> None:
        importlib.import_module(self.driver)
        sessions = importlib.import_module("google.adk.sessions.database_session_service")
        self._sqlalchemy: Any = importlib.import_module("sqlalchemy")
        events = importlib.import_module("google.adk.events.event")
        actions = importlib.import_module("google.adk.events.event_actions")
        self._event: Any = events.Event
        self._actions: Any = actions.EventActions
        named = urlunsplit(urlsplit(url)._replace(scheme=f"postgresql+{self.driver}"))
        self._service: Any = sessions.DatabaseSessionService(named, pool_size=callers)
        self._settings = ""

    async def prepare(self) -> None:
        """Make the tables, and read back how durable they are."""
        await self._service.prepare_tables()
        async with self._service.db_engine.connect() as connection:
            row = (await connection.execute(self._sqlalchemy.text(_ASKED))).one()
            self._settings = ", ".join(row)

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
        await self._service.close()


class PostgresAdkPsycopg(PostgresAdk):
    """The same through psycopg."""

    name = "google-adk: append_event, psycopg"
    driver = "psycopg"
