"""How often rows were fired, counted inside the database: no event leaves it."""

from __future__ import annotations

import sqlite3
from typing import Final

from ..history import EVENT_FORMATS
from ..jsonvalue import parse_json

# The words of an event as one JSON array: what is equal there was fired by the same row. The join
# leaves out the tombstones of purged sessions, and the sessions of other lifecycles.
_QUERY: Final = """
SELECT CASE WHEN json_valid(CAST(body AS TEXT))
    THEN json_extract(CAST(body AS TEXT), '$.format', '$.kind', '$.trigger', '$.source')
    END AS words,
    count(*), min(session_id)
FROM session_event JOIN session USING (session_id)
WHERE lifecycle = ?
GROUP BY words
"""
# What a checkpoint says was fired by the events that it stands for.
_CHECKPOINTS: Final = """
SELECT CASE WHEN json_valid(CAST(body AS TEXT))
    THEN json_extract(CAST(body AS TEXT), '$.format', '$.kind', '$.changes.stands_for.fired')
    END,
    session_id
FROM session_checkpoint JOIN session USING (session_id)
WHERE lifecycle = ?
"""


def traffic_of(
    reader: sqlite3.Connection, lifecycle: str
) -> tuple[dict[tuple[str, str], int], tuple[str, ...]]:
    """Count the events of a lifecycle's sessions by row, those that checkpoints stand for too.

    Of an event it reads what a row is known by, and nothing else; the rest may be beyond reading.

    Returns:
        How often, by (trigger, source); and sessions that have an event which can't be read, or is
        of another format, at least one of them if there are any.
    """
    found: dict[tuple[str, str], int] = {}
    unreadable: list[str] = []
    for words, count, session_id in reader.execute(_QUERY, (lifecycle,)):
        match parse_json(words.encode()) if words is not None else None:
            case [int(number), *_] if number not in EVENT_FORMATS:
                unreadable.append(session_id)
            case [_, "created" | "purged", None, _]:
                pass  # no row does that
            case [_, "created" | "moved" | "changed" | "purged", str(trigger), str(source)]:
                found[trigger, source] = found.get((trigger, source), 0) + count
            case _:
                unreadable.append(session_id)
    for told, session_id in reader.execute(_CHECKPOINTS, (lifecycle,)):
        match parse_json(told.encode()) if told is not None else None:
            case [number, "checkpoint", list(counts)] if number in EVENT_FORMATS and all(
                type(each) is list and [*map(type, each)] == [str, str, int] for each in counts
            ):
                for trigger, source, count in counts:
                    found[trigger, source] = found.get((trigger, source), 0) + count
            case _:
                unreadable.append(session_id)
    return found, tuple(unreadable)
