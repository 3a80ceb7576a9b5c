"""The part of the PostgreSQL store that reads sessions, one or many."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from ..errors import CorruptRecordError
from ..history import NO_DIGEST
from ..session import SessionEvent
from .abc import SessionStore
from .feed import fed
from .postgres_connection import Connections
from .postgres_feed import read_feed
from .postgres_sql import TAIL, known
from .reading import read_event, read_state
from .records import Fed, Stored

logger = logging.getLogger(__name__)

_FIELDS: Final = "session.session_id, state, revision, lifecycle, status, digest"
_LOAD: Final = f"SELECT {_FIELDS} FROM {{s}}.session WHERE session_id = %s::text"  # noqa: S608
# With an equal status the planner would walk through all ids, where a status has few sessions.
_PAGE: Final = (
    f"SELECT {_FIELDS} FROM unnest(%(statuses)s::text[]) AS wanted (word) CROSS JOIN LATERAL"  # noqa: S608
    " (SELECT * FROM {s}.session WHERE lifecycle = %(lifecycle)s::text"
    " AND (status, session_id) > (wanted.word, %(after)s::text) AND status <= wanted.word"
    " ORDER BY status, session_id LIMIT %(limit)s) AS session ORDER BY session_id LIMIT %(limit)s"
)
_ENDED: Final = (
    f"SELECT {_FIELDS} FROM {{s}}.session WHERE lifecycle = %s::text AND ended_at IS NOT NULL"  # noqa: S608
    " AND ended_at < %s::timestamptz ORDER BY ended_at, session_id LIMIT %s"
)
_HISTORY: Final = (
    "SELECT revision, body, digest FROM {s}.session_checkpoint WHERE session_id = %(id)s::text"
    " UNION ALL"
    " SELECT revision, body, digest FROM {s}.session_event WHERE session_id = %(id)s::text"
    " ORDER BY revision"
)
_DUE: Final = (
    "SELECT deadline_at AT TIME ZONE 'UTC', session_id FROM {s}.session"
    " WHERE lifecycle = %(lifecycle)s::text AND deadline_at IS NOT NULL"
    " AND deadline_at <= %(at)s::timestamptz{behind} ORDER BY deadline_at, session_id"
    " LIMIT %(limit)s"
)
_DUE_BEHIND: Final = " AND (deadline_at, session_id) > (%(last)s::timestamptz, %(after)s::text)"
_NEXT_DEADLINE: Final = (
    "SELECT deadline_at AT TIME ZONE 'UTC' FROM {s}.session WHERE lifecycle = %s::text"
    " AND deadline_at IS NOT NULL ORDER BY deadline_at, session_id LIMIT 1"
)
# Sessions of other lifecycles have histories here too; theirs are not ours to judge.
_IDS: Final = (
    "(SELECT DISTINCT session_id FROM {s}.session_event AS event"
    " WHERE session_id > %(after)s::text AND NOT EXISTS (SELECT 1 FROM {s}.session"
    " WHERE session.session_id = event.session_id AND session.lifecycle <> %(lifecycle)s::text)"
    " ORDER BY session_id LIMIT %(limit)s) UNION"
    " (SELECT session_id FROM {s}.session WHERE session_id > %(after)s::text"
    " AND lifecycle = %(lifecycle)s::text ORDER BY session_id LIMIT %(limit)s)"
    " ORDER BY session_id LIMIT %(limit)s"
)


class PostgresReading(SessionStore):
    """The methods of the PostgreSQL store that read sessions."""

    _connections: Connections

    def _rows(self, text: str, told: Any) -> list[tuple[Any, ...]]:
        query = self._connections.sql(text)
        # In binary: no escapes of bytes, and no instants in the words of some DateStyle.
        return self._connections.read(
            lambda link: link.execute(query, told, binary=True).fetchall()
        )

    # --- one session ----------------------------------------------------------------------

    def load(self, session_id: str) -> Stored | None:
        rows = self._rows(_LOAD, (known(session_id),))
        return self._stored(rows[0]) if rows else None

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        session_id, text, revision, lives_by, status, digest = row
        state = read_state(
            text, self.lifecycle, session_id=session_id, lives_by=lives_by, status=status
        )
        return Stored(state, revision, digest)

    def tail(self, session_id: str) -> tuple[int, str]:
        rows = self._rows(TAIL, (known(session_id),))
        return (rows[0][0], rows[0][1]) if rows else (0, NO_DIGEST)

    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        rows = self._rows(_HISTORY, {"id": known(session_id)})
        return tuple((row[1], self._event(session_id, *row)) for row in rows)

    def _event(self, session_id: str, revision: int, body: bytes, digest: str) -> SessionEvent:
        return read_event(body, digest, self.lifecycle, session_id=session_id, revision=revision)

    def feed(self, after: int, limit: int, session_id: str | None = None) -> Fed:
        found = read_feed(self._connections, self.lifecycle.name, after, limit, session_id)
        return fed(found, limit, self._event)

    # --- many sessions --------------------------------------------------------------------

    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        words = list(dict.fromkeys(str(status) for status in statuses))
        told = self._behind(after, limit)
        rows = self._rows(_PAGE, {**told, "statuses": words}) if words else []
        return tuple(self._stored(row) for row in rows)

    def _behind(self, after: str | None, limit: int) -> dict[str, Any]:
        return {"lifecycle": self.lifecycle.name, "after": behind(after), "limit": limit}

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        told = {"lifecycle": self.lifecycle.name, "at": at, "limit": limit}
        text = _DUE.replace("{behind}", "" if after is None else _DUE_BEHIND)
        if after is not None:
            told |= {"last": after[0], "after": behind(after[1])}
        rows = self._rows(text, told)
        return tuple((deadline.replace(tzinfo=UTC), each) for deadline, each in rows)

    def next_deadline(self) -> datetime | None:
        rows = self._rows(_NEXT_DEADLINE, (self.lifecycle.name,))
        deadline: datetime | None = rows[0][0].replace(tzinfo=UTC) if rows else None
        return deadline

    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        return tuple(each for (each,) in self._rows(_IDS, self._behind(after, limit)))

    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        return tuple(self._readable(self._rows(_ENDED, (self.lifecycle.name, before, limit))))

    def _readable(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Stored]:
        for row in rows:
            try:
                yield self._stored(row)
            except CorruptRecordError as fault:
                # One that can't be read is left where it is, and keeps nobody else from leaving.
                logger.warning("not removed: %s", fault)


def behind(after: str | None) -> str:
    """Return a text that can be stored, behind which stands what stands behind another one."""
    # Nothing that is stored has a NUL: whatever goes on behind one comes after what is before it.
    text = (after or "").partition("\0")[0]
    if text.isascii():
        return text
    kept = text.encode("utf-8", "replace").decode()
    if kept == text:
        return text
    for at, letter in enumerate(text):
        if "\ud800" <= letter <= "\udfff":
            # Between the last letter before those that are none, and the first one after them.
            return f"{text[:at]}\ud7ff\U0010ffff"
    return text
