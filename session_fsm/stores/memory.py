"""The store in memory: nothing outlives the process.

It keeps to the same contract as a durable one, histories, digests and conflicts included.
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import attrs

from ..errors import (
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from ..history import NO_DIGEST, Sealed
from ..lifecycle import Lifecycle
from ..session import SessionEvent
from ..table import SESSION_LIFECYCLE
from .abc import Abandoned, Commit, SessionStore, Stored, Work, carried_over, ended_at, fired


@attrs.define
class _Record:
    stored: Stored
    deadline_at: datetime | None


@attrs.define
class _Claim:
    owner_id: str
    stop: bool = False


class MemoryStore(SessionStore):
    """Sessions in this process's memory.

    Args:
        lifecycle: The lifecycle whose sessions it holds.
    """

    url = "memory://"
    durable = False

    def __init__(self, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> None:
        self.lifecycle = lifecycle
        self._lock = threading.RLock()
        self._records: dict[str, _Record] = {}
        self._events: dict[str, list[Sealed]] = {}
        self._operations: dict[str, list[str]] = {}
        self._by_status: dict[str, dict[str, None]] = {}
        self._sorted: dict[str, list[str]] = {}
        self._deadlines: list[tuple[datetime, str]] = []
        self._claims: dict[str, dict[Work, _Claim]] = {}
        self._owners: set[str] = set()
        self._marks: dict[str, bytes] = {}
        self._undo: list[Callable[[], object]] | None = None
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether no session was ever created here; asked without waiting for a batch."""
        return not self._events

    # --- one session ----------------------------------------------------------------------

    def load(self, session_id: str) -> Stored | None:
        with self._open():
            record = self._records.get(session_id)
            return None if record is None else record.stored

    def tail(self, session_id: str) -> tuple[int, str]:
        with self._open():
            events = self._events.get(session_id)
            if not events:
                return 0, NO_DIGEST
            return events[-1].event.revision, events[-1].event.digest

    def commit(self, commit: Commit) -> None:
        with self._open():
            session_id = commit.session_id
            record = self._records.get(session_id)
            if commit.creates and record is not None:
                raise SessionExistsError(session_id=session_id)
            if not commit.creates and record is None:
                raise SessionNotFoundError(session_id=session_id)
            found, _ = self.tail(session_id)
            if (origin := carried_over(commit, found)) is not None:
                found = origin.event.revision
            if found != commit.expected_revision:
                raise RevisionConflictError(
                    session_id=session_id, expected=commit.expected_revision, found=found
                )
            self._remember(session_id)
            if origin is not None:
                self._events[session_id] = [origin]
            self._events.setdefault(session_id, []).extend(step.sealed for step in commit.steps)
            last = commit.steps[-1]
            event = last.sealed.event
            stored = Stored(last.state, event.revision, event.digest)
            self._place(session_id, _Record(stored, last.deadline_at))
            self._operations.setdefault(session_id, []).append(commit.operation_id)
            self._claim(commit)

    def _claim(self, commit: Commit) -> None:
        claims = self._claims.setdefault(commit.session_id, {})
        for work in commit.releases:
            claims.pop(work, None)
        for work in commit.claims:
            claims[work] = _Claim(commit.owner_id)
        if commit.stops_worker and (claim := claims.get(Work("worker"))) is not None:
            claim.stop = True
        if not claims:
            del self._claims[commit.session_id]

    def landed(self, operation_id: str) -> bool:
        with self._open():
            # Hardly ever asked here, where no answer is lost: not worth an index of its own.
            return any(operation_id in made for made in self._operations.values())

    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        with self._open():
            sealed = self._events.get(session_id, ())
            return tuple((each.body, each.event) for each in sealed)

    # --- many sessions --------------------------------------------------------------------

    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        with self._open():
            runs = []
            for status in dict.fromkeys(statuses):
                ids = self._ids_in(status)
                start = 0 if after is None else bisect_right(ids, after)
                runs.append(ids[start : start + limit])
            first = sorted(session_id for run in runs for session_id in run)[:limit]
            return tuple(self._records[session_id].stored for session_id in first)

    def _ids_in(self, status: str) -> list[str]:
        # Sorted when asked for, not on each move: a move must not cost by what is stored.
        if status not in self._sorted:
            self._sorted[status] = sorted(self._by_status.get(status, ()))
        return self._sorted[status]

    def counts(self) -> dict[str, int]:
        with self._open():
            return {status: len(ids) for status, ids in self._by_status.items() if ids}

    def traffic(self) -> dict[tuple[str, str], int]:
        with self._open():
            return fired(each.event for sealed in self._events.values() for each in sealed)

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        with self._open():
            found: list[tuple[datetime, str]] = []
            kept: list[tuple[datetime, str]] = []
            while len(found) < limit and (entry := self._first_deadline()) and entry[0] <= at:
                heapq.heappop(self._deadlines)
                if kept and kept[-1] == entry:
                    continue
                kept.append(entry)
                if after is None or entry > after:
                    found.append(entry)
            for entry in kept:
                heapq.heappush(self._deadlines, entry)
            return tuple(found)

    def next_deadline(self) -> datetime | None:
        with self._open():
            entry = self._first_deadline()
            return None if entry is None else entry[0]

    def _first_deadline(self) -> tuple[datetime, str] | None:
        """Return the first entry that still holds; those that don't are dropped on the way."""
        while self._deadlines:
            entry = self._deadlines[0]
            record = self._records.get(entry[1])
            if record is not None and record.deadline_at == entry[0]:
                return entry
            heapq.heappop(self._deadlines)
        return None

    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        with self._open():
            behind = (each for each in self._events if after is None or each > after)
            return tuple(heapq.nsmallest(limit, behind))

    # --- work and its owners --------------------------------------------------------------

    def enlist(self, owner_id: str) -> None:
        with self._open():
            self._owners.add(owner_id)

    def dismiss(self, owner_id: str) -> None:
        with self._lock:
            self._owners.discard(owner_id)

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        with self._open():
            return tuple(self._claims.get(session_id, ()))

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        with self._open():
            left: dict[tuple[str, str], list[Work]] = {}
            for each in sorted(self._claims) if session_id is None else (session_id,):
                for work, claim in self._claims.get(each, {}).items():
                    if claim.owner_id not in self._owners:
                        left.setdefault((each, claim.owner_id), []).append(work)
            return tuple(Abandoned(*key, tuple(work)) for key, work in left.items())

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        with self._open():
            return tuple(
                session_id
                for session_id, claims in self._claims.items()
                if (claim := claims.get(Work("worker"))) is not None
                and claim.stop
                and claim.owner_id == owner_id
            )

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        with self._open():
            claims = self._claims.get(session_id, {})
            self._remember(session_id)
            for each in work:
                if each in claims and claims[each].owner_id == owner_id:
                    del claims[each]
            if not claims:
                self._claims.pop(session_id, None)

    # --- ends -----------------------------------------------------------------------------

    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        with self._open():
            ends = [
                (end, session_id)
                for status in self.lifecycle.final
                for session_id in self._by_status.get(status, ())
                if (end := ended_at(self._records[session_id].stored.state, self.lifecycle))
                is not None
                and end < before
            ]
            return tuple(self._records[each].stored for _, each in heapq.nsmallest(limit, ends))

    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        with self._open():
            record = self._records.get(session_id)
            if record is None:
                raise SessionNotFoundError(session_id=session_id)
            if record.stored.revision != revision:
                raise RevisionConflictError(
                    session_id=session_id, expected=revision, found=record.stored.revision
                )
            self._remember(session_id)
            self._place(session_id, None)
            self._events[session_id] = [tombstone]
            self._operations.pop(session_id, None)
            self._claims.pop(session_id, None)

    # --- the store itself -----------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self._open():
            if self._undo is not None:
                raise StoreUnavailableError(problem="a batch is open already")
            self._undo = []
            try:
                yield
            except BaseException:
                for undo in reversed(self._undo):
                    undo()
                raise
            finally:
                self._undo = None

    def mark(self, name: str) -> bytes | None:
        with self._open():
            return self._marks.get(name)

    def set_mark(self, name: str, body: bytes) -> None:
        with self._open():
            if self._undo is not None:
                before = self._marks.get(name)
                self._undo.append(
                    lambda: (
                        self._marks.pop(name, None)
                        if before is None
                        else self._marks.update({name: before})
                    )
                )
            self._marks[name] = body

    def check(self) -> tuple[str, ...]:
        with self._open():
            return tuple(
                f"session {session_id!r}: no event has its revision"
                for session_id, record in self._records.items()
                if self.tail(session_id)[0] != record.stored.revision
            )

    def check_open(self) -> None:
        """Refuse to work for a store that was closed.

        Raises:
            StoreUnavailableError: It was closed.
        """
        if self._closed:
            raise StoreUnavailableError(problem="the store is closed")

    def close(self) -> None:
        with self._lock:
            self._closed = True

    # --- bookkeeping ----------------------------------------------------------------------

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            self.check_open()
            yield

    def _place(self, session_id: str, record: _Record | None) -> None:
        """Put a record in the place of another one, in every index."""
        before = self._records.get(session_id)
        old = None if before is None else before.stored.state.status
        new = None if record is None else record.stored.state.status
        if old is not None and old != new:
            del self._by_status[old][session_id]
            self._sorted.pop(old, None)
        if new is not None and old != new:
            self._by_status.setdefault(new, {})[session_id] = None
            self._sorted.pop(new, None)
        if record is None:
            self._records.pop(session_id, None)
            return
        self._records[session_id] = record
        if record.deadline_at is not None:
            heapq.heappush(self._deadlines, (record.deadline_at, session_id))
            if len(self._deadlines) > 64 + 2 * len(self._records):
                # Most entries are stale by now: build the heap from what still holds.
                self._deadlines = [
                    (each.deadline_at, key)
                    for key, each in self._records.items()
                    if each.deadline_at is not None
                ]
                heapq.heapify(self._deadlines)

    def _remember(self, session_id: str) -> None:
        """Note how a session was, for a batch that may be undone."""
        if self._undo is None:
            return
        record = self._records.get(session_id)
        kept: dict[str, Any] = {
            "_events": list(self._events.get(session_id, ())),
            "_operations": list(self._operations.get(session_id, ())),
            "_claims": {
                work: attrs.evolve(claim)
                for work, claim in self._claims.get(session_id, {}).items()
            },
        }

        def undo() -> None:
            self._place(session_id, record)
            for name, value in kept.items():
                if value:
                    getattr(self, name)[session_id] = value
                else:
                    getattr(self, name).pop(session_id, None)

        self._undo.append(undo)
