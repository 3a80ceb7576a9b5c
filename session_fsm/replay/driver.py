"""Rows of a log become moves of sessions, each session at the log's own times.

What a row does:

| row | session alive | session ended |
|---|---|---|
| begin | begins a turn (a task) unless one is in flight; wakes | a finding; a successor |
| a request too | also starts a conversation | in the successor |
| end | ends the turn in flight; without one, touches | trailing |
| exit | terminates; a turn in flight is dropped | trailing |
| other | touches, unless a turn is in flight | trailing |

The first row of an id creates and activates its session, then does its own work. A turn that no row
ends has ended at the session's last row before a gap longer than the quiet gap. Deadlines between
rows fire at their own time.

The position in the log and the tallies are kept in the store, in the same transaction as the moves:
whenever the replay is killed, it goes on from there.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from time import perf_counter
from typing import Final

import attrs

from ..clock import ManualClock
from ..compaction import fired
from ..errors import StateInvalidError, TransitionError
from ..fields import MAX_ID_CHARACTERS
from ..manager import SessionManager
from ..session import Session
from ..state import SessionConfig
from ..stores.abc import SessionStore
from .reading import Log
from .report import (
    LOG_SESSION,
    ReplayError,
    Report,
    Tally,
    log_session,
    make_report,
    sessions_of,
)
from .rows import LogRow, RowKind

ROWS_PER_BATCH: Final = 1000
"""How many rows share a transaction; the same report comes of any number."""
RESUMED_FROM: Final = "resumed_from"

_MARK: Final = "replay"
_TURN: Final = "turn"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.define
class _Track:
    """A session of the log, and what is known of its last life."""

    session: Session
    last_row_at: datetime

    @property
    def in_turn(self) -> bool:
        return bool(self.session.state.active_tasks)


def replay(
    log: Log,
    store: SessionStore,
    *,
    timeout_minutes: int | None = 30,
    quiet_gap_seconds: float = 120.0,
    on_progress: Callable[[int, int], None] | None = None,
    stopwatch: Callable[[], float] = perf_counter,
    rows_per_batch: int = ROWS_PER_BATCH,
) -> Report:
    """Drive the sessions of a log through a manager on a store, and report what became of them.

    Args:
        log: What was read; its rows in the order of time.
        store: Where the sessions are kept. If it holds a part of this replay, that is gone on with.
        timeout_minutes: Minutes after which a session without a turn expires; None: never.
        quiet_gap_seconds: A gap longer than this ends a turn that no row has ended.
        on_progress: Told how many rows are done, and how many there are.
        stopwatch: Tells seconds, for the rate in the report alone.
        rows_per_batch: How many rows share a transaction.

    Returns:
        The report, which does not depend on interruptions but for its rate.

    Raises:
        StateInvalidError: A setting is out of its range; nothing changed.
        ReplayError: The store holds the replay of another input, or one with other settings; or
            somebody else replays into it at the same time; or a session in it was compacted.
        StoreError: The store failed; what is durable can be gone on with.
    """
    if rows_per_batch < 1:
        raise StateInvalidError(problems=("rows_per_batch: expected at least 1",))
    driver = _Driver(store, log, timeout_minutes, quiet_gap_seconds)
    with driver.manager:
        began, start = stopwatch(), driver.tally.position
        driver.run(rows_per_batch, on_progress)
        seconds = stopwatch() - began
        done = driver.tally.position - start
        rate = done / seconds if done and seconds > 0 else None
        return make_report(log, driver.manager, driver.tally, rate)


class _Driver:
    def __init__(
        self, store: SessionStore, log: Log, timeout_minutes: int | None, quiet_gap_seconds: float
    ) -> None:
        if not 0 <= quiet_gap_seconds < timedelta.max.total_seconds():
            problem = "quiet_gap_seconds: expected at least 0, and less than 3 million years"
            raise StateInvalidError(problems=(problem,))
        self._config = SessionConfig(timeout_minutes=timeout_minutes)
        self._quiet = timedelta(seconds=quiet_gap_seconds)
        self._rows = log.rows
        self._clock = ManualClock(_EPOCH)
        self.manager = SessionManager(store, lifecycle=store.lifecycle, clock=self._clock)
        self._store = store
        settings = [log.digest, len(log.rows), timeout_minutes, float(quiet_gap_seconds)]
        self._input = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self._tracks: dict[str, _Track] = {}
        self._by_session: dict[str, _Track] = {}
        self._quiet_ends: list[tuple[datetime, str]] = []
        try:
            self._mark = store.mark(_MARK)
            self.tally = self._resumed(self._mark)
        except BaseException:
            self.manager.close()
            raise

    # --- going on after an interruption ---------------------------------------------------

    def _resumed(self, body: bytes | None) -> Tally:
        """Return the tallies that the store holds; find the sessions that go with them."""
        if body is None:
            return Tally(input=self._input)
        tally = Tally.from_json(body)
        if tally.input != self._input:
            problem = (
                f"{self._store.url} holds the replay of another input or with other settings:"
                " replay into a new store"
            )
            raise ReplayError(problem=problem)
        last_row_at = {row.session: row.at for row in self._rows[: tally.position]}
        lives = list(sessions_of(last_row_at, self.manager))
        gone_on = {each.state.metadata.get(RESUMED_FROM) for each in lives}
        for session in lives:
            if session.session_id not in gone_on:
                name = log_session(session)
                self._tracks[name] = _Track(session, last_row_at[name])
        for name, track in self._tracks.items():
            self._by_session[track.session.session_id] = track
            if track.in_turn:
                heapq.heappush(self._quiet_ends, (track.last_row_at, name))
        return tally

    # --- the rows -------------------------------------------------------------------------

    def run(self, rows_per_batch: int, on_progress: Callable[[int, int], None] | None) -> None:
        """Replay the rows from the position on, batch by batch."""
        total = len(self._rows)
        while self.tally.position < total or not self.tally.finished:
            end = min(self.tally.position + rows_per_batch, total)
            with self.manager.batch():
                self._check_alone()
                for index in range(self.tally.position, end):
                    self._row(self._rows[index])
                if end == total:
                    self._advance(self._rows[-1].at if self._rows else _EPOCH)
                    self.tally.finished = True
                self.tally.position = end
                self._mark = self.tally.to_json()
                self._store.set_mark(_MARK, self._mark)
            if on_progress is not None:
                on_progress(end, total)

    def _check_alone(self) -> None:
        """Refuse to go on from a position that somebody else has moved."""
        if self._store.mark(_MARK) != self._mark:
            problem = f"{self._store.url} is being replayed into by somebody else"
            raise ReplayError(problem=problem)

    def _row(self, row: LogRow) -> None:
        self._advance(row.at)
        self._clock.set(row.at)
        track = self._tracks.get(row.session)
        if track is None:
            track = self._open(row, None)
        elif self._ended(track.session):
            if row.kind is not RowKind.BEGIN:
                self.tally.trailing_rows += 1
                track.last_row_at = row.at
                return
            self.tally.count("findings", f"begin_after_{self._end_of(track.session)}")
            track = self._open(row, track.session)
        track.last_row_at = row.at
        self._work(row, track)
        if track.in_turn:
            heapq.heappush(self._quiet_ends, (row.at, row.session))

    def _work(self, row: LogRow, track: _Track) -> None:
        session_id = track.session.session_id
        if row.kind is RowKind.BEGIN:
            if not track.in_turn:
                self._try(track, lambda: self.manager.begin_task(session_id, _TURN))
            if row.request:
                self._try(track, lambda: self.manager.start_conversation(session_id))
        elif row.kind is RowKind.EXIT:
            self._try(track, lambda: self._exit(session_id))
        elif row.kind is RowKind.END and track.in_turn:
            self._try(track, lambda: self.manager.end_task(session_id, _TURN, reason=row.event))
        elif not track.in_turn:
            self._try(track, lambda: self.manager.touch(session_id))

    def _exit(self, session_id: str) -> Session:
        session = self.manager.terminate(session_id, reason="exit", wait=False)
        for task in session.state.active_tasks:
            session = self.manager.end_task(session_id, task, reason="dropped: exit")
        return session

    def _try(self, track: _Track, verb: Callable[[], Session]) -> None:
        try:
            track.session = verb()
        except TransitionError as fault:
            self.tally.count("refusals", fault.refusal.kind)

    def _ended(self, session: Session) -> bool:
        return session.status in self.manager.lifecycle.final

    def _end_of(self, session: Session) -> str:
        return "expiry" if ended_by_clock(self.manager, session.session_id) else "exit"

    # --- opening --------------------------------------------------------------------------

    def _open(self, row: LogRow, before: Session | None) -> _Track:
        metadata = {LOG_SESSION: row.session}
        if before is not None:
            metadata[RESUMED_FROM] = before.session_id
            self.tally.successors += 1
        session = self.manager.create(
            self._free_id(row.session), config=self._config, metadata=metadata
        )
        track = self._tracks[row.session] = _Track(session, row.at)
        self._by_session[session.session_id] = track
        return track

    def _free_id(self, name: str) -> str:
        """Return the first id of `name`, `name~2`, `name~3`, … that is not in use."""
        for number in count(1):
            suffix = "" if number == 1 else f"~{number}"
            free = f"{name}{suffix}"
            if len(free) > MAX_ID_CHARACTERS:
                digest = hashlib.sha256(name.encode()).hexdigest()[:16]
                free = f"{name[: MAX_ID_CHARACTERS - 32].rstrip()}#{digest}{suffix}"
            if free not in self._by_session and self.manager.find(free) is None:
                return free
        raise AssertionError("unreachable: the numbers never end")

    # --- what happens between rows --------------------------------------------------------

    def _advance(self, to: datetime) -> None:
        """End the turns that went quiet before an instant, and fire what is due by then."""
        while self._quiet_ends and to - self._quiet_ends[0][0] > self._quiet:
            last_row_at, name = heapq.heappop(self._quiet_ends)
            track = self._tracks[name]
            if track.in_turn and track.last_row_at == last_row_at:
                self._clock.set(last_row_at)
                session_id = track.session.session_id
                track.session = self.manager.end_task(session_id, _TURN, reason="quiet")
        while (deadline := self.manager.next_deadline()) is not None and deadline <= to:
            self._clock.set(deadline)
            report = self.manager.sweep(at=deadline)
            for session_id in {event.session_id for event in report.fired}:
                if session_id in self._by_session:
                    self._by_session[session_id].session = self.manager.get(session_id)
            if report.failed:
                session_id, problem = report.failed[0]
                raise ReplayError(problem=f"session {session_id!r}: {problem}")


def ended_by_clock(manager: SessionManager, session_id: str) -> bool:
    """Tell whether a timed row is among those that ended a session."""
    rows = (
        manager.lifecycle.find(trigger, source)
        for trigger, source in fired(manager.history(session_id))
    )
    return any(row is not None and row.target is not None and row.deadline for row in rows)
