"""The part of the SQLite store that keeps the tables of sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from ..clock import instant_text
from ..errors import (
    CorruptRecordError,
    FencedError,
    KeyMissingError,
    SchemaVersionError,
    SessionNotFoundError,
)
from ..items import Item, ItemWrites, Written
from ..serialization import parse_instant
from .abc import SessionStore
from .owners import OwnerLocks
from .reading import ItemPlace, item_record, place_problems, read_value, reading_item
from .sqlite_commit import key as known
from .sqlite_connection import Connections
from .sqlite_items import FIELDS, LIVE, ItemWriter, PreparedWrites, check_lifecycle, cipher_place
from .sqlite_keys import ENCRYPTION_FORMAT, SessionKeys

# The session is there, or not, in the same statement.
_FIND: Final = (
    f"SELECT lifecycle, key_id, wrapped, {FIELDS} FROM"  # noqa: S608 - constants
    " (SELECT session_id, lifecycle FROM session WHERE session_id = :id)"
    " LEFT JOIN session_key USING (session_id) LEFT JOIN"
    f" (SELECT session_id, {FIELDS} FROM session_item WHERE session_id = :id"
    f" AND table_name = :table AND {LIVE} AND {{which}}) USING (session_id)"
)
_ONE: Final = _FIND.format(which="key = :key")
_PAGE: Final = _FIND.format(which="key > :after ORDER BY key LIMIT :limit")
_EXPIRED: Final = (
    "FROM session_item INDEXED BY session_item_by_expiry WHERE lifecycle = ?"
    " AND expires_at IS NOT NULL AND expires_at <= ?"
)
_ALL: Final = (
    "SELECT item.session_id, table_name, session.lifecycle, item.lifecycle, given.version,"  # noqa: S608
    f" key_id, wrapped, {', '.join(f'item.{each}' for each in FIELDS.split(', '))}"
    " FROM session_item AS item LEFT JOIN session USING (session_id)"
    " LEFT JOIN session_item_version AS given USING (session_id)"
    " LEFT JOIN session_key USING (session_id)"
    " WHERE item.lifecycle = ? OR session.lifecycle IS NULL"
)


class SqliteTables(SessionStore):
    """The methods of the SQLite store that are about tables of sessions."""

    _connections: Connections
    _keys: SessionKeys
    _owners: OwnerLocks

    def item(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        told = {"id": known(session_id), "table": known(table), "key": known(key)}
        with self._connections.reading() as reader:
            rows = reader.execute(_ONE, told | {"at": instant_text(at)}).fetchall()
        return next(self._items_of(rows, session_id, table), None)

    def items(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> tuple[Item, ...]:
        told = {"id": known(session_id), "table": known(table), "at": instant_text(at)}
        with self._connections.reading() as reader:
            page = reader.execute(_PAGE, told | {"after": after or "", "limit": limit})
            rows = page.fetchall()
        return tuple(sorted(self._items_of(rows, session_id, table), key=attrgetter("key")))

    def _items_of(self, rows: list[Any], session_id: str, table: str) -> Iterator[Item]:
        if not rows:
            raise SessionNotFoundError(session_id=session_id)
        check_lifecycle(session_id, rows[0][0], self.lifecycle.name)
        for _, key_id, wrapped, key, *row in rows:
            if key is not None:
                yield _item((session_id, table, key), row, (key_id, wrapped), self._keys)

    def write_items(
        self,
        session_id: str,
        expected_revision: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        if not self._owners.holds(owner_id):
            self._connections.check_open()
            raise FencedError(session_id=session_id, owner_id=owner_id)
        if not isinstance(known(session_id), str):
            raise SessionNotFoundError(session_id=session_id)
        # A session gets its key with a step. Should it get one meanwhile, the revision is another.
        data_key = self._keys.find_key(session_id)
        maker = ItemWriter(session_id, self.lifecycle.name, writes, data_key)
        self._connections.commit(PreparedWrites(maker, expected_revision, operation_id))
        return maker.written

    def drop_expired_items(self, at: datetime, limit: int) -> int:
        due = (self.lifecycle.name, instant_text(at))
        with self._connections.reading() as reader:
            if reader.execute(f"SELECT 1 {_EXPIRED} LIMIT 1", due).fetchone() is None:
                return 0
        rows = f"SELECT rowid {_EXPIRED} LIMIT ?"
        with self._connections.writing() as writer:
            gone = writer.execute(
                f"DELETE FROM session_item WHERE rowid IN ({rows})",  # noqa: S608 - constant
                (*due, limit),
            )
            return gone.rowcount


def _item(
    place: ItemPlace, row: Iterable[Any], wrapped: tuple[Any, Any], keys: SessionKeys
) -> Item:
    version, expires_at, updated_at, encryption, body = row
    session_id, table, key = place
    if encryption not in (None, ENCRYPTION_FORMAT):
        found = f"{encryption} of what {item_record(place)} has encrypted"
        raise SchemaVersionError(found=found, supported=str(ENCRYPTION_FORMAT))
    with reading_item(place):
        if encryption is not None:
            text = bytes(body).decode("ascii", "replace")
            data_key = keys.key_of(session_id, *wrapped)
            body = data_key.decrypt(text, *cipher_place(session_id, table, key, version))
        return Item(
            key=key,
            value=read_value(bytes(body)),
            version=version,
            expires_at=None if expires_at is None else parse_instant(expires_at),
            updated_at=parse_instant(updated_at),
        )


def item_problems(reader: sqlite3.Connection, lifecycle: str, keys: SessionKeys) -> Iterator[str]:
    """Name the items of sessions that are not there, and those that can't be read.

    Those that are encrypted with a key that is not here are not looked into.
    """
    for session_id, table, owner, own, given, *rest in reader.execute(_ALL, (lifecycle,)):
        key_id, wrapped, key, version, *_ = rest
        place = (session_id, table, key)
        yield from place_problems(place, lives_by=owner, kept_for=own, given=given, version=version)
        if owner is None:
            continue
        try:
            _item(place, rest[3:], (key_id, wrapped), keys)
        except KeyMissingError:
            continue
        except (CorruptRecordError, SchemaVersionError) as fault:
            yield str(fault)
