"""The promises of the store on PostgreSQL, each with what takes it away from one store.

Nothing here is of use but to see what a promise costs: a store without one is a store of ours in
which the database, or the text of the statements, was changed behind its back, once its sessions
were there. The statements of a move keep their parameters, so that the library sends the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final
from urllib.parse import quote

import attrs
import psycopg

from session_fsm import SessionManager
from session_fsm.stores import postgres_group
from session_fsm.stores.postgres import PostgresStore
from session_fsm.stores.postgres_commit import _APPEND
from session_fsm.stores.postgres_hints import Hints
from session_fsm.stores.postgres_sql import LIVES, Sql

from .postgres_subjects import noted
from .subjects import there_and_back

LEASE_SECONDS: Final = 3600.0
"""No heartbeat, and nothing that follows from one, falls into a turn: these are measured apart."""


@attrs.frozen(kw_only=True)
class Promise:
    """What a store holds to, and how it is kept from that.

    Attributes:
        name: What it is called.
        statements: Executed in the database.
        replaced: Texts within the statements of a commit, and what takes the place of each.
        options: Of the connections.
        hushed: Whether nobody is told of commits.
    """

    name: str
    statements: Sequence[str] = ()
    replaced: Sequence[tuple[str, str]] = ()
    options: str = ""
    hushed: bool = False


def _rules_with(before: str, after: str) -> str:
    """Return what has the rules of sessions made anew, with another text in them."""
    return (
        "DO $do$ BEGIN EXECUTE replace(pg_get_functiondef('session_fsm.session_rules'::regproc),"
        f" $a${before}$a$, $b${after}$b$); END $do$"
    )


_COUNTED: Final = """
        INSERT INTO "session_fsm".session_count (lifecycle, status, sessions)
        VALUES (OLD.lifecycle, OLD.status, -1), (NEW.lifecycle, NEW.status, 1);"""
# Ids, tokens and revisions are still looked at: the same function counts what moves.
RULES: Final = Promise(
    name="legal moves and final statuses, held by the database",
    statements=(_rules_with("IF EXISTS (", "IF true OR EXISTS ("),),
)
COUNTS: Final = Promise(
    name="counts in constant time",
    statements=(
        "DROP TRIGGER session_counted ON session_fsm.session",
        _rules_with(_COUNTED, ""),
    ),
)
DOCUMENTS: Final = Promise(
    name="JSONB documents of states and events",
    statements=(
        "ALTER TABLE session_fsm.session DROP COLUMN document",
        "ALTER TABLE session_fsm.session_event DROP COLUMN document",
        "ALTER TABLE session_fsm.session_checkpoint DROP COLUMN document",
    ),
)
INDEXES: Final = Promise(
    name="pages, deadlines and ends by index",
    statements=tuple(
        f"DROP INDEX session_fsm.session_by_{each}" for each in ("status", "deadline", "end")
    ),
)
FEED: Final = Promise(
    name="events without a position by index",
    statements=("DROP INDEX session_fsm.session_event_to_number",),
)
FENCING: Final = Promise(
    name="fencing: lease and token in each statement",
    replaced=(
        ("token = %s::bigint AND", "%s::bigint IS NOT NULL AND"),
        (LIVES, "%s::text IS NOT NULL"),
        *((condition, "true") for condition in postgres_group.FENCED),
    ),
)
HISTORY: Final = Promise(
    name="history: an event for each step",
    replaced=(
        (
            _APPEND,
            ", appended AS (SELECT %s::bigint, %s::timestamptz, %s::bytea, %s::text, %s::text)",
        ),
        (postgres_group.APPENDED, ""),
    ),
)
HINTS: Final = Promise(name="hints to other processes: NOTIFY", hushed=True)
DURABILITY: Final = Promise(
    name="durability: a move is on disk when it returns", options="-c synchronous_commit=off"
)
PROMISES: Final = (
    RULES, COUNTS, DOCUMENTS, INDEXES, FEED, FENCING, HISTORY, HINTS, DURABILITY,
)  # fmt: skip

AS_IT_IS: Final = "the store as it is"
ANOTHER: Final = "another store as it is"
ALL: Final = "all of these but durability"
VARIANTS: Final[Mapping[str, tuple[Promise, ...]]] = {
    AS_IT_IS: (),
    **{each.name: (each,) for each in PROMISES},
    ALL: PROMISES[:-1],
    ANOTHER: (),
}
"""What each store lacks; the last one shows how far figures differ that should be the same."""


def lacking(beginnings: Sequence[str] | None) -> Mapping[str, tuple[Promise, ...]]:
    """Return the stores that are asked for, each by the beginning of the name of what it lacks.

    Args:
        beginnings: Of the names; None: all. None at all: no store.
    """
    if beginnings is None:
        return VARIANTS
    wanted = {
        name: lacks
        for name, lacks in VARIANTS.items()
        if any(name.startswith(each) for each in beginnings)
    }
    return {AS_IT_IS: (), **wanted} if wanted else {}


class _Replaced(Sql):
    """The statements of a schema, with other texts in them."""

    __slots__ = ()

    def __init__(self, schema: str, replaced: Sequence[tuple[str, str]]) -> None:
        super().__init__(schema)
        formatted: Callable[[str], bytes] = self._formatted

        def other(text: str) -> bytes:
            for mine, instead in replaced:
                text = text.replace(mine, instead)
            made: bytes = formatted(text)
            return made

        self._formatted = cache(other)  # as ours, so that a look-up costs the same


class _Hushed(Hints):
    """Hints that are not given."""

    def committed(self) -> None:
        """Tell nobody."""


class Lacking:
    """A store with sessions, without some promises.

    Args:
        url: Of a database that is empty.
        lacks: The promises that it does not hold to.
        callers: How many sessions it has.

    Attributes:
        connections: Those that were made when it was opened, some of which may be closed.
        store: The store.
        manager: A manager of it.
        ids: The ids of its sessions.
        moves: What moves each of them.
    """

    def __init__(self, url: str, lacks: Sequence[Promise] = (), *, callers: int = 1) -> None:
        options = " ".join(each.options for each in lacks if each.options)
        if options:
            url = f"{url}{'&' if '?' in url else '?'}options={quote(options)}"
        with noted() as self.connections:
            self.store = PostgresStore(url, lease_seconds=LEASE_SECONDS)
        self.manager = SessionManager(self.store)
        self.ids = [f"caller-{number:03}" for number in range(callers)]
        for session_id in self.ids:
            self.manager.create(session_id)
        # Only now: a session is created in two steps, the second of which asks for the first one's
        # event.
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (each for promise in lacks for each in promise.statements):
                connection.execute(statement.encode())
        if replaced := [each for promise in lacks for each in promise.replaced]:
            self.store._sql = _Replaced(self.store._sql.schema, replaced)
        if any(each.hushed for each in lacks):
            self.store._hints.close()
            self.store._hints = _Hushed(self.store._hinting)
        self.moves = [there_and_back(self.manager, each) for each in self.ids]

    def close(self) -> None:
        """Close the manager and the store."""
        self.manager.close()
        self.store.close()
