"""How often rows were fired, counted inside the database: no event leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..history import EVENT_FORMATS
from .postgres_sql import Sql

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
    """Count the events of a lifecycle's sessions by row, those that checkpoints stand for too.

    Of an event it reads what a row is known by, and nothing else; the rest may be beyond reading.

    Returns:
        How often, by (trigger, source); and sessions that have an event which can't be read, or is
        of another format, at least one of them if there are any.
    """
    found: dict[tuple[str, str], int] = {}
    unreadable: list[str] = []
    for *words, count, session_id in link.execute(sql(EVENTS), (lifecycle,)):
        match words:
            case [int(number), *_] if number not in EVENT_FORMATS:
                unreadable.append(session_id)
            case [_, "created" | "purged", None, _]:
                pass  # no row does that
            case [_, "created" | "moved" | "changed" | "purged", str(trigger), str(source)]:
                found[trigger, source] = found.get((trigger, source), 0) + count
            case _:
                unreadable.append(session_id)
    for number, kind, fired, session_id in link.execute(sql(CHECKPOINTS), (lifecycle,)):
        match [number, kind, fired]:
            case [number, "checkpoint", list(counts)] if number in EVENT_FORMATS and all(
                type(each) is list and [*map(type, each)] == [str, str, int] for each in counts
            ):
                for trigger, source, count in counts:
                    found[trigger, source] = found.get((trigger, source), 0) + count
            case _:
                unreadable.append(session_id)
    return found, tuple(unreadable)
