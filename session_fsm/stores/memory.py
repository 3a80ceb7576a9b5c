"""The store in memory: nothing outlives the process.

It keeps to the same contract as a durable one, histories, digests and conflicts included.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from functools import partial

from ..compaction import Checkpoint, fired
from ..errors import (
    FencedError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from ..history import NO_DIGEST, Sealed
from ..items import Item, ItemWrites, Written
from ..lifecycle import Lifecycle
from ..session import SessionEvent, positioned
from ..table import SESSION_LIFECYCLE
from .abc import SessionStore
from .memory_indexes import DeadlineIndex, StatusIndex
from .memory_items import MemoryItems, Undo
from .memory_lives import EventLog, Kept, Life, sealed
from .memory_work import MemoryWork
from .records import Abandoned, Commit, Fed, Stored, Taken, Work, carried_over, ended_at


class MemoryStore(SessionStore):
    """Sessions in this process's memory.

    Args:
        lifecycle: The lifecycle whose sessions it holds.
        start: The position behind which its first event stands; a multiple of 1024.
    """

    url = "memory://"
    durable = False
    commits_together = True

    def __init__(self, lifecycle: Lifecycle = SESSION_LIFECYCLE, *, start: int = 0) -> None:
        self.lifecycle = lifecycle
        self._lock = threading.RLock()
        self._lives: dict[str, Life] = {}
        self._by_status = StatusIndex(self._status_of)
        self._deadlines = DeadlineIndex(self._deadline_of)
        self._owners: set[str] = set()
        self._work = MemoryWork(self._is_alive)
        self._marks: dict[str, bytes] = {}
        self._log = EventLog(start)
        self._items = MemoryItems()
        self._undo: list[Undo] | None = None
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether no session was ever created here; asked without waiting for a batch."""
        return not self._lives

    # --- one session ----------------------------------------------------------------------

    def load(self, session_id: str) -> Stored | None:
        with self._open():
            life = self._lives.get(session_id)
            return None if life is None else life.stored

    def tail(self, session_id: str) -> tuple[int, str]:
        with self._open():
            life = self._lives.get(session_id)
            if life is None:
                return 0, NO_DIGEST
            return life.revision, sealed(life.history[-1]).event.digest

    def commit(self, commit: Commit) -> None:
        with self._lock:
            if self._closed:
                self.check_open()
            session_id = commit.session_id
            if not self._is_alive(commit.owner_id):
                raise FencedError(session_id=session_id, owner_id=commit.owner_id)
            life = self._lives.get(session_id)
            if commit.creates:
                life = self._begin(life, commit)
            elif life is None or life.state is None:
                raise SessionNotFoundError(session_id=session_id)
            elif life.revision != commit.expected_revision:
                raise RevisionConflictError(
                    session_id=session_id, expected=commit.expected_revision, found=life.revision
                )
            elif self._undo is not None:
                self._remember(session_id)
            if commit.writes is not None:
                self._write(session_id, commit.writes)
            last = commit.steps[-1]
            before, after = life.state, last.step.after
            life.state = after
            life.revision = last.revision
            if life.operations:
                life.history += commit.steps
                life.operations.append(commit.operation_id)
            else:  # made as long as they are: most lives in memory are short
                life.history = [*life.history, *commit.steps]
                life.operations = [commit.operation_id]
            self._log.add(commit.steps)
            if before is None:
                self._by_status.move(session_id, None, after.status)
            elif before.status != after.status:
                self._by_status.move(session_id, before.status, after.status)
            if life.deadline_at != last.deadline_at:
                life.deadline_at = last.deadline_at
                self._deadlines.move(session_id)
            if commit.claims or commit.releases or commit.stops_worker:
                self._work.claim(commit)

    def _begin(self, life: Life | None, commit: Commit) -> Life:
        """Make room for a session that is created."""
        session_id = commit.session_id
        if life is not None and life.state is not None:
            raise SessionExistsError(session_id=session_id)
        found = 0 if life is None else life.revision
        if (origin := carried_over(commit, found)) is not None:
            found = origin.event.revision
        if found != commit.expected_revision:
            raise RevisionConflictError(
                session_id=session_id, expected=commit.expected_revision, found=found
            )
        self._remember(session_id)
        if life is None:
            life = self._lives[session_id] = Life()
        if origin is not None:
            self._leave_only(life, origin)
        return life

    def landed(self, session_id: str, operation_id: str) -> bool:
        with self._open():
            life = self._lives.get(session_id)
            return life is not None and operation_id in life.operations

    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        with self._open():
            life = self._lives.get(session_id)
            history = [] if life is None else life.history.copy()
        return tuple((each.body, each.event) for each in map(sealed, history))

    # --- the feed -------------------------------------------------------------------------

    def feed(self, after: int, limit: int, session_id: str | None = None) -> Fed:
        with self._open():
            life = None if session_id is None else self._lives.get(session_id)
            told = self._log if session_id is None else life
            found = [] if told is None else told.behind(after, limit)
            removed = 0 if told is None else told.removed
            newest = self._log.newest
        events = tuple(positioned(position, sealed(each).event) for position, each in found)
        position = events[-1].position if len(events) == limit > 0 else newest
        return Fed(events, position, newest, removed)

    # --- many sessions --------------------------------------------------------------------

    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        with self._open():
            runs = [
                self._by_status.page(status, limit, after) for status in dict.fromkeys(statuses)
            ]
            first = sorted(session_id for run in runs for session_id in run)[:limit]
            return tuple(self._stored(first))

    def _stored(self, session_ids: Iterable[str]) -> Iterator[Stored]:
        for session_id in session_ids:
            if (stored := self._lives[session_id].stored) is not None:
                yield stored

    def counts(self) -> dict[str, int]:
        with self._open():
            return self._by_status.counts()

    def traffic(self) -> dict[tuple[str, str], int]:
        with self._open():
            lives = [life.history.copy() for life in self._lives.values()]
        return fired(sealed(each).event for history in lives for each in history)

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        with self._open():
            return self._deadlines.due(at, limit, after)

    def next_deadline(self) -> datetime | None:
        with self._open():
            entry = self._deadlines.first()
            return None if entry is None else entry[0]

    def _status_of(self, session_id: str) -> str | None:
        return _status(self._lives.get(session_id))

    def _deadline_of(self, session_id: str) -> datetime | None:
        life = self._lives.get(session_id)
        return None if life is None else life.deadline_at

    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        with self._open():
            behind = (each for each in self._lives if after is None or each > after)
            return tuple(heapq.nsmallest(limit, behind))

    # --- tables of a session --------------------------------------------------------------

    def item(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        with self._open():
            self._life_of(session_id)
            return self._items.find(session_id, table, key, at)

    def items(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> tuple[Item, ...]:
        with self._open():
            self._life_of(session_id)
            return tuple(self._items.page(session_id, table, limit, after, at))

    def write_items(
        self,
        session_id: str,
        expected_revision: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        with self._open():
            if not self._is_alive(owner_id):
                raise FencedError(session_id=session_id, owner_id=owner_id)
            found = self._life_of(session_id).revision
            if found != expected_revision:
                raise RevisionConflictError(
                    session_id=session_id, expected=expected_revision, found=found
                )
            return self._write(session_id, writes)

    def drop_expired_items(self, at: datetime, limit: int) -> int:
        with self._open():
            dropped, undo = self._items.drop_expired(at, limit)
            self._note(undo)
            return dropped

    def _life_of(self, session_id: str) -> Life:
        life = self._lives.get(session_id)
        if life is None or life.state is None:
            raise SessionNotFoundError(session_id=session_id)
        return life

    def _write(self, session_id: str, writes: ItemWrites) -> tuple[Written, ...]:
        written, undo = self._items.write(session_id, writes)
        self._note(undo)
        return written

    # --- work and its owners --------------------------------------------------------------

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        with self._open():
            self._owners.add(owner_id)

    def dismiss(self, owner_id: str) -> None:
        with self._lock:
            self._owners.discard(owner_id)

    def is_alive(self, owner_id: str) -> bool:
        with self._open():
            return self._is_alive(owner_id)

    def _is_alive(self, owner_id: str) -> bool:
        return owner_id in self._owners

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        with self._open():
            return self._work.of(session_id)

    def work_of(self, session_id: str, owner_id: str) -> tuple[Work, ...]:
        with self._open():
            return self._work.of(session_id, owner_id)

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        with self._open():
            return self._work.abandoned(session_id)

    def take_over(
        self, owner_id: str, limit: int, *, restarting: bool, passing_over: Collection[str] = ()
    ) -> tuple[Taken, ...]:
        with self._open():
            if not self._is_alive(owner_id):
                raise FencedError(session_id="", owner_id=owner_id)
            left = self.abandoned()
            others = {each.session_id for each in left if not restarting and self._restarts(each)}
            first = sorted({each.session_id for each in left} - others.union(passing_over))[:limit]
            for session_id in first:
                self._remember(session_id)
            now = self.clock.now()
            return tuple(
                taken
                for session_id in first
                for taken in self._work.take_over(session_id, owner_id, now)
            )

    def give_back(self, taken: Taken) -> None:
        with self._open():
            self._remember(taken.session_id)
            self._work.give_back(taken)

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        with self._open():
            return self._work.to_stop(owner_id)

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        with self._open():
            self._remember(session_id)
            self._work.release(session_id, work, owner_id)

    # --- ends -----------------------------------------------------------------------------

    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        with self._open():
            ends = [
                (end, stored.state.session_id, stored)
                for status in self.lifecycle.final
                for stored in self._stored(self._by_status.every(status))
                if (end := ended_at(stored.state, self.lifecycle)) is not None and end < before
            ]
            return tuple(stored for _, _, stored in heapq.nsmallest(limit, ends, key=_end))

    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        with self._open():
            life = self._lives.get(session_id)
            if life is None or life.state is None:
                raise SessionNotFoundError(session_id=session_id)
            if life.revision != revision:
                raise RevisionConflictError(
                    session_id=session_id, expected=revision, found=life.revision
                )
            self._remember(session_id)
            self._by_status.move(session_id, life.state.status, None)
            life.state = life.deadline_at = None
            life.revision = tombstone.event.revision
            self._leave_only(life, tombstone)
            life.operations = []
            self._work.drop(session_id)
            self._note([self._items.drop(session_id)])

    def _leave_only(self, life: Life, tombstone: Sealed) -> None:
        position = self._log.add_stone(tombstone)
        self._take_out(life, life.history)
        life.history = [tombstone]
        life.stone_position = position

    def _take_out(self, life: Life, events: Iterable[Kept]) -> None:
        """Take events of a life, oldest first, out of what the feed tells."""
        positions = [position for each in events if (position := life.position_of(each))]
        if positions:
            life.removed = positions[-1]
        undo = self._log.remove(positions)
        self._note([undo])

    def compact(self, checkpoint: Checkpoint) -> int:
        stands = checkpoint.sealed()
        session_id, revision = stands.event.session_id, stands.event.revision
        with self._open():
            life = self._lives.get(session_id)
            if life is None or life.state is None:
                raise SessionNotFoundError(session_id=session_id)
            history = [(each, sealed(each).event) for each in life.history[:-1]]
            digests = {
                event.revision: event.digest for _, event in history if event.kind != "checkpoint"
            }
            if digests.get(revision) != checkpoint.last_digest:
                found = life.revision
                raise RevisionConflictError(session_id=session_id, expected=revision, found=found)
            self._remember(session_id)
            self._take_out(life, (each for each, event in history if event.revision <= revision))
            later = (each for each, event in history if event.revision > revision)
            life.history = [stands, *later, life.history[-1]]
            # Each of them made one event at least.
            life.operations = life.operations[1 - len(life.history) :]
            return sum(each <= revision for each in digests)

    # --- the store itself -----------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self._open():
            if self._undo is not None:
                raise StoreUnavailableError(problem="a batch is open already")
            self._undo = [partial(self._log.cut, self._log.newest)]
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
            self._remember_mark(name)
            self._marks[name] = body

    def drop_mark(self, name: str) -> None:
        with self._open():
            self._remember_mark(name)
            self._marks.pop(name, None)

    def marks(self, prefix: str) -> tuple[tuple[str, bytes], ...]:
        with self._open():
            found = (mark for mark in self._marks.items() if mark[0].startswith(prefix))
            return tuple(sorted(found))

    def check(self) -> tuple[str, ...]:
        with self._open():
            return tuple(
                f"session {session_id!r}: no event has its revision"
                for session_id, life in self._lives.items()
                if sealed(life.history[-1]).event.revision != life.revision
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

    def _remember_mark(self, name: str) -> None:
        """Note what was kept under a name, for a batch that may be undone."""
        before = self._marks.get(name)
        self._note(
            [
                lambda: (
                    self._marks.pop(name, None)
                    if before is None
                    else self._marks.update({name: before})
                )
            ]
        )

    def _note(self, undo: Iterable[Undo]) -> None:
        """Note what undoes a change, for a batch that may be undone."""
        if self._undo is not None:
            self._undo.extend(undo)

    def _remember(self, session_id: str) -> None:
        """Note how a session was, for a batch that may be undone."""
        if self._undo is None:
            return
        life = copy(self._lives.get(session_id))
        if life is not None:
            life.history = life.history.copy()
            life.operations = life.operations.copy()
        claims_as_they_were = self._work.remembered(session_id)

        def undo() -> None:
            now = self._status_of(session_id)
            self._by_status.move(session_id, now, _status(life))
            if life is None:
                self._lives.pop(session_id, None)
            else:
                self._lives[session_id] = life
                self._deadlines.move(session_id)
            claims_as_they_were()

        self._undo.append(undo)


def _status(life: Life | None) -> str | None:
    return None if life is None or life.state is None else life.state.status


def _end(entry: tuple[datetime, str, Stored]) -> tuple[datetime, str]:
    return entry[:2]
