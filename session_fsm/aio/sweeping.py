"""The sweeper: timed rows are fired when they are due, and not only when somebody looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from ..session import SweepReport
from .timing import Timing

logger = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when the next deadline has come, and looks now and then for what others did.

    Args:
        sweep: Fires what is due.
        timing: What waits.
        poll_seconds: Longest sleep: a deadline that another process has set, and a worker that has
            to be stopped because another one has ended its session, are seen within this time.

    Threads: none but the loop's.
    """

    def __init__(
        self, sweep: Callable[[], Awaitable[SweepReport]], timing: Timing, *, poll_seconds: float
    ) -> None:
        self._sweep = sweep
        self._timing = timing
        self._poll = timedelta(seconds=poll_seconds)
        self._expected: datetime | None = None
        self._woken = asyncio.get_running_loop().create_future()

    def expect(self, deadline: datetime) -> None:
        """Be told that a timed row will be due; sleeps no longer than that."""
        if self._expected is None or deadline < self._expected:
            self._expected = deadline
            if not self._woken.done():
                self._woken.set_result(None)

    async def run(self) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            swept_at = self._timing.now()
            self._expected = None
            deadline = await self._sweep_once()
            # What was due and is still there could not be moved: that is not tried at once.
            if deadline is not None and deadline > swept_at:
                self.expect(deadline)
            await self._sleep(swept_at + self._poll)

    async def _sleep(self, until: datetime) -> None:
        """Wait for an instant, or for the first deadline that is expected."""
        while True:
            expected = self._expected or until
            self._woken = asyncio.get_running_loop().create_future()
            if not await self._timing.wait((self._woken,), until=min(expected, until)):
                return

    async def _sweep_once(self) -> datetime | None:
        try:
            return (await self._sweep()).next_deadline
        except Exception:
            # Be it the store that can't be reached: what is due stays due, and is tried again.
            logger.exception("a sweep failed; it is tried again")
            return None
