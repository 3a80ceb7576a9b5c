"""Taking over what dead nodes have left, now and then, where many of them share a store."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from .timing import Timing

logger = logging.getLogger(__name__)


class Recoverer:
    """Recovers again and again.

    Args:
        recover: Takes over what is there to be taken.
        timing: What waits.
        every_seconds: How long it waits in between.

    Threads: none but the loop's.
    """

    def __init__(
        self, recover: Callable[[], Awaitable[object]], timing: Timing, *, every_seconds: float
    ) -> None:
        self._recover = recover
        self._timing = timing
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Recover, and wait, until cancelled."""
        while True:
            try:
                await self._recover()
            except Exception:
                # Be it the store that can't be reached: what was left is there the next time.
                logger.exception("nothing was recovered; it is tried again")
            await self._timing.wait((), until=self._timing.after(self._every_seconds))
