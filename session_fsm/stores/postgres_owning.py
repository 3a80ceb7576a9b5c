"""The part of the PostgreSQL store that knows who answers for what, and with which token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final

import attrs

from ..errors import FencedError, StoreUnavailableError
from .postgres_connection import Connections
from .postgres_doubts import KINDS, Doubts, TakenOver
from .postgres_leases import Leases
from .postgres_links import Connection
from .postgres_reading import PostgresReading
from .postgres_retrying import never
from .postgres_sql import HOLD, LIVES, Sql, known
from .postgres_takeover import TakeOver, forget_the_dead, give_back, left_by_the_dead
from .postgres_tokens import TAKEN, Token, Tokens
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
TENDED_TOKENS: Final = 1000
"""Most tokens that are looked at each time that nothing is left to be taken over."""
_TOKENS: Final = (
    f"SELECT session_id, token, {TAKEN}, owner_id FROM {{s}}.session"  # noqa: S608 - constants
    " WHERE session_id = ANY(%s::text[])"
)
_TOKEN: Final = f"SELECT token, {TAKEN}, owner_id FROM {{s}}.session WHERE session_id = %s::text"  # noqa: S608 - constants


class PostgresOwning(PostgresReading):
    """The methods of the PostgreSQL store that are about work and its owners."""

    _connections: Connections
    _sql: Sql
    _leases: Leases
    _tokens: Tokens
    _doubts: Doubts

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        self._leases.enlist(owner_id, lapsed)

    def dismiss(self, owner_id: str) -> None:
        self._leases.dismiss(owner_id)
        self._tokens.forget(owner_id)
        self._doubts.dismiss(owner_id)

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
        if settled := self._settled(owner_id):
            return settled
        taking = TakeOver(
            self._sql,
            self.lifecycle.name,
            owner_id,
            restarting=restarting,
            passing_over=passing_over,
        )
        made = TakenOver()

        def take(link: Connection) -> None:
            nonlocal made
            if link.execute(self._sql(_ALIVE), (owner_id,)).fetchone() != (True,):
                raise FencedError(session_id="", owner_id=owner_id)
            made = taking.make(link, limit)

        def landed(link: Connection) -> bool:
            nonlocal made
            standing = made.standing(link, self._sql)
            made = standing or made
            return standing is not None

        try:
            self._connections.write(take, landed=landed)
        except StoreUnavailableError as fault:
            if fault.operation_id is not None and made.taken:
                self._doubts.add(made)
            raise
        self._keep(made)
        if not made.taken:
            notes = self._doubts.answered
            self._connections.write(
                lambda link: forget_the_dead(link, self._sql, notes), landed=never
            )
            self._doubts.forget(notes)
            self._tend_tokens()
        return made.taken

    def _settled(self, owner_id: str) -> tuple[Taken, ...]:
        """Return what was taken before, as far as it stands, if that is known only now."""
        # Whoever asks has it alone: another thread that takes over goes on to what is left.
        while (doubt := self._doubts.take(owner_id)) is not None:
            try:
                standing = self._connections.outside_batch(partial(doubt.standing, sql=self._sql))
            except BaseException:
                self._doubts.add(doubt)
                raise
            self._keep(standing or attrs.evolve(doubt, taken=(), tokens={}))
            if standing is not None and standing.taken:
                return standing.taken
        return ()

    def _keep(self, made: TakenOver) -> None:
        self._doubts.answer(made)
        for session_id, token in made.tokens.items():
            self._tokens.keep(made.owner_id, session_id, token)

    def _tend_tokens(self) -> None:
        """Let go of tokens of sessions that are gone, or whose work others have let go of."""
        kept = self._tokens.some(TENDED_TOKENS)
        if not kept:
            return
        ids = sorted({session_id for _, session_id, _ in kept})
        rows = self._connections.outside_batch(
            lambda link: link.execute(self._sql(_TOKENS), (ids,)).fetchall()
        )
        found = {session_id: (Token(*token), whose) for session_id, *token, whose in rows}
        for owner_id, session_id, token in kept:
            stored, whose = found.get(session_id, (None, None))
            if (
                self._leases.lapsed(owner_id)
                or stored is None
                or token.is_given_up(owner_id, stored, whose)
                or (token.number == stored.number and whose != owner_id)
            ):
                self._tokens.drop(owner_id, session_id, token)

    def give_back(self, taken: Taken) -> None:
        self._connections.write(lambda link: give_back(link, self._sql, taken), landed=never)
        # Of a task alone, whoever gives it back may own the session all the same.
        if any(work.kind in OWNING for work in taken.work):
            self._tokens.keep(taken.holder_id, taken.session_id, None)

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        return tuple(each for (each,) in self._rows(_TO_STOP, (known(owner_id),)))

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        gone = list(work)
        told = (session_id, owner_id, [each.kind for each in gone], [each.item for each in gone])

        owning = any(each.kind in OWNING for each in gone)

        def let_go(link: Connection) -> bool:
            link.execute(self._sql(HOLD), (session_id,))
            self._check_writer(link)
            if link.execute(self._sql(_RELEASE), told).rowcount:
                link.execute(self._sql(_DISOWN), (session_id, owner_id, list(OWNING)))
            row = link.execute(self._sql(_TOKEN), (session_id,)).fetchone() if owning else None
            return row is None or row[2] != owner_id

        if gone and known(session_id):
            disowned = self._connections.write(let_go, landed=never)
            if owning and disowned:
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
                owned the session, and another one has taken it over. An owner that owns it no
                longer, because others have let go of it, is told so once.
        """
        self._leases.fence(link, session_id or "", owner_id)
        if session_id is None:
            return
        stated = self._tokens.stated(session_id, owner_id)
        # One that has lapsed writes nothing, and does not answer for whoever came after it.
        living = {each: token for each, token in stated.items() if not self._leases.lapsed(each)}
        if not living:
            return
        row = link.execute(self._sql(_TOKEN), (session_id,)).fetchone()
        found, found_owner = (None, None) if row is None else (Token(row[0], row[1]), row[2])
        old = {
            each: token
            for each, token in living.items()
            if found is None or token.is_given_up(each, found, found_owner)
        }
        for each, token in old.items():
            self._tokens.drop(each, session_id, token)
        if found is None or any(found.number == token.number for token in living.values()):
            return
        if owner_id is not None or len(old) < len(living):
            raise FencedError(session_id=session_id, owner_id=owner_id)
