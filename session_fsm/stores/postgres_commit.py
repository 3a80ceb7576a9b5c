"""What a commit says to a PostgreSQL server: one statement for each step, and each on a condition.

A step changes the session, appends its event, and moves work, in one statement; it does nothing at
all unless the session is at the expected revision, the owner lives by the server's clock, and the
token, if one is stated, is the session's. The token and the revision are those of the moment of the
change; the owner lives as of the moment at which the server begins with the statement, so that one
that waits for a lock may land later than that, by the time-out of a statement at most, unless its
session was moved or has a new owner by then. A commit that lost needs no undoing, so that commits
of many sessions go to the server together; and one that is sent twice lands once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from psycopg.types.numeric import Int8

from ..errors import (
    FencedError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from ..lifecycle import Lifecycle
from ..serialization import dumps
from ..state import SessionState
from .postgres_arrays import Value, instant, integer
from .postgres_links import Connection
from .postgres_sql import LIVES, PATIENCE, PATIENT, Sql
from .postgres_tokens import TAKEN, Token
from .records import OWNING, Commit, StoredStep, Work, carried_over, ended_at

_CREATE: Final = (
    "moved AS (INSERT INTO {s}.session AS session (status, deadline_at, ended_at, state,"  # noqa: S608
    " digest, recovery, lifecycle, session_id, revision, owner_id, token)"
    " SELECT %s::text, %s::timestamptz, %s::timestamptz, %s::bytea, %s::text, %s::text, %s::text,"
    " %s::text, %s::bigint, {owner} WHERE COALESCE((SELECT revision FROM {s}.session_event"
    " WHERE session_id = %s::text ORDER BY revision DESC LIMIT 1), 0) = %s::bigint AND "
    f"{LIVES} AND {PATIENT}"
    " ON CONFLICT (session_id) DO NOTHING RETURNING session_id, token, owner_id, taken_at)"
)
_MOVE: Final = (
    "moved AS (UPDATE {s}.session SET status = %s::text, deadline_at = %s::timestamptz,"  # noqa: S608 - constants
    " ended_at = %s::timestamptz, state = %s::bytea, digest = %s::text, recovery = %s::text,"
    " revision = revision + 1{owner}"
    " WHERE session_id = %s::text AND revision = %s::bigint AND {when}"
    f" AND {PATIENT}"
    " RETURNING session_id, token, owner_id, taken_at)"
)
_FIRST: Final = LIVES
_FENCED: Final = f"token = %s::bigint AND {LIVES}"
# Nobody else can have come between two steps; but the first of them may not have been made.
_NEXT: Final = (
    "EXISTS (SELECT 1 FROM {s}.session_event WHERE session_id = %s::text"
    " AND revision = %s::bigint AND operation_id = %s::text)"
)
_APPEND: Final = (
    ", appended AS (INSERT INTO {s}.session_event"
    " (session_id, revision, at, body, digest, operation_id)"
    " SELECT session_id, %s::bigint, %s::timestamptz, %s::bytea, %s::text, %s::text FROM moved)"
)
_RELEASE: Final = (
    ", released AS (DELETE FROM {s}.work USING moved WHERE work.session_id = moved.session_id"
    " AND (kind, item) IN (SELECT * FROM unnest(%s::text[], %s::text[])))"
)
_CLAIM: Final = (
    ", claimed AS (INSERT INTO {s}.work (session_id, kind, item, owner_id, stop)"
    " SELECT moved.session_id, claim.kind, claim.item, %s::text, claim.stop"
    " FROM moved, unnest(%s::text[], %s::text[], %s::boolean[]) AS claim (kind, item, stop)"
    " ON CONFLICT (session_id, kind, item)"
    " DO UPDATE SET owner_id = excluded.owner_id, stop = excluded.stop)"
)
_STOP: Final = (
    ", stopped AS (UPDATE {s}.work SET stop = true FROM moved"
    " WHERE work.session_id = moved.session_id AND work.kind = 'worker')"
)
_TELL: Final = f" SELECT token, owner_id, {TAKEN} FROM moved"  # noqa: S608 - constants
# The token grows with each change of hands, not with what the owner itself takes up besides.
_TAKES: Final = (
    ", token = token + CASE WHEN owner_id IS NOT DISTINCT FROM %s::text THEN 0 ELSE 1 END,"
    " owner_id = %s::text"
)
_LETS_GO: Final = (
    ", owner_id = CASE WHEN EXISTS (SELECT 1 FROM {s}.work AS kept"
    " WHERE kept.session_id = session.session_id AND kept.kind = ANY(%s::text[]))"
    " THEN owner_id END"
)
_REASON: Final = (
    f"SELECT session.revision, session.token, session.owner_id, {TAKEN},"  # noqa: S608 - constants
    " COALESCE((SELECT revision FROM {s}.session_event"
    " WHERE session_id = %s::text ORDER BY revision DESC LIMIT 1), 0), "
    + LIVES
    + " FROM (SELECT 1) AS one LEFT JOIN {s}.session ON session_id = %s::text"
)
_LANDED: Final = (
    f"SELECT session.token, session.owner_id, {TAKEN}"  # noqa: S608 - constants
    " FROM {s}.session_event AS event LEFT JOIN {s}.session USING (session_id)"
    " WHERE event.session_id = %s::text AND event.operation_id = %s::text LIMIT 1"
)
# Where a later event is there, the last one of a commit was, be it of another in its place.
_FORGOTTEN: Final = (
    "SELECT NOT EXISTS (SELECT 1 FROM {s}.session_event"
    " WHERE session_id = %(id)s::text AND revision = %(revision)s::bigint)"
    " AND EXISTS (SELECT 1 FROM {s}.session_event"
    " WHERE session_id = %(id)s::text AND revision > %(revision)s::bigint)"
)

MOVE_COLUMNS: Final = (
    ("session_id", "text"),
    ("expected", "int8"),
    ("token", "int8"),
    ("owner_id", "text"),
    ("status", "text"),
    ("deadline_at", "timestamptz"),
    ("ended_at", "timestamptz"),
    ("state", "bytea"),
    ("recovery", "text"),
    ("at", "timestamptz"),
    ("body", "bytea"),
    ("digest", "text"),
    ("operation_id", "text"),
)
"""What a statement is told of each of the commits that only move their sessions."""

Statement = tuple[bytes, list[Any]]
Row = tuple[Any, ...]
"""The token of a session, its owner, and when it was taken over last."""


class GoneError(Exception):
    """A commit was refused for a reason that is gone: it is to be made again."""


@lru_cache(maxsize=256)
def _step_text(verb: str, owner: str, when: str, work: str) -> str:
    head = verb.replace("{owner}", owner).replace("{when}", when)
    return f"WITH {PATIENCE}, {head}{_APPEND}{work}{_TELL}"


class PreparedCommit:
    """A commit as the server is told of it.

    Args:
        commit: The commit.
        lifecycle: The lifecycle of the session.
        sql: Formats statements.
        token: What its owner states; None: it does not own the session.
        before: What is done in the same transaction before the first step, with the connection;
            None: nothing. It may raise, and is then undone.

    Attributes:
        commit: The commit.
        before: See there.
        only_moves: Whether it moves its session by one step, and does nothing else.
        size: The bytes of the state and the event of `moved`, once that was made.
        sql: Formats its statements.
        stated: The token that it states; None: it states none.
        token: The token of the session once it was made; None: its owner does not own it then.
        gave_up: Whether it was refused because the token that it states is none of the session's
            any longer, though nobody has taken that from its owner; or there is no session.
    """

    __slots__ = (
        "_lifecycle",
        "_moved",
        "_statements",
        "before",
        "commit",
        "gave_up",
        "only_moves",
        "size",
        "sql",
        "stated",
        "token",
    )

    def __init__(
        self,
        commit: Commit,
        lifecycle: Lifecycle,
        sql: Sql,
        *,
        token: Token | None = None,
        before: Callable[[Connection], None] | None = None,
    ) -> None:
        self.commit = commit
        self.before = before
        self.token: Token | None = None
        self.gave_up = False
        self.sql = sql
        self.size = 0
        self.only_moves = self.is_one_statement and not (
            commit.creates or commit.claims or commit.releases or commit.stops_worker
        )
        self._lifecycle = lifecycle
        self.stated = token
        self._moved: tuple[Value, ...] | None = None
        self._statements: list[Statement] | None = None

    def encode(self) -> None:
        """Make what is sent where it goes to the server together with others.

        Raises:
            StateInvalidError: A state can't be written.
            UnicodeError: A text can't be.
        """
        if self.only_moves:
            self._moved = self._as_row()
        else:
            self._statements = self._made()

    def statements(self, lock_timeout: str | None = None) -> list[Statement]:
        """Return what is sent, where it is sent by itself: a statement for each step, in order.

        Each returns a `Row` if it did anything. Errors as `encode`.

        Args:
            lock_timeout: How many milliseconds it waits for a lock; None: as the role does.
        """
        if self._statements is None:
            self._statements = self._made()
        return [(text, [lock_timeout, *told]) for text, told in self._statements]

    def _made(self) -> list[Statement]:
        last = len(self.commit.steps) - 1
        return [
            self._statement(number, step, is_last=number == last)
            for number, step in enumerate(self.commit.steps)
        ]

    @property
    def operation_id(self) -> str:
        """That of the commit."""
        return self.commit.operation_id

    @property
    def is_one_statement(self) -> bool:
        """Whether it needs no transaction around it."""
        return self.before is None and len(self.commit.steps) == 1

    @property
    def moved(self) -> tuple[Value, ...]:
        """What `MOVE_COLUMNS` names, where it only moves its session. Errors as `encode`."""
        if self._moved is None:
            self._moved = self._as_row()
        return self._moved

    def _as_row(self) -> tuple[Value, ...]:
        commit, token = self.commit, self.stated
        [step] = commit.steps
        ended, event = ended_at(step.state, self._lifecycle), step.sealed.event
        state, body = dumps(step.state, self._lifecycle), step.sealed.body
        self.size = len(state) + len(body)
        return (
            commit.session_id.encode(),
            integer(commit.expected_revision),
            None if token is None else integer(token.number),
            commit.owner_id.encode(),
            str(step.state.status).encode(),
            None if step.deadline_at is None else instant(step.deadline_at),
            None if ended is None else instant(ended),
            state,
            recovery_of(step.state).encode(),
            instant(event.at),
            body,
            event.digest.encode(),
            commit.operation_id.encode(),
        )

    @property
    def owns(self) -> bool:
        """Whether its owner owns the session once it was made."""
        return any(work.kind in OWNING for work in self.commit.claims)

    @property
    def lets_go(self) -> bool:
        """Whether whoever owned the session may own it no longer."""
        return not self.owns and any(work.kind in OWNING for work in self.commit.releases)

    def _statement(self, number: int, step: StoredStep, *, is_last: bool) -> Statement:
        commit = self.commit
        state, event = step.state, step.sealed.event
        session_id, revision = commit.session_id, Int8(commit.expected_revision + number)
        work, moved = self._work() if is_last else ("", [])
        row: list[Any] = [
            str(state.status),
            step.deadline_at,
            ended_at(state, self._lifecycle),
            dumps(state, self._lifecycle),
            event.digest,
            recovery_of(state),
        ]
        if commit.creates and number == 0:
            verb, when = _CREATE, ""
            owns = is_last and self.owns
            owner = "%s::text, 1" if owns else "NULL, 0"
            row += [self._lifecycle.name, session_id, Int8(revision + 1)]
            row += [commit.owner_id] if owns else []
            row += [session_id, revision, commit.owner_id]
        else:
            verb = _MOVE
            owner, holders = self._owner() if is_last else ("", [])
            row += [*holders, session_id, revision]
            if number:
                when = _NEXT
                row += [session_id, revision, commit.operation_id]
            elif self.stated is None:
                when = _FIRST
                row.append(commit.owner_id)
            else:
                when = _FENCED
                row += [Int8(self.stated.number), commit.owner_id]
        row += [Int8(revision + 1), event.at, step.sealed.body, event.digest, commit.operation_id]
        return self.sql(_step_text(verb, owner, when, work)), [*row, *moved]

    def _owner(self) -> tuple[str, list[Any]]:
        if self.owns:
            return _TAKES, [self.commit.owner_id] * 2
        if self.lets_go:
            gone = {work.kind for work in self.commit.releases}
            return _LETS_GO, [[kind for kind in OWNING if kind not in gone]]
        return "", []

    def _work(self) -> tuple[str, list[Any]]:
        """Return what moves work, each piece once: one statement can't change a row twice."""
        commit = self.commit
        if not (commit.claims or commit.releases or commit.stops_worker):
            return "", []
        claims = list(dict.fromkeys(commit.claims))
        gone = [work for work in dict.fromkeys(commit.releases) if work not in claims]
        text, row = "", []
        if gone:
            text += _RELEASE
            row += [[work.kind for work in gone], [work.item for work in gone]]
        if claims:
            text += _CLAIM
            stops = [commit.stops_worker and work.kind == "worker" for work in claims]
            row += [commit.owner_id, [work.kind for work in claims]]
            row += [[work.item for work in claims], stops]
        if commit.stops_worker and not {Work("worker")} & {*claims, *gone}:
            text += _STOP
        return text, row

    # --- afterwards -----------------------------------------------------------------------

    def find_landed(self, link: Connection) -> bool:
        """Tell whether it has landed already; asked where an answer was lost."""
        commit = self.commit
        place = (commit.session_id, commit.operation_id)
        row: tuple[Any, ...] | None = link.execute(self.sql(_LANDED), place).fetchone()
        if row is None:
            return False
        self.note(row)
        return True

    def is_forgotten(self, link: Connection) -> bool:
        """Tell whether nobody can say any longer whether it has landed.

        A checkpoint, or what is left of a session that was removed, stands for it then, or for
        another one in its place.
        """
        revision = self.commit.expected_revision + len(self.commit.steps)
        place = {"id": self.commit.session_id, "revision": revision}
        return link.execute(self.sql(_FORGOTTEN), place).fetchone() == (True,)

    def note(self, row: tuple[Any, ...]) -> None:
        """Keep what the last of the statements returned."""
        number, owner_id, taken = row
        self.token = Token(number, taken) if owner_id == self.commit.owner_id else None

    def apply(self, link: Connection) -> None:
        """Make it, in a transaction that is open, on its own.

        Raises:
            SessionExistsError: It creates a session, and there is one.
            SessionNotFoundError: It moves a session that is not there.
            RevisionConflictError: The stored revision is not the expected one.
            FencedError: Its owner does not live, or owns the session no longer.
            ItemConflictError: An item is not at the version that a write expects.
            GoneError: It could not be made, and the reason is gone already.
        """
        if self.before is not None:
            self.before(link)
        for statement in self.statements():
            row: tuple[Any, ...] | None = link.execute(*statement).fetchone()
            if row is None:
                raise self.reason(link) or GoneError
            self.note(row)

    def reason(self, link: Connection) -> Exception | None:
        """Return why it did nothing; None if whatever it was is gone."""
        commit, session_id = self.commit, self.commit.session_id
        row = link.execute(self.sql(_REASON), (session_id, commit.owner_id, session_id)).fetchone()
        assert row is not None
        revision, number, found_owner, taken, tail, lives = row
        expected = commit.expected_revision
        if not lives:
            return FencedError(session_id=session_id, owner_id=commit.owner_id)
        if commit.creates:
            if revision is not None:
                return SessionExistsError(session_id=session_id)
            found = tail
            if (origin := carried_over(commit, found)) is not None:
                found = origin.event.revision
        elif revision is None:
            self.gave_up = True
            return SessionNotFoundError(session_id=session_id)
        else:
            found = revision
        if found != expected:
            return RevisionConflictError(session_id=session_id, expected=expected, found=found)
        if self.stated is not None and number != self.stated.number:
            found_token = Token(number, taken)
            self.gave_up = self.stated.is_given_up(commit.owner_id, found_token, found_owner)
            return FencedError(session_id=session_id, owner_id=commit.owner_id)
        return None


def recovery_of(state: SessionState) -> str:
    """Return what is to become of a session whose owner died."""
    return str(state.config.recovery)
