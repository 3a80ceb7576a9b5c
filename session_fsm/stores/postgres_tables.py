"""The part of the PostgreSQL store that keeps the tables of sessions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    CorruptRecordError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from ..items import Item, ItemWrites, Written
from .abc import SessionStore
from .postgres_items import ItemWriter, check_lifecycle
from .postgres_sql import Sql, known
from .reading import ItemPlace, place_problems, read_value, reading_item

if TYPE_CHECKING:
    from .postgres_connection import Connections
    from .postgres_links import Connection

_FIELDS: Final = "key, version, expires_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC', body"
# The session is there, or not, in the same statement.
_FIND: Final = (
    "SELECT session.lifecycle, item.* FROM {s}.session LEFT JOIN LATERAL"  # noqa: S608 - constants
    f" (SELECT {_FIELDS} FROM {{s}}.session_item"
    " WHERE session_item.session_id = %(id)s::text AND table_name = %(table)s::text"
    " AND (expires_at IS NULL OR expires_at > %(at)s::timestamptz) AND "
)
_OF_SESSION: Final = ") AS item ON true WHERE session.session_id = %(id)s::text"
ONE: Final = f"{_FIND}key = %(key)s::text{_OF_SESSION}"
PAGE: Final = f"{_FIND}key > %(after)s::text ORDER BY key LIMIT %(limit)s::bigint{_OF_SESSION}"
_EXPIRED: Final = (
    "FROM {s}.session_item WHERE lifecycle = %s::text AND expires_at <= %s::timestamptz"
)
# In the order of the index: without one, any row would do, and a search for it may be long.
ANY_EXPIRED: Final = f"SELECT 1 {_EXPIRED} ORDER BY expires_at LIMIT 1"
# Who writes to a session has its items locked: they are left to the next time.
DROP_EXPIRED: Final = (
    f"WITH gone AS MATERIALIZED (SELECT session_id, table_name, key {_EXPIRED}"  # noqa: S608
    " ORDER BY expires_at LIMIT %s::bigint FOR UPDATE SKIP LOCKED)"
    " DELETE FROM {s}.session_item AS item USING gone WHERE item.session_id = gone.session_id"
    " AND item.table_name = gone.table_name AND item.key = gone.key"
)
_ALL: Final = (
    "SELECT item.session_id, table_name, session.lifecycle, item.lifecycle, given.version,"
    " key, item.version, expires_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC', body"
    " FROM {s}.session_item AS item LEFT JOIN {s}.session USING (session_id)"
    " LEFT JOIN {s}.session_item_version AS given USING (session_id)"
    " WHERE item.lifecycle = %s::text OR session.lifecycle IS NULL"
)


class PostgresTables(SessionStore):
    """The methods of the PostgreSQL store that are about tables of sessions."""

    _connections: Connections

    def _check_writer(
        self, link: Connection, session_id: str | None = None, owner_id: str | None = None
    ) -> None:
        """Accept this store as one that may write, in the transaction that writes.

        Args:
            link: In that transaction, which has locked the session.
            session_id: What is written to; None: nothing that belongs to one session.
            owner_id: In whose name; None: in that of any owner of this store.

        Raises:
            FencedError: It has enlisted owners, and none of them lives, or one states an old token.
        """
        raise NotImplementedError

    def _rows(self, text: str, told: Any) -> list[tuple[Any, ...]]:
        """Read rows, in binary: no instants in the words of some DateStyle."""
        raise NotImplementedError

    def item(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        told = {"id": known(session_id), "table": known(table), "key": known(key), "at": at}
        rows = self._rows(ONE, told)
        return next(self._items_of(rows, session_id, table), None)

    def items(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> tuple[Item, ...]:
        told: dict[str, Any] = {"id": known(session_id), "table": known(table), "at": at}
        told |= {"after": after or "", "limit": limit}
        rows = self._rows(PAGE, told)
        return tuple(self._items_of(rows, session_id, table))

    def _items_of(self, rows: list[Any], session_id: str, table: str) -> Iterator[Item]:
        if not rows:
            raise SessionNotFoundError(session_id=session_id)
        check_lifecycle(session_id, rows[0][0], self.lifecycle.name)
        for _, key, *row in rows:
            if key is not None:
                yield _item((session_id, table, key), row)

    def write_items(
        self,
        session_id: str,
        expected_revision: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        if not known(session_id):
            raise SessionNotFoundError(session_id=session_id)
        connections = self._connections
        maker = ItemWriter(session_id, self.lifecycle.name, writes, operation_id)

        def work(link: Connection) -> None:
            admit = partial(self._check_writer, link, session_id, owner_id)
            maker.make(link, connections.sql, expected_revision, admit)

        patience = connections.patience()
        while True:
            try:
                connections.write(work, operation_id=operation_id)
            except StoreUnavailableError as fault:
                lost = fault.operation_id == operation_id
                known_enough = connections.in_batch or maker.is_overtaken
                if known_enough or not (lost or maker.in_doubt):
                    raise
                # Sent, and no answer: the next attempt finds out, if there is time for one.
                maker.in_doubt = True
                if not lost or not patience.pause():
                    problem = fault.problem
                    raise StoreUnavailableError(
                        problem=problem, operation_id=operation_id
                    ) from fault
            else:
                return maker.written

    def drop_expired_items(self, at: datetime, limit: int) -> int:
        sql, due = self._connections.sql, (self.lifecycle.name, at)

        def has_any(link: Connection) -> bool:
            return link.execute(sql(ANY_EXPIRED), due).fetchone() is not None

        def drop(link: Connection) -> int:
            self._check_writer(link)
            return link.execute(sql(DROP_EXPIRED), (*due, limit)).rowcount

        return self._connections.write(drop) if self._connections.read(has_any) else 0


def _item(place: ItemPlace, row: list[Any]) -> Item:
    version, expires_at, updated_at, body = row
    with reading_item(place):
        return Item(
            key=place[2],
            value=read_value(bytes(body)),
            version=version,
            expires_at=None if expires_at is None else expires_at.replace(tzinfo=UTC),
            updated_at=updated_at.replace(tzinfo=UTC),
        )


def item_problems(link: Connection, sql: Sql, lifecycle: str) -> Iterator[str]:
    """Name the items of sessions that are not there, and those that can't be read."""
    rows = link.execute(sql(_ALL), (lifecycle,), binary=True)
    for session_id, table, owner, own, given, key, *row in rows:
        place = (session_id, table, key)
        yield from place_problems(place, lives_by=owner, kept_for=own, given=given, version=row[0])
        if owner is None:
            continue
        try:
            _item(place, row)
        except CorruptRecordError as fault:
            yield str(fault)
