"""What is written to the tables of sessions in the PostgreSQL store, and in whose transaction.

The session's row is locked first, so nobody moves the session or writes to its tables meanwhile.
What the writes depend on is then read at once, decided here in their order, and written in one go.

The last operation that wrote is kept with the version: an answer that was lost can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    LifecycleError,
    RevisionConflictError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from ..items import Clear, Delete, Item, ItemWrites, Put, Write, Written, check_expected
from ..jsontext import dump_json
from .postgres_sql import Sql

if TYPE_CHECKING:
    from .postgres_links import Connection

HOLD: Final = "SELECT lifecycle, revision FROM {s}.session WHERE session_id = %s::text FOR UPDATE"
LAST: Final = (
    "SELECT version, operation_id FROM {s}.session_item_version WHERE session_id = %s::text"
)
_LIVE: Final = "(expires_at IS NULL OR expires_at > %(at)s::timestamptz)"
LIVE_OF_KEYS: Final = (
    "SELECT item.table_name, item.key, item.version"  # noqa: S608 - constants
    " FROM unnest(%(tables)s::text[], %(keys)s::text[]) AS named (table_name, key)"
    " JOIN {s}.session_item AS item ON item.session_id = %(id)s::text"
    " AND item.table_name = named.table_name AND item.key = named.key"
    f" WHERE {_LIVE}"
)
LIVE_OF_TABLES: Final = (
    "SELECT table_name, key, version FROM {s}.session_item"  # noqa: S608 - constants
    f" WHERE session_id = %(id)s::text AND table_name = ANY(%(tables)s::text[]) AND {_LIVE}"
)
CLEAR: Final = "DELETE FROM {s}.session_item WHERE session_id = %s::text AND table_name = %s::text"
DELETE: Final = f"{CLEAR} AND key = %s::text"
_PUT: Final = (
    "INSERT INTO {s}.session_item"
    " (session_id, table_name, lifecycle, key, version, expires_at, updated_at, body)"
    " VALUES (%s::text, %s::text, %s::text, %s::text, %s::bigint, %s::timestamptz,"
    " %s::timestamptz, %s::bytea)"
)
_BEGIN: Final = (
    "INSERT INTO {s}.session_item_version (session_id, version, operation_id)"
    " VALUES (%s::text, 0, %s::text)"
    " ON CONFLICT (session_id) DO UPDATE SET operation_id = excluded.operation_id"
)
_RAISE: Final = (
    "UPDATE {s}.session_item_version SET version = version + 1 WHERE session_id = %s::text"
)

_Place = tuple[str, str]


class ItemWriter:
    """Writes of one session, as they are made inside the transaction of whoever writes.

    Args:
        session_id: The session.
        lifecycle: The name of its lifecycle.
        writes: What is written.
        operation_id: Tells whether they were made, until others are.

    Attributes:
        in_doubt: Whether an attempt before may have been written, or may be yet.
        is_overtaken: Whether that will never be known, as others have written since.
        written: What came of each write, once they were made.
    """

    __slots__ = (
        "_before",
        "_lifecycle",
        "_live",
        "_operation_id",
        "_session_id",
        "_statements",
        "_version",
        "_writes",
        "in_doubt",
        "is_overtaken",
        "written",
    )

    def __init__(
        self, session_id: str, lifecycle: str, writes: ItemWrites, operation_id: str
    ) -> None:
        self._session_id = session_id
        self._lifecycle = lifecycle
        self._writes = writes
        self._operation_id = operation_id
        self._before: Any = None
        self._version = 0
        self._live: dict[_Place, int] = {}
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self.in_doubt = False
        self.is_overtaken = False
        self.written: tuple[Written, ...] = ()

    def make(
        self,
        link: Connection,
        sql: Sql,
        expected_revision: int,
        admit: Callable[[], None] | None = None,
    ) -> None:
        """Make the writes, in a transaction, if the session is at a revision.

        It may be called again, once what it did was undone, or is in doubt. An attempt that is not
        over yet has the session's row locked: it is over once this one has the lock.

        Args:
            link: In that transaction.
            sql: Formats statements.
            expected_revision: The revision.
            admit: Refuses a writer that may not write, once nobody else can take the session over;
                None: whoever writes is looked at behind this, in the same transaction.

        Raises:
            SessionNotFoundError: The session is not there.
            LifecycleError: The session runs in another lifecycle.
            RevisionConflictError: The stored revision is not the expected one.
            ItemConflictError: An item is not at the version that a write expects.
            StoreUnavailableError: It is not known what became of the attempt before: others have
                written since.
        """
        session_id = self._session_id
        held = link.execute(sql(HOLD), (session_id,)).fetchone()
        last = link.execute(sql(LAST), (session_id,)).fetchone()
        if self.in_doubt:
            if last is not None and last[1] == self._operation_id:
                return
            if last != self._before or held is None:
                self.is_overtaken = True
                problem = "an answer was lost, and others have written since"
                raise StoreUnavailableError(problem=problem, operation_id=self._operation_id)
            self.in_doubt = False
        if admit is not None:
            admit()
        self._check(held, expected_revision)
        self._before = last
        self._version = 0 if last is None else last[0]
        self._live = self._found(link, sql)
        self._statements = [(_BEGIN, (session_id, self._operation_id))]
        self.written = tuple(self._decide(write) for write in self._writes.writes)
        with link.pipeline():
            for text, told in self._statements:
                link.execute(sql(text), told)

    def _check(self, held: Any, expected: int) -> None:
        session_id = self._session_id
        if held is None:
            raise SessionNotFoundError(session_id=session_id)
        lifecycle, found = held
        check_lifecycle(session_id, lifecycle, self._lifecycle)
        if found != expected:
            raise RevisionConflictError(session_id=session_id, expected=expected, found=found)

    def _found(self, link: Connection, sql: Sql) -> dict[_Place, int]:
        """Return the versions of what has not expired, in so far as the writes depend on it."""
        told: dict[str, Any] = {"id": self._session_id, "at": self._writes.at}
        found: list[Any] = []
        if cleared := {each.table for each in self._writes.writes if isinstance(each, Clear)}:
            of_tables = told | {"tables": sorted(cleared)}
            found += link.execute(sql(LIVE_OF_TABLES), of_tables).fetchall()
        named = {
            (each.table, each.key): None
            for each in self._writes.writes
            if not isinstance(each, Clear) and each.table not in cleared
        }
        if named:
            of_keys = told | {"tables": [place[0] for place in named]}
            of_keys["keys"] = [place[1] for place in named]
            found += link.execute(sql(LIVE_OF_KEYS), of_keys).fetchall()
        return {(table, key): version for table, key, version in found}

    def _decide(self, write: Write) -> Written:
        """Decide on a write, behind those before it; what it says is added to the statements."""
        session_id, live = self._session_id, self._live
        if isinstance(write, Clear):
            gone = [place for place in live if place[0] == write.table]
            for place in gone:
                del live[place]
            self._statements.append((CLEAR, (session_id, write.table)))
            return len(gone)
        place = (write.table, write.key)
        found = live.pop(place, 0)
        check_expected(session_id, write, found)
        self._statements.append((DELETE, (session_id, *place)))
        if isinstance(write, Delete):
            return int(found > 0)
        item = self._put(write)
        live[place] = item.version
        return item

    def _put(self, write: Put) -> Item:
        at, expires_at = self._writes.at, write.expires_at(self._writes.at)
        self._version += 1
        item = Item(
            key=write.key,
            value=write.value,
            version=self._version,
            expires_at=expires_at,
            updated_at=at,
        )
        row = (self._session_id, write.table, self._lifecycle, write.key, item.version)
        self._statements += [
            (_RAISE, (self._session_id,)),
            (_PUT, (*row, expires_at, at, dump_json(write.value))),
        ]
        return item


def check_lifecycle(session_id: str, found: str, expected: str) -> None:
    """Accept a session of a lifecycle.

    Raises:
        LifecycleError: It runs in another one.
    """
    if found != expected:
        problem = f"session {session_id!r} runs in the lifecycle {found!r}"
        raise LifecycleError(problem=problem, lifecycle=expected)
