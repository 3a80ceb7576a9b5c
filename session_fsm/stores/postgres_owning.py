"""The part of the PostgreSQL store that knows who answers for what, and with which token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final

from ..errors import FencedError, StoreUnavailableError
from .postgres_connection import Connections
from .postgres_leases import Leases
from .postgres_links import Connection
from .postgres_reading import PostgresReading
from .postgres_retrying import never
from .postgres_sql import HOLD, LIVES, Sql, known
from .postgres_takeover import (
    KINDS,
    TakeOver,
    forget_the_dead,
    give_back,
    left_by_the_dead,
)
from .records import OWNING, Abandoned, Taken, Work

_WORK: Final = "SELECT kind, item FROM {s}.work WHERE session_id = %s::text ORDER BY kind, item"
_WORK_OF: Final = (
    "SELECT kind, item FROM {s}.work WHERE session_id = %s::text AND owner_id = %s::text"
    " ORDER BY kind, item"
)
_TO_STOP: Final = (
    "SELECT session_id FROM {s}.work WHERE owner_id = %s::text AND stop ORDER BY session_id"
)
_ALIVE: Final = f"SELECT {LIVES}"
_RELEASE: Final = (
    "DELETE FROM {s}.work WHERE session_id = %s::text AND owner_id = %s::text"
    " AND (kind, item) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
)
_DISOWN: Final = (
    "UPDATE {s}.session SET owner_id = NULL WHERE session_id = %s::text AND owner_id = %s::text"
    " AND NOT EXISTS (SELECT 1 FROM {s}.work WHERE work.session_id = session.session_id"
    " AND kind = ANY(%s::text[]) AND work.owner_id = session.owner_id)"
)
_TOKEN: Final = "SELECT token FROM {s}.session WHERE session_id = %s::text"  # noqa: S105 - SQL


class Tokens:
    """The tokens of the sessions that owners of this process have.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def of(self, owner_id: str, session_id: str) -> int | None:
        """Return the token that an owner states of a session; None if it does not own it."""
        found = self._of.get(session_id)
        return None if found is None else found.get(owner_id)

    def stated(self, session_id: str, owner_id: str | None = None) -> tuple[int, ...]:
        """Return the tokens that are stated of a session, by one owner or by any; may be empty."""
        found = self._of.get(session_id, {})
        return tuple(token for each, token in found.items() if owner_id in (None, each))

    def keep(self, owner_id: str, session_id: str, token: int | None) -> None:
        """Keep the token of an owner; None: it does not own the session any longer."""
        if token is None and session_id not in self._of:
            return
        with self._lock:
            # Always another dict: who reads one meanwhile has it as it was.
            kept = dict(self._of.get(session_id, {}))
            if token is None:
                kept.pop(owner_id, None)
            else:
                kept[owner_id] = token
            if kept:
                self._of[session_id] = kept
            else:
                self._of.pop(session_id, None)

    def forget(self, owner_id: str) -> None:
        """Keep nothing of an owner any longer."""
        for session_id in [each for each, some in list(self._of.items()) if owner_id in some]:
            self.keep(owner_id, session_id, None)

    def copy(self) -> Tokens:
        """Return what is kept now, as another one."""
        other = Tokens()
        other._of = dict(self._of)
        return other


class PostgresOwning(PostgresReading):
    """The methods of the PostgreSQL store that are about work and its owners."""

    _connections: Connections
    _sql: Sql
    _leases: Leases
    _tokens: Tokens
    _doubtful: list[tuple[str, tuple[Taken, ...], dict[str, int]]]

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        self._leases.enlist(owner_id, lapsed)

    def dismiss(self, owner_id: str) -> None:
        self._leases.dismiss(owner_id)
        self._tokens.forget(owner_id)

    def is_alive(self, owner_id: str) -> bool:
        [(alive,)] = self._connections.outside_batch(
            lambda link: link.execute(self._sql(_ALIVE), (known(owner_id),)).fetchall()
        )
        return bool(alive)

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        rows = self._rows(_WORK, (known(session_id),))
        return tuple(Work(KINDS[kind], item) for kind, item in rows)

    def work_of(self, session_id: str, owner_id: str) -> tuple[Work, ...]:
        rows = self._rows(_WORK_OF, (known(session_id), known(owner_id)))
        return tuple(Work(KINDS[kind], item) for kind, item in rows)

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        whose = None if session_id is None else known(session_id)
        return self._connections.read(
            lambda link: left_by_the_dead(link, self._sql, self.lifecycle.name, whose)
        )

    def take_over(
        self, owner_id: str, limit: int, *, restarting: bool, passing_over: Collection[str] = ()
    ) -> tuple[Taken, ...]:
        self._leases.check(owner_id, "")
        if (settled := self._settled(owner_id)) is not None:
            return settled
        taking = TakeOver(
            self._sql,
            self.lifecycle.name,
            owner_id,
            restarting=restarting,
            passing_over=passing_over,
        )
        result: tuple[tuple[Taken, ...], dict[str, int]] = ((), {})

        def take(link: Connection) -> tuple[Taken, ...]:
            nonlocal result
            if link.execute(self._sql(_ALIVE), (owner_id,)).fetchone() != (True,):
                raise FencedError(session_id="", owner_id=owner_id)
            result = taking.make(link, limit)
            return result[0]

        def landed(link: Connection) -> bool:
            return taking.has_landed(link, result[0])

        try:
            taken = self._connections.write(take, landed=landed)
        except StoreUnavailableError as fault:
            if fault.operation_id is not None and result[0]:
                self._doubtful.append((owner_id, *result))
            raise
        self._keep_tokens(owner_id, result[1])
        if not taken:
            self._connections.write(lambda link: forget_the_dead(link, self._sql), landed=never)
        return taken

    def _settled(self, owner_id: str) -> tuple[Taken, ...] | None:
        """Return what was taken before, if its answer was lost and it is known only now."""
        for each in [each for each in self._doubtful if each[0] == owner_id]:
            _, taken, tokens = each
            taking = TakeOver(self._sql, self.lifecycle.name, owner_id, restarting=True)
            landed = self._connections.outside_batch(partial(taking.has_landed, taken=taken))
            self._doubtful.remove(each)
            if landed:
                self._keep_tokens(owner_id, tokens)
                return taken
        return None

    def _keep_tokens(self, owner_id: str, tokens: dict[str, int]) -> None:
        for session_id, token in tokens.items():
            self._tokens.keep(owner_id, session_id, token)

    def give_back(self, taken: Taken) -> None:
        self._connections.write(lambda link: give_back(link, self._sql, taken), landed=never)
        self._tokens.keep(taken.holder_id, taken.session_id, None)

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        return tuple(each for (each,) in self._rows(_TO_STOP, (known(owner_id),)))

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        gone = list(work)
        told = (session_id, owner_id, [each.kind for each in gone], [each.item for each in gone])

        def let_go(link: Connection) -> None:
            link.execute(self._sql(HOLD), (session_id,))
            self._check_writer(link)
            if link.execute(self._sql(_RELEASE), told).rowcount:
                link.execute(self._sql(_DISOWN), (session_id, owner_id, list(OWNING)))

        if gone and known(session_id):
            self._connections.write(let_go, landed=never)
            if any(each.kind in OWNING for each in gone):
                self._tokens.keep(owner_id, session_id, None)

    def _check_writer(
        self, link: Connection, session_id: str | None = None, owner_id: str | None = None
    ) -> None:
        """Accept this store as one that may write, in the transaction that writes.

        Args:
            link: In that transaction, which has locked the session: so nobody takes it over between
                this and what is written.
            session_id: What is written to; None: nothing that belongs to one session.
            owner_id: In whose name; None: in that of any owner of this store.

        Raises:
            FencedError: It has owners, and none of them lives, or not this one; or one of them
                owned the session, and another one has taken it over.
        """
        self._leases.fence(link, session_id or "", owner_id)
        if session_id is not None and (stated := self._tokens.stated(session_id, owner_id)):
            row = link.execute(self._sql(_TOKEN), (session_id,)).fetchone()
            if row is not None and row[0] not in stated:
                raise FencedError(session_id=session_id, owner_id=owner_id)
