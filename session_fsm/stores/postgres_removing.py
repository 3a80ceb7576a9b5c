"""What takes the place of events that are removed: the tombstone of a life, or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..compaction import Checkpoint
from ..errors import RevisionConflictError, SessionNotFoundError
from ..history import NO_DIGEST, Sealed
from .postgres_feed import LOCK, note_removed
from .postgres_sql import TAIL, Sql, known

if TYPE_CHECKING:
    from .postgres_links import Connection

_HOLD: Final = "SELECT revision FROM {s}.session WHERE session_id = %s::text FOR UPDATE"
_APPEND: Final = (
    "INSERT INTO {s}.session_event (session_id, revision, at, body, digest, operation_id)"
    " VALUES (%s::text, %s::bigint, %s::timestamptz, %s::bytea, %s::text, '')"
)
_DIGEST: Final = (
    "SELECT digest FROM {s}.session_event WHERE session_id = %s::text AND revision = %s::bigint"
)
_CHECKPOINT: Final = (
    "INSERT INTO {s}.session_checkpoint (session_id, revision, body, digest)"
    " VALUES (%s::text, %s::bigint, %s::bytea, %s::text) ON CONFLICT (session_id) DO UPDATE"
    " SET revision = excluded.revision, body = excluded.body, digest = excluded.digest"
)
_REMOVE_EVENTS: Final = (
    "DELETE FROM {s}.session_event WHERE session_id = %s::text AND revision <= %s::bigint"
)
_REMOVE_SESSION: Final = "DELETE FROM {s}.session WHERE session_id = %s::text"
_REMOVE_WORK: Final = "DELETE FROM {s}.work WHERE session_id = %s::text"


def tail_of(link: Connection, sql: Sql, session_id: str) -> tuple[int, str]:
    """Return the revision and the digest of the last event of an id; (0, "") if none."""
    row = link.execute(sql(TAIL), (known(session_id),)).fetchone()
    return (0, NO_DIGEST) if row is None else (row[0], row[1])


def _hold(link: Connection, sql: Sql, session_id: str, admit: Callable[[], None]) -> int:
    """Keep others from moving a session until the transaction ends; returns its revision.

    The feed comes first, as with everybody who needs both: so nobody waits for each other.

    Whoever writes is looked at behind the locks: what is found then lasts as long as they do.

    Raises:
        SessionNotFoundError: The session is not there.
    """
    link.execute(sql(LOCK))
    row = link.execute(sql(_HOLD), (known(session_id),)).fetchone()
    admit()
    if row is None:
        raise SessionNotFoundError(session_id=session_id)
    return int(row[0])


def bury(
    link: Connection,
    sql: Sql,
    session_id: str,
    revision: int,
    tombstone: Sealed,
    *,
    admit: Callable[[], None],
) -> None:
    """Remove a final session, its events and tables; in a transaction.

    Args:
        link: In that transaction.
        sql: Formats statements.
        session_id: The session.
        revision: Where it is.
        tombstone: What is left of it.
        admit: Refuses a writer that may not, once nobody else moves the session.

    Raises:
        SessionNotFoundError: The session is not there.
        RevisionConflictError: The stored revision is not this one.
    """
    found = _hold(link, sql, session_id, admit)
    if found != revision:
        raise RevisionConflictError(session_id=session_id, expected=revision, found=found)
    link.execute(sql(_REMOVE_SESSION), (session_id,))
    link.execute(sql(_REMOVE_WORK), (session_id,))
    leave_only(link, sql, tombstone)


def leave_only(link: Connection, sql: Sql, tombstone: Sealed) -> None:
    """Put a tombstone in the place of the history of an id without a session; in a transaction."""
    event = tombstone.event
    note_removed(link, sql, event.session_id, event.revision - 1)
    link.execute(sql(_REMOVE_EVENTS), (event.session_id, event.revision - 1))
    row = (event.session_id, event.revision, event.at, tombstone.body, event.digest)
    link.execute(sql(_APPEND), row)


def compact(
    link: Connection,
    sql: Sql,
    checkpoint: Checkpoint,
    sealed: Sealed,
    *,
    admit: Callable[[], None],
) -> int:
    """Put a checkpoint in the place of events, in a transaction; returns how many were replaced.

    Args:
        link: In that transaction.
        sql: Formats statements.
        checkpoint: The checkpoint.
        sealed: The same, as it is stored.
        admit: Refuses a writer that may not, once nobody else moves the session.

    Raises:
        SessionNotFoundError: The session is not there.
        RevisionConflictError: The event of that revision is not there, is another, or the last.
    """
    session_id, revision = checkpoint.event.session_id, checkpoint.event.revision
    found = _hold(link, sql, session_id, admit)
    last = link.execute(sql(_DIGEST), (session_id, revision)).fetchone()
    if last != (checkpoint.last_digest,) or found == revision:
        raise RevisionConflictError(session_id=session_id, expected=revision, found=found)
    made = (session_id, revision, sealed.body, sealed.event.digest)
    link.execute(sql(_CHECKPOINT), made)
    note_removed(link, sql, session_id, revision)
    return link.execute(sql(_REMOVE_EVENTS), (session_id, revision)).rowcount
