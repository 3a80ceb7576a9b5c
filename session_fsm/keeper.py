"""The verbs that keep a store in order: sweep, recover, purge, compact, verify."""

from __future__ import annotations

from datetime import datetime

from .clock import as_utc
from .reader import SessionReader
from .session import RecoveryReport, SweepReport, VerifyReport
from .upkeep import compact, purge, recover, sweep, verify


class SessionKeeper(SessionReader):
    """Keeps the sessions of a core in order; arguments and threads as for the reader."""

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

    def recover(self) -> RecoveryReport:
        """Clear away what dead owners left; nothing of a living one is touched."""
        self._core.check_open()
        return recover(self._core)

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
