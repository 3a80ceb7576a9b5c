"""How many sessions are in each status: differences, of which the database adds one to each move.

One row for each status, which every move would change, would make all moves wait for each other. So
moves only add rows, and a count is a sum. Rows are put together now and then, by whoever counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .postgres_faults import left_to_others
from .postgres_sql import Sql

if TYPE_CHECKING:
    from .postgres_connection import Connections
    from .postgres_links import Connection

KEPT_APART: Final = 1_000
"""So many differences are added up by each who counts; more are put together."""

COUNTS: Final = (
    "SELECT status, sum(sessions)::bigint, count(*) FROM {s}.session_count"
    " WHERE lifecycle = %s::text GROUP BY status"
)
_HAS_MANY: Final = (
    "SELECT count(*) > %s FROM (SELECT 1 FROM {s}.session_count LIMIT %s::bigint) AS counted"
)
# Who comes at the same time waits for this, and then finds that the rows are gone.
ROLL_UP: Final = """
WITH gone AS (DELETE FROM {s}.session_count RETURNING lifecycle, status, sessions)
INSERT INTO {s}.session_count (lifecycle, status, sessions)
SELECT lifecycle, status, sum(sessions) FROM gone GROUP BY lifecycle, status
"""


def counts(connections: Connections, lifecycle: str) -> dict[str, int]:
    """Return how many sessions of a lifecycle are in each status, but for those that have none."""

    def read(link: Connection) -> list[tuple[str, int, int]]:
        return link.execute(connections.sql(COUNTS), (lifecycle,)).fetchall()

    rows = connections.read(read)
    if sum(row[2] for row in rows) > KEPT_APART and not connections.in_batch:
        with left_to_others():
            tidy(connections)
    return {status: number for status, number, _ in rows if number}


def tidy(connections: Connections) -> None:
    """Put differences together where there are many of them.

    Raises:
        StoreUnavailableError: It can't be done, or the role may not.
    """
    sql, most = connections.sql, KEPT_APART
    more = connections.read(lambda link: link.execute(sql(_HAS_MANY), (most, most + 1)).fetchone())
    if more == (True,):
        connections.write(lambda link: roll_up(link, sql))


def roll_up(link: Connection, sql: Sql) -> None:
    """Put differences together, in a transaction."""
    link.execute(sql(ROLL_UP))
