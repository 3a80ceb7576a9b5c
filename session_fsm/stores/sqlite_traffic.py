"""How often rows were fired, counted inside the database: no event leaves it."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from ..jsonvalue import parse_json
from .traffic import count_traffic

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
    """Count the events of a lifecycle's sessions by row; see `count_traffic`.

    Of an event it reads what a row is known by, and nothing else; the rest may be beyond reading.
    """
    return count_traffic(
        (
            (_words(words), count, session_id)
            for words, count, session_id in reader.execute(_QUERY, (lifecycle,))
        ),
        (
            (_words(words), session_id)
            for words, session_id in reader.execute(_CHECKPOINTS, (lifecycle,))
        ),
    )


def _words(text: str | None) -> Any:
    return None if text is None else parse_json(text.encode())
