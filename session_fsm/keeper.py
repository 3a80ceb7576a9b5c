"""The verbs that keep a store in order: sweep, recover, purge, compact, verify."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final

from .clock import as_utc
from .core import Core
from .landing import landed_late
from .reader import SessionReader
from .recovering import emptied, recover
from .session import RecoveryReport, Session, SweepReport, VerifyReport
from .starting import Starting
from .stores.records import Taken, Work
from .upkeep import compact, purge, sweep, verify
from .workers import Workers

MAX_TAKEOVERS: Final = 3
"""A session that is taken over more often within an hour is ended: whoever runs it dies."""


class SessionKeeper(SessionReader):
    """Keeps the sessions of a core in order; arguments and threads as for the reader."""

    def __init__(self, core: Core, workers: Workers) -> None:
        super().__init__(core, workers)
        self._starting = Starting(core, workers)
        self._unrecovered: deque[Taken] = deque()

    def sweep(self, *, at: datetime | None = None) -> SweepReport:
        """Fire the timed rows that are due; costs by what is due, not by what is stored.

        Items of tables that have expired are removed.

        Args:
            at: The instant, aware; None: now.

        Returns:
            What was fired, and when to sweep again.
        """
        self._core.check_open()
        report = sweep(self._core, self._core.clock.now() if at is None else as_utc(at))
        finished, failed = self._workers.stop_ended()
        if not finished and not failed:
            return report
        return SweepReport(
            fired=report.fired + finished,
            next_deadline=self._core.store.next_deadline(),
            failed=report.failed + failed,
        )

    def recover(
        self,
        *,
        restart: Callable[[Session], Any] | None = None,
        max_takeovers: int = MAX_TAKEOVERS,
    ) -> RecoveryReport:
        """Clear away what dead owners left; nothing of a living one is touched.

        Their tasks are dropped, half-made starts and stops ended. What becomes of a session whose
        worker they ran is said by its `config.recovery`: it is put to rest, its worker is started
        anew here, or it ends.

        Args:
            restart: Called, as `start` of `create`, with each session whose worker is to be started
                anew, with no lock held; what it returns is the worker. None: these sessions are put
                to rest.
            max_takeovers: A session that was taken over more often within an hour is ended, where
                the store counts that.

        Returns:
            What was done, by session. Of those who recover at the same time, one gets each session.

        Raises:
            ValueError: No takeover at all is allowed.
            StateInvalidError: This thread is in a batch.
            FencedError: This manager itself is counted as dead.
        """
        check_takeovers(max_takeovers)
        self._core.check_open()
        self._starting.check("recover")
        begin = None if restart is None else partial(self._starting.restart, start=restart)
        return recover(
            self._core,
            self._starting,
            self._left_over(),
            restart=begin,
            max_takeovers=max_takeovers,
        )

    def _left_over(self) -> deque[Taken]:
        """Return what this manager has to recover besides what it is about to take over."""
        unmanned = self._workers.unmanned
        # Nobody knew that these would land, and what was started was stopped.
        for commit in landed_late(self._core.store, self._core.doubtful):
            unmanned.append((commit.session_id, commit.owner_id))
        # Each has a worker that does not run, and is nobody else's while this manager lives; unless
        # it is being stopped yet, or another one is there by now.
        for session_id, owner_id in tuple(emptied(unmanned)):
            if self._workers.has(session_id):
                unmanned.append((session_id, owner_id))
            else:
                self._unrecovered.append(_unmanned(session_id, owner_id))
        return self._unrecovered

    def purge(self, *, ended_before: datetime) -> int:
        """Remove sessions that ended before an instant; returns how many.

        A tombstone with the last revision and digest is left of each, from which an id that is
        used again goes on.
        A session whose worker still runs elsewhere is left until that was stopped.
        """
        self._core.check_open()
        self._workers.stop_ended()
        return purge(self._core, as_utc(ended_before))

    def compact(self, session_id: str, *, keep: int = 100) -> int:
        """Have one checkpoint stand for all but the last events of a session.

        What is left verifies as before, and tells the same state, traffic and digests; what the
        older events said of each step is gone for ever.

        Args:
            session_id: Key of a stored session.
            keep: How many of its last events stay; at least 1.

        Returns:
            How many events were replaced; 0 if it has no more than those that stay.

        Raises:
            SessionNotFoundError: There is no such session.
            CorruptRecordError: Its history does not verify; nothing was changed.
            ValueError: No event would stay.
        """
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep: expected a number of events from 1 on, got {keep!r}")
        self._core.check_open()
        return compact(self._core, session_id, keep)

    def verify(self) -> VerifyReport:
        """Rebuild every session from its history, check digests and moves, and compare."""
        self._core.check_open()
        return verify(self._core)


def _unmanned(session_id: str, owner_id: str) -> Taken:
    """Return a worker that is claimed and does not run, as what is to be recovered."""
    work = (Work("worker"),)
    return Taken(session_id=session_id, owner_id="", work=work, holder_id=owner_id)


def check_takeovers(most: object) -> None:
    """Accept how often a session may be taken over.

    Raises:
        ValueError: It is no number from 1 on.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"max_takeovers: expected at least 1, got {most!r}")
