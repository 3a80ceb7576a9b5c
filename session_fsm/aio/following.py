"""What all feeds of a manager share that are followed on its loop: threads, and one lookout.

Feeds are read in a few threads of their own, so that they never keep a verb waiting for one; and
however many are followed, what other processes did is looked for once in the shortest of their
intervals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from ..errors import ManagerClosedError
from ..session import FeedPage
from .calls import Calls
from .nursery import Nursery
from .steps import SteppedManager
from .timing import Timing, call_soon

T = TypeVar("T")

FEED_THREADS: Final = 2
"""Most feeds that are read at the same time."""


class Following:
    """Reads the feeds that are followed, and wakes whoever waits for more of one.

    Args:
        inner: The manager of threads.
        timing: What waits.

    Threads: none but the loop's.
    """

    def __init__(self, inner: SteppedManager, timing: Timing) -> None:
        self._inner = inner
        self._timing = timing
        self._calls = Calls(FEED_THREADS)
        self._looks = Nursery()
        self._polls: dict[object, float] = {}
        self._poll = 0.0
        self._take_back: Callable[[], None] | None = None
        self._closed = False

    async def position(self, session_id: str | None) -> int:
        """Return the position behind all that was committed so far."""
        return await self._calls(partial(self._inner.position, session_id))

    async def page(self, after: int, session_id: str | None) -> FeedPage | None:
        """Read what a feed has in hand next; None once the manager is closed."""
        if self._closed:
            return None
        try:
            return await self._calls(partial(self._inner.page_if_open, after, session_id))
        except ManagerClosedError:
            return None

    @asynccontextmanager
    async def waiting(
        self, session_id: str | None, poll_seconds: float
    ) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever there may be more of a feed, which is read next.

        Args:
            session_id: Whose feed; None: that of all sessions.
            poll_seconds: How often to look for what other processes did, at least.
        """
        loop, rung, key = asyncio.get_running_loop(), asyncio.Event(), object()
        if not self._closed:
            await self._calls(self._inner.begin_to_listen)
        end_listening = self._inner.listen(partial(call_soon, loop, rung.set), session_id)
        self._polls[key] = poll_seconds
        self._arm()
        try:
            yield rung
        finally:
            del self._polls[key]
            end_listening()
            if not self._polls:
                self._disarm()

    def _arm(self) -> None:
        """Have it looked for what others did when somebody wants to know next."""
        if not self._polls or self._looks or self._closed:
            return
        poll = min(self._polls.values())
        if self._take_back is None or poll < self._poll:
            self._disarm()
            self._poll = poll
            self._take_back = self._timing.call_at(self._timing.after(poll), self._due)

    def _disarm(self) -> None:
        if self._take_back is not None:
            self._take_back()
            self._take_back = None

    def _due(self) -> None:
        self._take_back = None
        if self._polls and not self._closed:
            look = self._looks.spawn(self._look(), "looks for what others did")
            # Whoever cancels all tasks there are does not end the looks.
            look.add_done_callback(lambda _: self._arm())

    async def _look(self) -> None:
        await self._calls(self._inner.look)

    async def close(self) -> None:
        """Read no more, and let go of the threads; who waits is woken by the manager's own end."""
        self._closed = True
        self._disarm()
        await self._looks.close()
        await self._calls.close()
