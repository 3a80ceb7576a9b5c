"""The floor: what one would write by hand with psycopg to keep a session durably in PostgreSQL.

It decides nothing and checks nothing but the revision. Each move is one transaction that rewrites a
row with the state on condition of its revision, and adds a row with the event and its digest,
chained to the one before: the same bytes that the library stores, at the same durability. The
tables have their primary keys and nothing else. Connections come from psycopg's own pool, one for
each caller; statements are prepared by psycopg after their fifth use, as it does by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import orjson
import psycopg
from psycopg_pool import ConnectionPool

from session_fsm import SessionManager, serialize
from session_fsm.clock import utc_now

from .callers import Move
from .floor import BACK_AND_FORTH, Step, step_of
from .postgres_server import DURABLE, told
from .subjects import Blocking

TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS floor;
CREATE TABLE IF NOT EXISTS floor.session (
    session_id text COLLATE "C" PRIMARY KEY, revision bigint NOT NULL, status text NOT NULL,
    state bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS floor.event (
    session_id text COLLATE "C" NOT NULL, revision bigint NOT NULL, body bytea NOT NULL,
    digest text NOT NULL, PRIMARY KEY (session_id, revision)
);
"""
_UPDATE: Final = """
UPDATE floor.session SET revision = %s, status = %s, state = %s
WHERE session_id = %s AND revision = %s
"""
_INSERT: Final = "INSERT INTO floor.event VALUES (%s, %s, %s, %s)"
_BOTH: Final = f"""
WITH moved AS ({_UPDATE} RETURNING session_id, revision)
INSERT INTO floor.event SELECT session_id, revision, %s, %s FROM moved
"""  # noqa: S608 - the text above

Pool = ConnectionPool[psycopg.Connection[Any]]


class Row:
    """One session of the floor, whose last state its owner keeps at hand.

    Args:
        pool: Where the connections come from.
        write: Makes one step durable on a connection; tells whether the revision was the expected.
        state: The wire form of its state.
        revision: How many events it has behind it.
        digest: The digest of the last one.
        now: What tells the time.
    """

    def __init__(
        self,
        pool: Pool,
        write: Callable[[psycopg.Connection[Any], Step], bool],
        state: dict[str, Any],
        *,
        revision: int,
        digest: str,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._pool = pool
        self._write = write
        self._now = now
        self.state = state
        self.revision = revision
        self.digest = digest
        with pool.connection() as connection:
            connection.execute(
                "INSERT INTO floor.session VALUES (%s, %s, %s, %s)",
                (state["session_id"], revision, state["status"], orjson.dumps(state)),
            )

    def fire(self, trigger: str) -> None:
        """Make a move, durably."""
        step = step_of(self.state, self.revision, self.digest, trigger, self._now())
        with self._pool.connection() as connection:
            if not self._write(connection, step):
                session_id = step.state["session_id"]
                raise RuntimeError(f"{session_id} is not at revision {self.revision}")
        self.state, self.revision, self.digest = step.state, step.revision, step.digest

    def there_and_back(self) -> None:
        """Make one move: to rest, or back to work."""
        self.fire(BACK_AND_FORTH[self.state["status"]])


class PostgresFloor(Blocking):
    """BEGIN, UPDATE, INSERT, COMMIT: four round trips, as the manual of psycopg shows it."""

    name = "floor: bare psycopg"
    autocommit = False
    synchronous_commit = "on"

    def __init__(self, url: str, callers: int) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(TABLES)
        self.pool: Pool = ConnectionPool(
            url, min_size=callers, max_size=callers, open=True, configure=self._configure,
            kwargs={"autocommit": self.autocommit},
        )  # fmt: skip
        self.pool.wait()

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        if self.synchronous_commit != "on":
            connection.execute(f"SET synchronous_commit = {self.synchronous_commit}")
            connection.commit()

    @property
    def settings(self) -> str:
        """As a connection of its pool reports."""
        with self.pool.connection() as connection:
            return ", ".join(told(connection, *DURABLE).values())

    @staticmethod
    def write(connection: psycopg.Connection[Any], step: Step) -> bool:
        """Write a step, within the transaction of the pool's block."""
        session_id = step.state["session_id"]
        changed = (step.revision, step.state["status"], step.stored, session_id, step.revision - 1)
        if connection.execute(_UPDATE, changed).rowcount != 1:
            return False
        connection.execute(_INSERT, (session_id, step.revision, step.body, step.digest))
        return True

    def mover(self, session_id: str) -> Move:
        """Begin where one of our sessions is after its creation."""
        with SessionManager() as manager:
            state = serialize(manager.create(session_id).state)
            last = manager.history(session_id)[-1]
        row = Row(self.pool, self.write, state, revision=last.revision, digest=last.digest)
        return row.there_and_back

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()


class PostgresFloorAtOnce(PostgresFloor):
    """UPDATE and INSERT in one statement, which commits itself: one round trip."""

    name = "floor: bare psycopg, one statement"
    autocommit = True

    @staticmethod
    def write(connection: psycopg.Connection[Any], step: Step) -> bool:
        """Write a step; the connection is in autocommit mode."""
        session_id, status = step.state["session_id"], step.state["status"]
        changed = (step.revision, status, step.stored, session_id, step.revision - 1)
        return connection.execute(_BOTH, (*changed, step.body, step.digest)).rowcount == 1


class PostgresFloorUnsynced(PostgresFloorAtOnce):
    """The same, acknowledged before it is on disk: what is left when a disk costs nothing."""

    name = "floor, one statement, synchronous_commit=off: not durable"
    synchronous_commit = "off"
