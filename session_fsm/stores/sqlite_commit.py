"""What a commit writes into the tables: rows that are made before the writer is asked for."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from ..clock import instant_text
from ..compaction import Checkpoint
from ..errors import RevisionConflictError, SessionExistsError, SessionNotFoundError
from ..history import NO_DIGEST, Sealed
from ..lifecycle import Lifecycle
from ..serialization import dumps
from .records import Commit, StoredStep, carried_over, ended_at
from .sqlite_feed import note_purged, note_removed
from .sqlite_items import ItemWriter, undone_alone
from .sqlite_keys import Cover

_INSERT: Final = (
    "INSERT INTO session"
    " (lifecycle, status, deadline_at, ended_at, state, digest, session_id, revision)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE: Final = (
    "UPDATE session SET status = ?, deadline_at = ?, ended_at = ?, state = ?, digest = ?,"
    " revision = revision + 1 WHERE session_id = ? AND revision = ?"
)
_APPEND: Final = (
    "INSERT INTO session_event (session_id, revision, at, body, digest, operation_id)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)


class PreparedCommit:
    """A commit with its rows made.

    Args:
        commit: The commit.
        lifecycle: The lifecycle of the session.
        cover: What encrypts it; None: nothing.

    Attributes:
        operation_id: That of the commit.

    Raises:
        StateInvalidError: A state can't be written.
    """

    __slots__ = ("_commit", "_cover", "_items", "_lifecycle", "_rows", "operation_id")

    def __init__(self, commit: Commit, lifecycle: Lifecycle, cover: Cover | None = None) -> None:
        self._commit = commit
        self._lifecycle = lifecycle
        self._cover = cover
        if cover is not None:
            cover.seal(commit.steps)
        self.operation_id = commit.operation_id
        self._items: ItemWriter | None = None
        if (writes := commit.writes) is not None:
            data_key = None if cover is None else cover.key
            self._items = ItemWriter(commit.session_id, lifecycle.name, writes, data_key)
        self._rows = [
            (self._columns(step), event_row(step.sealed, commit.operation_id))
            for step in commit.steps
        ]

    def _columns(self, step: StoredStep) -> tuple[Any, ...]:
        state, deadline_at, cover = step.state, step.deadline_at, self._cover
        end = ended_at(state, self._lifecycle)
        text = dumps(state, self._lifecycle) if cover is None else cover.text(step, self._lifecycle)
        return (
            str(state.status),
            None if deadline_at is None else instant_text(deadline_at),
            None if end is None else instant_text(end),
            text.decode(),
            step.sealed.event.digest,
            state.session_id,
        )

    def apply(self, writer: sqlite3.Connection) -> None:
        """Write it, in a transaction, if the stored revision is the expected one.

        Raises:
            SessionExistsError: It creates a session, and there is one.
            SessionNotFoundError: It moves a session that is not there.
            RevisionConflictError: The stored revision is not the expected one.
            ItemConflictError: An item is not at the version that a write expects.
        """
        if self._items is None:
            self._apply(writer)
            return
        with undone_alone(writer):
            self._items.make(writer, self._commit.expected_revision)
            self._apply(writer)

    def _apply(self, writer: sqlite3.Connection) -> None:
        commit = self._commit
        revision = commit.expected_revision
        if commit.creates:
            self._make_room(writer)
        for columns, event in self._rows:
            if commit.creates and revision == commit.expected_revision:
                writer.execute(_INSERT, (self._lifecycle.name, *columns, revision + 1))
            elif writer.execute(_UPDATE, (*columns, revision)).rowcount != 1:
                raise self._conflict(writer)
            writer.execute(_APPEND, event)
            revision += 1
        if self._cover is not None:
            self._cover.keep(writer)
        if commit.claims or commit.releases or commit.stops_worker:
            _move_work(writer, commit)

    def _conflict(self, writer: sqlite3.Connection) -> Exception:
        """Return why the session could not be moved; only the first step can find that out."""
        session_id = self._commit.session_id
        row = writer.execute(
            "SELECT revision FROM session WHERE session_id = ?", (session_id,)
        ).fetchone()
        if row is None:
            return SessionNotFoundError(session_id=session_id)
        expected = self._commit.expected_revision
        return RevisionConflictError(session_id=session_id, expected=expected, found=row[0])

    def _make_room(self, writer: sqlite3.Connection) -> None:
        """See that a session may be created, and that its history goes on from where it ended."""
        commit = self._commit
        session_id = commit.session_id
        exists = "SELECT 1 FROM session WHERE session_id = ?"
        if writer.execute(exists, (session_id,)).fetchone() is not None:
            raise SessionExistsError(session_id=session_id)
        found = tail_of(writer, session_id)[0]
        if (origin := carried_over(commit, found)) is not None:
            found = origin.event.revision
        if found != commit.expected_revision:
            expected = commit.expected_revision
            raise RevisionConflictError(session_id=session_id, expected=expected, found=found)
        if origin is not None:
            leave_only(writer, origin, self._lifecycle.name)


def event_row(sealed: Sealed, operation_id: str) -> tuple[Any, ...]:
    """Return the row of an event."""
    event = sealed.event
    at = instant_text(event.at)
    return event.session_id, event.revision, at, sealed.body, event.digest, operation_id


def leave_only(writer: sqlite3.Connection, tombstone: Sealed, lifecycle: str) -> None:
    """Put a tombstone in the place of the history of an id."""
    event = tombstone.event
    note = note_purged(writer, event.session_id, event.revision - 1, lifecycle)
    # First, so that the newest event of all is never removed: its number would be given again.
    writer.execute(_APPEND, event_row(tombstone, note))
    writer.execute(
        "DELETE FROM session_event WHERE session_id = ? AND revision < ?",
        (event.session_id, event.revision),
    )


def leave_behind(writer: sqlite3.Connection, checkpoint: Checkpoint, sealed: Sealed) -> int:
    """Put a checkpoint in the place of events; returns how many were replaced.

    Raises:
        SessionNotFoundError: The session is not there.
        RevisionConflictError: The event of that revision is not there, is another, or the last.
    """
    session_id, revision = checkpoint.event.session_id, checkpoint.event.revision
    of_it = "FROM session_event WHERE session_id = ? AND revision"
    last = writer.execute(f"SELECT digest {of_it} = ?", (session_id, revision)).fetchone()
    found = tail_of(writer, session_id)[0]
    here = "SELECT 1 FROM session WHERE session_id = ?"
    if writer.execute(here, (session_id,)).fetchone() is None:
        raise SessionNotFoundError(session_id=session_id)
    if last != (checkpoint.last_digest,) or found == revision:
        raise RevisionConflictError(session_id=session_id, expected=revision, found=found)
    writer.execute(
        "INSERT OR REPLACE INTO session_checkpoint (session_id, revision, body, digest)"
        " VALUES (?, ?, ?, ?)",
        (session_id, revision, sealed.body, sealed.event.digest),
    )
    note_removed(writer, session_id, revision)
    return writer.execute(f"DELETE {of_it} <= ?", (session_id, revision)).rowcount


def tail_of(connection: sqlite3.Connection, session_id: str) -> tuple[int, str]:
    """Return the revision and the digest of the last event of an id; (0, "") if none."""
    row = connection.execute(
        "SELECT revision, digest FROM session_event"
        " WHERE session_id = ? ORDER BY revision DESC LIMIT 1",
        (key(session_id),),
    ).fetchone()
    return (0, NO_DIGEST) if row is None else (row[0], row[1])


def key(session_id: str) -> str | bytes:
    """Return an id as it is looked up; what is no Unicode text equals no id that is stored."""
    if session_id.isascii():
        return session_id
    try:
        session_id.encode()
    except UnicodeEncodeError:
        return b""
    return session_id


def _move_work(writer: sqlite3.Connection, commit: Commit) -> None:
    session_id = commit.session_id
    if commit.releases:
        writer.executemany(
            "DELETE FROM work WHERE session_id = ? AND kind = ? AND item = ?",
            [(session_id, work.kind, work.item) for work in commit.releases],
        )
    if commit.claims:
        writer.executemany(
            "INSERT INTO work (session_id, kind, item, owner_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET owner_id = excluded.owner_id, stop = 0",
            [(session_id, work.kind, work.item, commit.owner_id) for work in commit.claims],
        )
    if commit.stops_worker:
        writer.execute(
            "UPDATE work SET stop = 1 WHERE session_id = ? AND kind = 'worker'", (session_id,)
        )
