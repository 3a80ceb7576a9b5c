"""The feed of a PostgreSQL store: events in the order of their positions, and what is missing.

Numbers of a sequence become visible in another order than they were given in, as transactions end
when they end. So an event gets its position once it is committed, by whoever reads next: with the
one row of `feed` locked, what is visible and has none is numbered, in the order of the sequence.
Whatever becomes visible later gets a higher one, there is no gap, and no position is given twice.

Nothing is removed without a position: who removes events numbers first, and then notes how far
they were removed, for each session and for all of them, in the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .feed import FeedRows
from .postgres_faults import left_to_others
from .postgres_sql import Sql, known

if TYPE_CHECKING:
    from .postgres_connection import Connections
    from .postgres_links import Connection

NUMBERED_AT_ONCE: Final = 10_000
"""Most events that are numbered in one transaction, unless they are about to be removed."""

# All in one statement: nothing is numbered or removed between what is looked up and what is read.
_FEED: Final = """
SELECT feed.newest, {removed}, EXISTS (SELECT 1 FROM {s}.session_event WHERE position IS NULL),
    event.*
FROM {s}.feed LEFT JOIN LATERAL (
    SELECT position, session_id, revision, body, digest
    FROM {s}.session_event
    WHERE {whose} AND NOT EXISTS (
        SELECT 1 FROM {s}.session
        WHERE session.session_id = session_event.session_id
            AND session.lifecycle <> %(lifecycle)s::text
    )
    ORDER BY {order} LIMIT %(limit)s::bigint
) AS event ON true
ORDER BY event.position
"""


def _query(removed: str, whose: str, order: str) -> str:
    query = _FEED.replace("{removed}", removed).replace("{whose}", whose)
    return query.replace("{order}", order)


FEED_OF_ALL: Final = _query("feed.removed", "position > %(after)s::bigint", "position")
# The events of one session are in their order in its own index; that of all of them would lead
# through all others.
FEED_OF_ONE: Final = _query(
    "coalesce((SELECT position FROM {s}.feed_removed WHERE session_id = %(id)s::text), 0)",
    "session_id = %(id)s::text AND position + 0 > %(after)s::bigint",
    "revision",
)

LOCK: Final = "SELECT newest FROM {s}.feed FOR UPDATE"
TRY_LOCK: Final = f"{LOCK} SKIP LOCKED"
UNNUMBERED: Final = (
    "SELECT seq FROM {s}.session_event WHERE position IS NULL ORDER BY seq LIMIT %s::bigint"
)
NUMBER: Final = (
    "UPDATE {s}.session_event AS event SET position = given.position"
    " FROM unnest(%s::bigint[], %s::bigint[]) AS given (seq, position)"
    " WHERE event.seq = given.seq AND event.position IS NULL"
)
_RAISE: Final = "UPDATE {s}.feed SET newest = %s::bigint"
_IS_UNNUMBERED: Final = (
    "SELECT 1 FROM {s}.session_event"
    " WHERE session_id = %s::text AND revision <= %s::bigint AND position IS NULL LIMIT 1"
)
_LAST_REMOVED: Final = (
    "SELECT max(position) FROM {s}.session_event"
    " WHERE session_id = %s::text AND revision <= %s::bigint"
)
_NOTE_OF_ALL: Final = "UPDATE {s}.feed SET removed = greatest(removed, %s::bigint)"
_NOTE_OF_ONE: Final = (
    "INSERT INTO {s}.feed_removed (session_id, position) VALUES (%s::text, %s::bigint)"
    " ON CONFLICT (session_id) DO UPDATE"
    " SET position = greatest(feed_removed.position, excluded.position)"
)


def feed_rows(
    link: Connection, sql: Sql, lifecycle: str, after: int, limit: int, session_id: str | None
) -> tuple[FeedRows, bool]:
    """Read the first events behind a position that have one.

    Returns:
        What was read, each event as (position, session_id, revision, body, digest); and whether
        there are events without a position.
    """
    given: dict[str, Any] = {"lifecycle": lifecycle, "after": after, "limit": limit}
    query = FEED_OF_ALL
    if session_id is not None:
        query = FEED_OF_ONE
        given["id"] = known(session_id)
    found = link.execute(sql(query), given).fetchall()
    newest, removed, is_behind = found[0][:3]
    rows = tuple(row[3:] for row in found if row[3] is not None)
    return FeedRows(rows, newest, removed), is_behind


def read_feed(
    connections: Connections, lifecycle: str, after: int, limit: int, session_id: str | None
) -> FeedRows:
    """Read the first events behind a position, numbering first what was committed since.

    Where the role may not write, or the server can't, it tells what others have numbered.
    """

    def read(link: Connection) -> tuple[FeedRows, bool]:
        return feed_rows(link, connections.sql, lifecycle, after, limit, session_id)

    found, is_behind = connections.read(read)
    numbered = NUMBERED_AT_ONCE
    # A page that is full is told as it is: who reads on comes to the rest.
    while is_behind and not len(found.rows) == limit > 0 and numbered == NUMBERED_AT_ONCE:
        numbered = 0
        with left_to_others():
            numbered = connections.write(lambda link: number(link, connections.sql))
        found, is_behind = connections.read(read)
    return found


def number(link: Connection, sql: Sql, limit: int = NUMBERED_AT_ONCE, *, lock: str = LOCK) -> int:
    """Give positions to events that are committed and have none, in a transaction.

    Args:
        link: In that transaction.
        sql: Formats statements.
        limit: Most events that get one.
        lock: `TRY_LOCK`: nothing is done where somebody else is about it.

    Returns:
        How many got one; fewer than the limit: all that are visible have one.
    """
    row = link.execute(sql(lock)).fetchone()
    if row is None:
        return 0
    # A statement of its own: it sees what was numbered by whoever had the lock before.
    waiting = [seq for (seq,) in link.execute(sql(UNNUMBERED), (limit,)).fetchall()]
    if waiting:
        newest = row[0] + len(waiting)
        with link.pipeline():
            link.execute(sql(NUMBER), (waiting, list(range(row[0] + 1, newest + 1))))
            link.execute(sql(_RAISE), (newest,))
    return len(waiting)


def number_before_removal(link: Connection, sql: Sql, session_id: str, revision: int) -> None:
    """See that the events of a session up to a revision have positions; in a transaction."""
    asked = (session_id, revision)
    link.execute(sql(LOCK))
    while link.execute(sql(_IS_UNNUMBERED), asked).fetchone() is not None:
        number(link, sql)


def note_removed(link: Connection, sql: Sql, session_id: str, revision: int) -> None:
    """Note that the events of a session up to a revision are about to be removed, if any.

    They are numbered first. In a transaction; the session is locked, or is not there.
    """
    number_before_removal(link, sql, session_id, revision)
    row = link.execute(sql(_LAST_REMOVED), (session_id, revision)).fetchone()
    if row is not None and row[0] is not None:
        link.execute(sql(_NOTE_OF_ALL), (row[0],))
        link.execute(sql(_NOTE_OF_ONE), (session_id, row[0]))
