"""How often rows were fired, counted inside the database: no event leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .postgres_sql import Sql
from .traffic import count_traffic

if TYPE_CHECKING:
    from .postgres_links import Connection

# What is equal in these was fired by the same row. The join leaves out the tombstones of purged
# sessions, and the sessions of other lifecycles. What is no JSON has no document.
EVENTS: Final = """
SELECT event.document -> 'format', event.document -> 'kind', event.document -> 'trigger',
    event.document -> 'source', count(*), min(session_id)
FROM {s}.session_event AS event JOIN {s}.session USING (session_id)
WHERE lifecycle = %s::text
GROUP BY 1, 2, 3, 4
"""
# What a checkpoint says was fired by the events that it stands for.
CHECKPOINTS: Final = """
SELECT checkpoint.document -> 'format', checkpoint.document -> 'kind',
    checkpoint.document #> '{changes,stands_for,fired}', session_id
FROM {s}.session_checkpoint AS checkpoint JOIN {s}.session USING (session_id)
WHERE lifecycle = %s::text
"""


def traffic_of(
    link: Connection, sql: Sql, lifecycle: str
) -> tuple[dict[tuple[str, str], int], tuple[str, ...]]:
    """Count the events of a lifecycle's sessions by row; see `count_traffic`.

    Of an event it reads what a row is known by, and nothing else; the rest may be beyond reading.
    """
    events = link.execute(sql(EVENTS), (lifecycle,)).fetchall()
    checkpoints = link.execute(sql(CHECKPOINTS), (lifecycle,)).fetchall()
    return count_traffic(
        ((words, count, session_id) for *words, count, session_id in events),
        ((words, session_id) for *words, session_id in checkpoints),
    )
