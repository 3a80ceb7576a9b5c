"""The tables of a session, on a loop: each verb is one call of the table of threads."""

from __future__ import annotations

from typing import Any

from ..items import Item, ItemPage
from ..tables import SessionTable as BlockingTable
from .desk import Desk, documented_by
from .given import as_json


@documented_by(BlockingTable)
class SessionTable:
    """A table of one session; got from `SessionManager.table`.

    What its verbs do, and what they raise, is as for `session_fsm.SessionTable`. Cancelling one
    leaves the table as it was before it or as it is after it.

    Attributes:
        session_id: The session.
        name: The table; it need not be made, and is there while it has items.

    Threads: none but that of the manager's loop.
    """

    def __init__(self, desk: Desk, inner: BlockingTable) -> None:
        self._desk = desk
        self._inner = inner
        self.session_id = inner.session_id
        self.name = inner.name

    async def get(self, key: str) -> Any:
        return await self._desk.do(self._inner.get, key)

    async def find(self, key: str) -> Item | None:
        return await self._desk.do(self._inner.find, key)

    async def items(self, *, limit: int = 100, after: str | None = None) -> ItemPage:
        return await self._desk.do(self._inner.items, limit=limit, after=after)

    async def put(
        self,
        key: str,
        value: Any,
        *,
        expected_version: int | None = None,
        ttl_seconds: float | None = None,
    ) -> Item:
        return await self._desk.do(
            self._inner.put,
            key,
            as_json(value),
            expected_version=expected_version,
            ttl_seconds=ttl_seconds,
        )

    async def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        return await self._desk.do(self._inner.delete, key, expected_version=expected_version)

    async def clear(self) -> int:
        return await self._desk.do(self._inner.clear)

    def __repr__(self) -> str:
        return repr(self._inner)
