"""Take-overs whose answer was lost: whether they have landed, and what still stands of them.

Each writes a note of its own in its transaction; by that it is known, whatever others have made of
the work since.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import Any, Final

import attrs

from .postgres_links import Connection
from .postgres_sql import Sql
from .postgres_tokens import TAKEN, Token
from .records import OWNING, Commit, Taken, Work, WorkKind

KINDS: Final[dict[str, WorkKind]] = {
    "task": "task",
    "start": "start",
    "stop": "stop",
    "worker": "worker",
}
NOTES: Final = "taken/"
"""Names of notes begin so."""

# Where whoever took them is not done yet, this waits until it is known what came of that.
_AWAIT: Final = (
    "SELECT 1 FROM {s}.session WHERE session_id = ANY(%s::text[]) ORDER BY session_id FOR UPDATE"
)
WORK: Final = (
    "SELECT session_id, owner_id, kind, item FROM {s}.work"
    " WHERE session_id = ANY(%s::text[]) AND owner_id = ANY(%s::text[])"
    " ORDER BY session_id, owner_id, kind, item FOR UPDATE"
)
_IS_NOTED: Final = "SELECT 1 FROM {s}.mark WHERE name = %s::text"
_HANDS: Final = (
    f"SELECT session_id, token, {TAKEN} FROM {{s}}.session"  # noqa: S608 - constants
    " WHERE session_id = ANY(%s::text[]) AND owner_id = %s::text"
)


def by_session(
    rows: Iterable[tuple[Any, ...]],
) -> list[tuple[tuple[str, str], tuple[Work, ...]]]:
    """Return work by session and owner, from rows (session, owner, kind, item)."""
    found: dict[tuple[str, str], list[Work]] = {}
    for session_id, owner_id, kind, item in rows:
        found.setdefault((session_id, owner_id), []).append(Work(KINDS[kind], item))
    return [
        (key, tuple(sorted(work, key=lambda each: (each.kind, each.item))))
        for key, work in sorted(found.items())
    ]


@attrs.frozen(kw_only=True)
class TakenOver:
    """What one transaction has taken over, if it has landed.

    Attributes:
        operation_id: Tells whether it has.
        owner_id: Who took it.
        taken: What was taken, by session.
        tokens: The token of each session that has a new owner.
        revisions: Where each session was.
    """

    operation_id: str = ""
    owner_id: str = ""
    taken: tuple[Taken, ...] = ()
    tokens: dict[str, Token] = attrs.field(factory=dict)
    revisions: dict[str, int] = attrs.field(factory=dict)

    def standing(self, link: Connection, sql: Sql) -> TakenOver | None:
        """Return what still stands of it, which may be nothing; None if it has not landed.

        The transaction may still be committing: it has the sessions locked, and is waited for.
        """
        ids = sorted(self.revisions)
        link.execute(sql(_AWAIT), (ids,))
        if link.execute(sql(_IS_NOTED), (NOTES + self.operation_id,)).fetchone() is None:
            return None
        hands = link.execute(sql(_HANDS), (ids, self.owner_id)).fetchall()
        found = {session_id: Token(*token) for session_id, *token in hands}
        tokens = {each: token for each, token in self.tokens.items() if found.get(each) == token}
        left = by_session(link.execute(sql(WORK), (ids, [self.owner_id])))
        held = {(session_id, work) for (session_id, _), some in left for work in some}
        taken = (
            _only(each, [work for work in each.work if (each.session_id, work) in held], tokens)
            for each in self.taken
        )
        some = tuple(each for each in taken if each.work)
        return attrs.evolve(self, taken=some, tokens=tokens)

    def without_claims(self, commit: Commit) -> TakenOver:
        """Return it without the tasks that its owner is about to begin itself.

        Who has decided so has seen that what was taken is done.
        """
        session_id = commit.session_id
        seen = self.revisions.get(session_id)
        if commit.owner_id != self.owner_id or seen is None or commit.expected_revision < seen:
            return self
        begun = [work for work in commit.claims if work.kind not in OWNING]
        taken = tuple(
            attrs.evolve(each, work=tuple(work for work in each.work if work not in begun))
            if each.session_id == session_id
            else each
            for each in self.taken
        )
        return attrs.evolve(self, taken=taken)


def _only(taken: Taken, work: list[Work], owned: Collection[str]) -> Taken:
    """Return what was taken with this work alone, and of an owner's only where it is that still."""
    if taken.session_id not in owned:
        work = [each for each in work if each.kind not in OWNING]
    if any(each.kind in OWNING for each in work):
        return attrs.evolve(taken, work=tuple(work))
    return attrs.evolve(taken, work=tuple(work), attempts=0, last_taken_at=None)


class Doubts:
    """Take-overs of which nobody knows whether they have landed, and notes that can go.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._open: list[TakenOver] = []
        self._answered: list[str] = []
        self._lock = threading.Lock()

    def add(self, each: TakenOver) -> None:
        """Keep one."""
        with self._lock:
            self._open.append(each)

    def take(self, owner_id: str) -> TakenOver | None:
        """Return one of an owner, if there is any; it is not kept any longer."""
        with self._lock:
            for number, each in enumerate(self._open):
                if each.owner_id == owner_id:
                    return self._open.pop(number)
        return None

    def claimed(self, commit: Commit) -> None:
        """Take what an owner is about to begin itself for nothing that it took over."""
        if self._open and commit.claims:
            with self._lock:
                self._open = [each.without_claims(commit) for each in self._open]

    def answer(self, each: TakenOver) -> None:
        """Keep that it is known what became of one: its note can go."""
        if each.operation_id:
            with self._lock:
                self._answered.append(NOTES + each.operation_id)

    @property
    def answered(self) -> list[str]:
        """The notes that can go."""
        with self._lock:
            return list(self._answered)

    def forget(self, notes: Collection[str]) -> None:
        """Keep nothing of notes that are gone."""
        with self._lock:
            self._answered = [each for each in self._answered if each not in notes]

    def dismiss(self, owner_id: str) -> None:
        """Keep nothing of an owner that takes over nothing any longer."""
        with self._lock:
            self._open = [each for each in self._open if each.owner_id != owner_id]
