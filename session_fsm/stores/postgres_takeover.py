"""What dead owners left in a PostgreSQL store, and who makes it its own: each piece once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from ..clock import random_id
from .postgres_doubts import NOTES, WORK, TakenOver, by_session
from .postgres_links import Connection
from .postgres_sql import HOLD, Sql
from .postgres_tokens import TAKEN, Token
from .records import LATELY_SECONDS, OWNING, Abandoned, Taken, Work

# From owner to owner through the index: there are few of them, whatever they have to do.
_OWNERS: Final = (
    "WITH RECURSIVE each AS ("
    "(SELECT owner_id FROM {s}.work ORDER BY owner_id LIMIT 1)"
    " UNION ALL SELECT (SELECT work.owner_id FROM {s}.work WHERE work.owner_id > each.owner_id"
    " ORDER BY work.owner_id LIMIT 1) FROM each WHERE each.owner_id IS NOT NULL)"
    " SELECT each.owner_id FROM each WHERE each.owner_id IS NOT NULL AND NOT EXISTS (SELECT 1"
    " FROM {s}.owner WHERE owner.owner_id = each.owner_id"
    " AND owner.expires_at > clock_timestamp()) ORDER BY each.owner_id"
)
_DEAD_OF_ONE: Final = (
    "SELECT DISTINCT work.owner_id FROM {s}.work WHERE session_id = %s::text AND NOT EXISTS"
    " (SELECT 1 FROM {s}.owner WHERE owner.owner_id = work.owner_id"
    " AND owner.expires_at > clock_timestamp())"
)
_LEFT: Final = (
    "SELECT work.session_id, work.owner_id, work.kind, work.item FROM {s}.work"
    " JOIN {s}.session ON session.session_id = work.session_id"
    " WHERE work.owner_id = ANY(%(dead)s::text[]) AND session.lifecycle = %(lifecycle)s::text"
)
# A renewal that is being made is waited for, and none is made until this is done.
_STILL: Final = (
    "SELECT owner_id FROM {s}.owner WHERE owner_id = ANY(%s::text[])"
    " AND expires_at <= clock_timestamp() ORDER BY owner_id FOR SHARE"
)
_LIVING: Final = (
    "SELECT owner_id FROM {s}.owner WHERE owner_id = ANY(%s::text[])"
    " AND expires_at > clock_timestamp()"
)
# Whoever comes meanwhile passes over what is locked: so each has its own share. A session has a row
# for each piece of work, and counts once.
_PICK: Final = (
    "SELECT session.session_id, session.revision FROM"
    " (SELECT DISTINCT session_id FROM {s}.work WHERE owner_id = %(owner)s::text) AS left_in"
    " JOIN {s}.session ON session.session_id = left_in.session_id"
    " WHERE session.lifecycle = %(lifecycle)s::text"
    " AND session.session_id <> ALL(%(passing_over)s::text[])"
    " AND (%(restarting)s::boolean OR session.recovery <> 'restart' OR NOT EXISTS"
    " (SELECT 1 FROM {s}.work AS run WHERE run.session_id = session.session_id"
    " AND run.kind = 'worker' AND run.owner_id = ANY(%(dead)s::text[])))"
    " ORDER BY left_in.session_id LIMIT %(limit)s FOR UPDATE OF session SKIP LOCKED"
)
_MOVE: Final = (
    "UPDATE {s}.work SET owner_id = %s::text"
    " WHERE session_id = ANY(%s::text[]) AND owner_id = ANY(%s::text[])"
)
# Only what makes an owner changes hands with a new token, and is counted: a task may be one of a
# session that another node, which lives, runs.
_TAKE: Final = (
    "UPDATE {s}.session SET owner_id = %(taker)s::text, token = session.token + 1,"  # noqa: S608
    " attempts = CASE WHEN session.taken_at > clock_timestamp() - %(counted)s::interval"
    " THEN session.attempts + 1 ELSE 1 END, taken_at = clock_timestamp()"
    " FROM (SELECT session_id AS id, taken_at AS taken_before FROM {s}.session"
    " WHERE session_id = ANY(%(owned)s::text[])) AS before"
    f" WHERE session_id = id RETURNING session_id, session.token, {TAKEN}, session.attempts,"
    " taken_before AT TIME ZONE 'UTC'"
)
# Of the transaction itself, so that nothing that anybody did since can be taken for it.
_NOTE: Final = "INSERT INTO {s}.mark (name, body) VALUES (%s::text, %s::bytea)"
_GIVE_WORK: Final = (
    "UPDATE {s}.work SET owner_id = %s::text WHERE session_id = %s::text"
    " AND owner_id = %s::text AND (kind, item) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
)
_GIVE_SESSION: Final = (
    "UPDATE {s}.session SET owner_id = %s::text, attempts = %s::int, taken_at = %s::timestamptz"
    " WHERE session_id = %s::text AND owner_id = %s::text"
    " AND NOT EXISTS (SELECT 1 FROM {s}.work WHERE work.session_id = session.session_id"
    " AND work.kind = ANY(%s::text[]) AND work.owner_id = session.owner_id)"
)
_FORGET: Final = (
    "DELETE FROM {s}.owner WHERE owner_id IN (SELECT owner_id FROM {s}.owner AS gone"
    " WHERE expires_at <= clock_timestamp() AND NOT EXISTS"
    " (SELECT 1 FROM {s}.work WHERE work.owner_id = gone.owner_id)"
    " ORDER BY owner_id FOR UPDATE SKIP LOCKED)"
)
# Who is not there any longer asks for nothing.
_FORGET_NOTES: Final = (
    "DELETE FROM {s}.mark WHERE name >= 'taken/' AND name < 'taken0'"
    " AND (name = ANY(%s::text[]) OR NOT EXISTS"
    " (SELECT 1 FROM {s}.owner WHERE owner.owner_id = convert_from(mark.body, 'UTF8')))"
)


def left_by_the_dead(
    link: Connection, sql: Sql, lifecycle: str, session_id: str | None
) -> tuple[Abandoned, ...]:
    """Return what dead owners left, by session; of one session, or of all."""
    if session_id is None:
        dead = _names(link.execute(sql(_OWNERS)))
    else:
        dead = _names(link.execute(sql(_DEAD_OF_ONE), (session_id,)))
    if not dead:
        return ()
    told = {"dead": dead, "lifecycle": lifecycle, "id": session_id}
    text = _LEFT if session_id is None else f"{_LEFT} AND work.session_id = %(id)s::text"
    return tuple(Abandoned(*key, work) for key, work in by_session(link.execute(sql(text), told)))


def _names(rows: Iterable[tuple[Any, ...]]) -> list[str]:
    return [name for (name,) in rows]


class TakeOver:
    """One transaction that makes work of dead owners another one's own.

    Args:
        sql: Formats statements.
        lifecycle: Name of the lifecycle.
        owner_id: Who takes it.
        restarting: Whether sessions are taken whose worker is to be started again, too.
        passing_over: Ids of sessions that are not taken.
    """

    def __init__(
        self,
        sql: Sql,
        lifecycle: str,
        owner_id: str,
        *,
        restarting: bool,
        passing_over: Collection[str] = (),
    ) -> None:
        self._sql = sql
        self._lifecycle = lifecycle
        self._owner_id = owner_id
        self._restarting = restarting
        self._passing_over = list(passing_over)

    def make(self, link: Connection, limit: int) -> TakenOver:
        """Take work of so many sessions at most, in a transaction; returns what was taken."""
        sql, owner_id = self._sql, self._owner_id
        dead = self._dead(link)
        revisions = self._picked(link, dead, limit)
        ids = list(revisions)
        if not ids:
            return TakenOver()
        # It was looked for before its session was locked: somebody may have taken it since.
        work = by_session(link.execute(sql(WORK), (ids, dead)))
        link.execute(sql(_MOVE), (owner_id, ids, dead))
        owned = sorted({key[0] for key, some in work if any(each.kind in OWNING for each in some)})
        counted = f"{LATELY_SECONDS:g} seconds"
        told = {"owned": owned, "taker": owner_id, "counted": counted}
        rows = link.execute(sql(_TAKE), told, binary=True).fetchall() if owned else []
        counts = {session_id: (count, before) for session_id, _, _, count, before in rows}
        operation_id = random_id()
        link.execute(sql(_NOTE), (NOTES + operation_id, owner_id.encode()))
        return TakenOver(
            operation_id=operation_id,
            owner_id=owner_id,
            taken=tuple(self._taken(*key, some, counts) for key, some in work),
            tokens={session_id: Token(*token) for session_id, *token, _, _ in rows},
            revisions=revisions,
        )

    def _taken(
        self,
        session_id: str,
        dead_id: str,
        work: tuple[Work, ...],
        counts: dict[str, tuple[int, datetime | None]],
    ) -> Taken:
        attempts, before = 0, None
        if any(each.kind in OWNING for each in work):
            attempts, before = counts[session_id]
        return Taken(
            session_id=session_id,
            owner_id=dead_id,
            work=work,
            holder_id=self._owner_id,
            attempts=attempts,
            last_taken_at=None if before is None else before.replace(tzinfo=UTC),
        )

    def _dead(self, link: Connection) -> list[str]:
        dead = _names(link.execute(self._sql(_OWNERS)))
        if not dead:
            return []
        link.execute(self._sql(_STILL), (dead,))
        living = _names(link.execute(self._sql(_LIVING), (dead,)))
        return [owner for owner in dead if owner not in living]

    def _picked(self, link: Connection, dead: list[str], limit: int) -> dict[str, int]:
        """Lock sessions; returns the revision of each."""
        ids: dict[str, int] = {}
        for owner in dead:
            if len(ids) >= limit:
                break
            told = {
                "owner": owner,
                "lifecycle": self._lifecycle,
                "restarting": self._restarting,
                "dead": dead,
                "passing_over": self._passing_over,
            }
            # One of several dead owners comes once for each.
            rows = link.execute(self._sql(_PICK), {**told, "limit": limit})
            ids.update((session_id, revision) for session_id, revision in rows)
        return dict(list(ids.items())[:limit])


def forget_the_dead(link: Connection, sql: Sql, notes: list[str]) -> None:
    """Remove the rows of dead owners who have left nothing, and notes that nobody asks for."""
    link.execute(sql(_FORGET))
    link.execute(sql(_FORGET_NOTES), (notes,))


def give_back(link: Connection, sql: Sql, taken: Taken) -> None:
    """Have work be the dead owner's again, in a transaction, unless it was done meanwhile."""
    session_id, holder_id = taken.session_id, taken.holder_id
    link.execute(sql(HOLD), (session_id,))
    kinds, items = [work.kind for work in taken.work], [work.item for work in taken.work]
    given = link.execute(sql(_GIVE_WORK), (taken.owner_id, session_id, holder_id, kinds, items))
    if given.rowcount and any(kind in OWNING for kind in kinds):
        # It was no death that nobody could deal with what was left.
        before = (taken.owner_id, taken.attempts - 1, taken.last_taken_at)
        told = (*before, session_id, holder_id, list(OWNING))
        link.execute(sql(_GIVE_SESSION), told)
