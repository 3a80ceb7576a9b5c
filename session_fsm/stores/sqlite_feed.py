"""The feed of an SQLite file: events in the order of their commits, and what is missing of them.

`session_event.seq` is the position. There is one writer at a time, so whatever becomes visible
later has higher numbers; and the newest event is never deleted, so no number is given twice.

How far events were removed is kept among the marks, for each session and for all of them, in the
transaction that removes them. For a session that was purged it stands in its tombstone instead,
with the lifecycle that it lived by: no commit made that event, so it has room for both where
others have the id of theirs. Nothing else is left of what was purged.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from .feed import FeedRows

_REMOVED: Final = "feed/removed"
_NUMBER_BYTES: Final = 8
"""Of a position in a mark: the greater is the greater as bytes, too."""

_STONE: Final = "purged"

# All in one statement: nothing is removed between what is looked up and what is read.
_FEED: Final = """
SELECT now.newest, now.removed, now.stone, event.*
FROM (
    SELECT (SELECT max(seq) FROM session_event) AS newest,
        (SELECT body FROM mark WHERE name = :mark) AS removed,
        (
            SELECT operation_id FROM session_event WHERE session_id = :id ORDER BY revision LIMIT 1
        ) AS stone
) AS now
LEFT JOIN (
    SELECT seq, session_id, revision, body, digest, key_id, wrapped
    FROM session_event LEFT JOIN session_key USING (session_id)
    WHERE {whose} AND CASE WHEN operation_id GLOB '{stone}:*'
        THEN substr(operation_id, {behind}) = :lifecycle
        ELSE NOT EXISTS (
            SELECT 1 FROM session
            WHERE session.session_id = session_event.session_id AND session.lifecycle <> :lifecycle
        )
    END
    ORDER BY {order} LIMIT :limit
) AS event
ORDER BY event.seq
"""
_DIGITS: Final = 19
_STONES: Final = {"stone": _STONE, "behind": len(_STONE) + _DIGITS + 3}
_OF_ALL: Final = _FEED.format(whose="seq > :after", order="seq", **_STONES)
# Its index has its events in their order; that of all events would lead through all others.
_OF_ONE: Final = _FEED.format(
    whose="session_id = :id AND +seq > :after", order="revision", **_STONES
)

_NOTE: Final = (
    "INSERT INTO mark (name, body) VALUES (?, ?)"
    " ON CONFLICT DO UPDATE SET body = max(body, excluded.body)"
)


def feed_rows(
    reader: sqlite3.Connection,
    lifecycle: str,
    after: int,
    limit: int,
    session_id: str | bytes | None,
) -> FeedRows:
    """Read the first events behind a position; the id as `sqlite_commit.key` gives it.

    Each is (seq, session_id, revision, body, digest, key_id, wrapped).
    """
    told = {"lifecycle": lifecycle, "after": after, "limit": limit, "mark": _REMOVED, "id": None}
    query = _OF_ALL
    if session_id is not None:
        query = _OF_ONE
        told |= {"id": session_id, "mark": _mark(session_id)}
    found = reader.execute(query, told).fetchall()
    newest, removed, stone = found[0][:3]
    rows = tuple(row[3:] for row in found if row[3] is not None)
    noted = 0 if removed is None else int.from_bytes(removed, "big")
    return FeedRows(rows, newest or 0, max(noted, _removed_before(stone)))


def note_removed(writer: sqlite3.Connection, session_id: str, revision: int) -> None:
    """Note that the events of a session up to a revision are about to be removed, if any."""
    if seq := _last_up_to(writer, session_id, revision):
        body = seq.to_bytes(_NUMBER_BYTES, "big")
        writer.executemany(_NOTE, [(_REMOVED, body), (_mark(session_id), body)])


def note_purged(writer: sqlite3.Connection, session_id: str, revision: int, lifecycle: str) -> str:
    """Note that the events of a session up to a revision are about to be removed, with all else.

    Returns:
        What its tombstone has in the place of the id of a commit.
    """
    seq = _last_up_to(writer, session_id, revision)
    writer.execute(_NOTE, (_REMOVED, seq.to_bytes(_NUMBER_BYTES, "big")))
    writer.execute("DELETE FROM mark WHERE name = ?", (_mark(session_id),))
    return f"{_STONE}:{seq:0{_DIGITS}}:{lifecycle}"


def _removed_before(stone: str | None) -> int:
    """Return the highest position that was removed, as the first event of a session tells it."""
    if stone is None or not stone.startswith(f"{_STONE}:"):
        return 0
    return int(stone[len(_STONE) + 1 :][:_DIGITS])


def _last_up_to(writer: sqlite3.Connection, session_id: str, revision: int) -> int:
    row = writer.execute(
        "SELECT seq FROM session_event WHERE session_id = ? AND revision <= ?"
        " ORDER BY revision DESC LIMIT 1",
        (session_id, revision),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _mark(session_id: str | bytes) -> str:
    return f"{_REMOVED}/{session_id if isinstance(session_id, str) else ''}"
