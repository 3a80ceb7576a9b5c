"""The tables of sessions in memory, by key, and their items by when they expire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from sortedcontainers import SortedDict, SortedList

from ..items import Clear, Delete, Item, ItemWrites, Put, Write, Written, check_expected

Undo = Callable[[], object]
Place = tuple[datetime, str, str, str]
"""When an item expires, its session, table and key."""


class _Tables:
    """The tables of one session, and the last version that was given in them."""

    __slots__ = ("by_name", "version")

    def __init__(self) -> None:
        self.version = 0
        self.by_name: dict[str, SortedDict] = {}


class MemoryItems:
    """The tables of all sessions of a store.

    Threads: not safe; its store has a lock.
    """

    def __init__(self) -> None:
        self._tables: dict[str, _Tables] = {}
        self._expiring = SortedList()

    def find(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        """Return an item that has not expired, or None."""
        item: Item | None = self._table(session_id, table).get(key)
        return item if item is not None and item.is_live(at) else None

    def page(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> Iterator[Item]:
        """Yield the first items of a table that have not expired, behind a key."""
        items = self._table(session_id, table)
        for key in items.irange(minimum=after, inclusive=(False, True)):
            if limit and items[key].is_live(at):
                yield items[key]
                limit -= 1
            elif not limit:
                return

    def _table(self, session_id: str, table: str) -> SortedDict:
        tables = self._tables.get(session_id)
        found = None if tables is None else tables.by_name.get(table)
        return SortedDict() if found is None else found

    def write(self, session_id: str, writes: ItemWrites) -> tuple[tuple[Written, ...], list[Undo]]:
        """Write to tables of a session, all or nothing.

        Returns:
            What came of each write; what undoes them, to be done in reversed order.

        Raises:
            ItemConflictError: An item is not at the version that a write expects.
        """
        undo: list[Undo] = []
        try:
            made = tuple(self._write(session_id, each, writes.at, undo) for each in writes.writes)
        except BaseException:
            for step in reversed(undo):
                step()
            raise
        return made, undo

    def _write(self, session_id: str, write: Write, at: datetime, undo: list[Undo]) -> Written:
        if isinstance(write, Clear):
            items: tuple[Item, ...] = tuple(self._table(session_id, write.table).values())
            for item in items:
                self._replace(session_id, write.table, item, None, undo)
            return sum(item.is_live(at) for item in items)
        stored: Item | None = self._table(session_id, write.table).get(write.key)
        live = stored is not None and stored.is_live(at)
        check_expected(session_id, write, stored.version if live and stored else 0)
        if isinstance(write, Delete):
            self._replace(session_id, write.table, stored, None, undo)
            return int(live)
        new = self._new_item(session_id, write, at, undo)
        self._replace(session_id, write.table, stored, new, undo)
        return new

    def _new_item(self, session_id: str, write: Put, at: datetime, undo: list[Undo]) -> Item:
        tables = self._tables.get(session_id)
        if tables is None:
            tables = self._tables[session_id] = _Tables()
            undo.append(lambda: self._tables.pop(session_id))
        version = tables.version
        undo.append(lambda: setattr(tables, "version", version))
        tables.version = version + 1
        return Item(
            key=write.key,
            value=write.value,
            version=tables.version,
            expires_at=write.expires_at(at),
            updated_at=at,
        )

    def _replace(
        self, session_id: str, table: str, old: Item | None, new: Item | None, undo: list[Undo]
    ) -> None:
        undo.append(lambda: self._put(session_id, table, new, old))
        self._put(session_id, table, old, new)

    def _put(self, session_id: str, table: str, old: Item | None, new: Item | None) -> None:
        if old is not None:
            self._table(session_id, table).pop(old.key)
            if old.expires_at is not None:
                self._expiring.remove((old.expires_at, session_id, table, old.key))
        if new is not None:
            tables = self._tables[session_id]
            tables.by_name.setdefault(table, SortedDict())[new.key] = new
            if new.expires_at is not None:
                self._expiring.add((new.expires_at, session_id, table, new.key))
        elif old is not None and not (tables := self._tables[session_id]).by_name[table]:
            del tables.by_name[table]

    def drop_expired(self, at: datetime, limit: int) -> tuple[int, list[Undo]]:
        """Remove items that have expired, so many at most; returns how many, and what undoes it."""
        undo: list[Undo] = []
        due: list[Place] = []
        for place in self._expiring.islice(0, limit):
            if place[0] > at:
                break
            due.append(place)
        for _, session_id, table, key in due:
            self._replace(session_id, table, self._table(session_id, table)[key], None, undo)
        return len(due), undo

    def drop(self, session_id: str) -> Undo:
        """Remove all tables of a session; returns what undoes it."""
        tables = self._tables.pop(session_id, None)
        if tables is None:
            return lambda: None
        places = [
            (item.expires_at, session_id, table, item.key)
            for table, items in tables.by_name.items()
            for item in items.values()
            if item.expires_at is not None
        ]
        for place in places:
            self._expiring.remove(place)

        def undo() -> None:
            self._tables[session_id] = tables
            self._expiring.update(places)

        return undo
