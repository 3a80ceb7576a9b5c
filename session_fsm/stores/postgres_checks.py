"""What may be wrong with a PostgreSQL store as such: its schema, rules, counts and feed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ..lifecycle import Lifecycle
from .postgres_schema import rule_problems
from .postgres_shape import schema_problems
from .postgres_sql import Sql
from .postgres_tables import item_problems

if TYPE_CHECKING:
    from .postgres_links import Connection

# In one statement: sessions move meanwhile.
_COUNTS: Final = """
SELECT status, coalesce(there.sessions, 0), coalesce(counted.sessions, 0)
FROM (
    SELECT status, count(*) AS sessions FROM {s}.session
    WHERE lifecycle = %(lifecycle)s::text GROUP BY status
) AS there FULL JOIN (
    SELECT status, sum(sessions)::bigint AS sessions FROM {s}.session_count
    WHERE lifecycle = %(lifecycle)s::text GROUP BY status
) AS counted USING (status)
WHERE coalesce(there.sessions, 0) <> coalesce(counted.sessions, 0)
ORDER BY status
"""
_FEED: Final = """
SELECT 'the newest position is ' || newest || ', an event has ' || last
FROM {s}.feed, (SELECT max(position) AS last FROM {s}.session_event) AS told WHERE last > newest
UNION ALL
SELECT 'the feed lacks its row' WHERE NOT EXISTS (SELECT 1 FROM {s}.feed)
UNION ALL
SELECT 'event ' || later.revision || ' of session ' || later.session_id
    || ' has a lower position than the one before it'
FROM {s}.session_event AS later JOIN {s}.session_event AS before
    ON before.session_id = later.session_id AND before.revision = later.revision - 1
WHERE before.position > later.position OR (before.position IS NULL AND later.position IS NOT NULL)
"""


def problems_of(link: Connection, sql: Sql, lifecycle: Lifecycle) -> Iterator[str]:
    """Name what is wrong, in words; it reads every row, as of the moment of each statement."""
    for problem in (*schema_problems(link, sql), *rule_problems(link, sql, lifecycle)):
        yield f"database: {problem}"
    yield from item_problems(link, sql, lifecycle.name)
    told = {"lifecycle": lifecycle.name}
    for status, there, counted in link.execute(sql(_COUNTS), told).fetchall():
        yield f"database: {there} sessions are {status!r}, {counted} counted"
    for (problem,) in link.execute(sql(_FEED)).fetchall():
        yield f"database: {problem}"
