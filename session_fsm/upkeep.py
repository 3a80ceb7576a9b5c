"""What is done with all sessions of a store: sweep, purge, compact, verify."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

import attrs

from .batching import Batch
from .compaction import checkpoint_of
from .core import Core
from .decisions import cause_in_words
from .endings import FireDue
from .errors import (
    CorruptRecordError,
    DeserializationError,
    KeyMissingError,
    LifecycleError,
    RevisionConflictError,
    SchemaVersionError,
    SessionNotFoundError,
)
from .history import audit, rebuild, snapshot_problem, tombstone
from .lifecycle import Lifecycle
from .orphans import drop_logs
from .session import SessionEvent, SweepReport, VerifyReport
from .stores.abc import SessionStore, all_ids
from .stores.records import Stored, Work

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 500
"""Most sessions that are fetched, or removed in one transaction, at a time."""


def sweep(core: Core, at: datetime) -> SweepReport:
    """Fire the timed rows that are due at an instant, and remove items that have expired.

    It costs by what is due. A session whose row can't be fired is left as it is and named, and
    holds up nobody else.
    """
    fired: list[SessionEvent] = []
    failed: list[tuple[str, str]] = []
    after: tuple[datetime, str] | None = None
    while due := core.store.due(at, BATCH_SIZE, after):
        for _, session_id in due:
            try:
                fired.extend(core.change(session_id, FireDue(), at=at).events)
            except SessionNotFoundError:
                continue  # purged since it was listed
            except Exception as fault:
                # Be it the lifecycle's own code that fails: the other sessions are due as well.
                logger.exception("session %r is due and was not moved", session_id)
                failed.append((session_id, cause_in_words(fault)))
        after = due[-1]
    while core.store.drop_expired_items(at, BATCH_SIZE) == BATCH_SIZE:
        pass  # in several transactions, so that nobody waits long
    return SweepReport(tuple(fired), core.store.next_deadline(), tuple(failed))


def purge(core: Core, ended_before: datetime) -> int:
    """Remove final sessions that ended before an instant, in batches; returns how many."""
    removed = 0
    while ended := core.store.ended(ended_before, BATCH_SIZE):
        count = 0
        with core.batch() as batch:
            for stored in ended:
                count += _bury(core, stored, batch)
        if not count:
            return removed  # others are removing the same ones, or workers of theirs still run
        removed += count
    return removed


def _bury(core: Core, stored: Stored, batch: Batch) -> bool:
    session_id = stored.state.session_id
    if _worker_runs(core.store, session_id):
        return False  # who runs it learns from the store that it has to be stopped
    at = max(core.clock.now(), stored.state.updated_at)
    sealed = tombstone(stored.state, revision=stored.revision + 1, previous=stored.digest, at=at)
    try:
        core.store.bury(session_id, stored.revision, sealed)
    except (SessionNotFoundError, RevisionConflictError):
        return False
    drop_logs(core.store, session_id)
    batch.announce(sealed.event)
    return True


def _worker_runs(store: SessionStore, session_id: str) -> bool:
    worker = Work("worker")
    dead = (each for left in store.abandoned(session_id) for each in left.work)
    return worker in store.work_in(session_id) and worker not in dead


def compact(core: Core, session_id: str, keep: int) -> int:
    """Have a checkpoint stand for all but the last events of a session.

    Returns:
        How many events were replaced.

    Raises:
        SessionNotFoundError: There is no such session.
        CorruptRecordError: Its history does not verify; nothing was changed.
    """
    while True:
        stored, history = _settled(core.store, session_id)
        if stored is None:
            raise SessionNotFoundError(session_id=session_id)
        if problems := _problems(stored, history, core.lifecycle):
            record = f"the history of session {session_id!r}"
            raise CorruptRecordError(record=record, problems=problems)
        checkpoint = checkpoint_of([event for _, event in history], keep, core.lifecycle)
        if checkpoint is None:
            return 0
        try:
            return core.store.compact(checkpoint)
        except RevisionConflictError:
            continue  # purged or compacted meanwhile


@attrs.define
class _Tally:
    problems: list[str] = attrs.field(factory=list)
    sessions: int = 0
    events: int = 0
    locked: int = 0


def verify(core: Core) -> VerifyReport:
    """Rebuild every session from its history, check chain and legality, and compare.

    Of a session that is encrypted with a key that is not here, chain and legality are checked.
    """
    tally = _Tally(problems=list(core.store.check()))
    for session_id in all_ids(core.store):
        try:
            _verify_one(core, session_id, tally)
        except KeyMissingError:
            _verify_locked(core, session_id, tally)
        except (CorruptRecordError, SchemaVersionError, LifecycleError) as fault:
            tally.problems.append(str(fault))
    problems = tuple(tally.problems)
    return VerifyReport(not problems, problems, tally.sessions, tally.events, tally.locked)


def _verify_one(core: Core, session_id: str, tally: _Tally) -> None:
    stored, history = _settled(core.store, session_id)
    tally.events += len(history)
    tally.sessions += stored is not None
    problems = _problems(stored, history, core.lifecycle)
    tally.problems += [f"session {session_id!r}: {problem}" for problem in problems]


def _problems(
    stored: Stored | None, history: tuple[tuple[bytes, SessionEvent], ...], lifecycle: Lifecycle
) -> tuple[str, ...]:
    """Say what is wrong with a session and its history."""
    found, digest, revision = audit(history, lifecycle)
    problems = list(found)
    try:
        rebuilt = rebuild((event for _, event in history), lifecycle)
    except DeserializationError as fault:
        problems += fault.problems
    else:
        if stored is None and rebuilt is not None:
            problems.append("its history goes on, but it is not stored")
        if stored is not None:
            problem = snapshot_problem(stored.state, rebuilt, lifecycle)
            problems += [] if problem is None else [problem]
    if stored is not None and (stored.revision, stored.digest) != (revision, digest):
        problems.append(f"is at revision {stored.revision}, its history at {revision}")
    return tuple(problems)


def _verify_locked(core: Core, session_id: str, tally: _Tally) -> None:
    try:
        chain = core.store.chain(session_id)
    except (CorruptRecordError, SchemaVersionError) as fault:
        tally.problems.append(str(fault))
        return
    tally.locked += 1
    tally.events += len(chain)
    found, *_ = audit(chain, core.lifecycle)
    tally.problems += [f"session {session_id!r}: {problem}" for problem in found]


def _settled(
    store: SessionStore, session_id: str
) -> tuple[Stored | None, tuple[tuple[bytes, SessionEvent], ...]]:
    """Read a session and its history as of one moment, while others may write."""
    stored = store.load(session_id)
    while True:
        history = store.history(session_id)
        again = store.load(session_id)
        if _revision(stored) == _revision(again):
            return stored, history
        stored = again


def _revision(stored: Stored | None) -> int | None:
    return None if stored is None else stored.revision
