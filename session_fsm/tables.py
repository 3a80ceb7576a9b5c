"""The verbs of session-scoped tables: values by key, that belong to one session and end with it."""

from __future__ import annotations

from typing import Any

from .core import Core
from .decisions import WriteItems
from .errors import ItemNotFoundError
from .fields import Problems, check_limit, check_text
from .items import (
    Clear,
    Delete,
    Item,
    ItemPage,
    Put,
    Write,
    Written,
    item_key,
    table_name,
)
from .keeper import SessionKeeper


class SessionTable:
    """A table of one session; got from `SessionManager.table`.

    Writes are checked as `update` is, and leave the session at its revision: no step is made, no
    activity noted. They take part in a `batch()` of the manager. Whoever needs a write and a move
    in one transaction hands the write to the move: `fire(…, writes=[Put("files", …)])`.

    Every verb raises `SessionNotFoundError` if the session is not stored, `StateInvalidError` for
    what can't be a key, and `StoreError`. Every write raises `TransitionError` where the session's
    status, or a guard, does not let its data be changed, as when it has ended; nothing was written
    then. A `StoreUnavailableError` with an operation id leaves open whether something was.

    Attributes:
        session_id: The session.
        name: The table; it need not be made, and is there while it has items.

    Threads: safe.
    """

    def __init__(self, core: Core, session_id: str, name: str) -> None:
        self._core = core
        self.session_id = session_id
        self.name = table_name(name)

    def get(self, key: str) -> Any:
        """Return the value of a key: JSON, deeply immutable.

        Raises:
            ItemNotFoundError: There is none, or it has expired.
            CorruptRecordError: It is there and can't be read.
        """
        item = self.find(key)
        if item is None:
            raise ItemNotFoundError(session_id=self.session_id, table=self.name, key=key)
        return item.value

    def find(self, key: str) -> Item | None:
        """Return the item of a key, with its version, or None; otherwise as `get`."""
        core, key = self._open(), item_key(key)
        return core.store.item(self.session_id, self.name, key, core.clock.now())

    def items(self, *, limit: int = 100, after: str | None = None) -> ItemPage:
        """Return items by key, page by page.

        Args:
            limit: Most items on the page; at least 1.
            after: `next` of the page before; None: the first page.

        Returns:
            Items in the order of their keys, without those that have expired; `next` is None on
            the last page.

        Raises:
            ValueError: The limit is no number from 1 on, or `after` is no text.
            CorruptRecordError: One of them can't be read.
        """
        core = self._open()
        check_limit(limit, "items")
        problems: Problems = []
        if check_text(after, "after", problems) is not None and problems:
            raise ValueError("; ".join(problems))
        now = core.clock.now()
        found = core.store.items(self.session_id, self.name, limit + 1, after, now)
        page = found[:limit]
        return ItemPage(page, page[-1].key if len(found) > limit else None)

    def put(
        self,
        key: str,
        value: Any,
        *,
        expected_version: int | None = None,
        ttl_seconds: float | None = None,
    ) -> Item:
        """Put a value under a key, durably; one that is there is replaced.

        Args:
            key: 1 to 255 printable characters.
            value: JSON, copied; at most `MAX_ITEM_BYTES` when written.
            expected_version: The version that the item must have; 0: there must be none; None:
                any.
            ttl_seconds: How long it lives, by the manager's clock; None: as long as the session is
                stored.

        Returns:
            The item as it is stored, with its version.

        Raises:
            StateInvalidError: Every fault of the arguments.
            ItemConflictError: It is not at the expected version; nothing was written.
            TransitionError: The session's data can't be changed.
        """
        options: dict[str, Any] = {
            "expected_version": expected_version,
            "ttl_seconds": ttl_seconds,
        }
        item = self._write(Put(self.name, key, value, **options))
        assert isinstance(item, Item)
        return item

    def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        """Remove the item of a key; tells whether there was one. Arguments and errors as `put`."""
        return bool(self._write(Delete(self.name, key, expected_version=expected_version)))

    def clear(self) -> int:
        """Remove every item in one transaction; returns how many had not expired."""
        removed = self._write(Clear(self.name))
        assert isinstance(removed, int)
        return removed

    def _write(self, write: Write) -> Written:
        [written] = self._open().change(self.session_id, WriteItems((write,))).written
        return written

    def _open(self) -> Core:
        self._core.check_open()
        return self._core

    def __repr__(self) -> str:
        return f"<SessionTable {self.name!r} of session {self.session_id!r}>"


class TableKeeper(SessionKeeper):
    """Gives the tables of the sessions of a core; arguments and threads as for the keeper."""

    def table(self, session_id: str, name: str) -> SessionTable:
        """Return a table of a session; nothing is read or written.

        Items belong to the session: no other one sees them, and they are gone once it is purged.

        Args:
            session_id: Key of a stored session.
            name: 1 to 255 printable characters; it need not have been used before.

        Raises:
            StateInvalidError: The name can't be that of a table.
        """
        self._core.check_open()
        return SessionTable(self._core, session_id, name)
