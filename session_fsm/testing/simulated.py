"""An event loop whose time is a clock's, and passes only when nothing is left to be done.

Programs that wait for hours run in milliseconds, in the same order each time: whenever every task
waits for a later instant, the clock is moved to the earliest one. `asyncio.sleep`, time-outs and
whatever waits by the clock itself agree on the time. Calls in threads take no time.

Source: `Clock` and its `autojump_threshold` follow Trio's `MockClock`.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ..clock import ManualClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that lives by a manual clock and moves it.

    What it can't know of is what happens outside of it: another process, or a socket to one, is
    waited for only while something of this program is on its way in a thread.

    Args:
        clock: The clock; nobody else should move it.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._start = clock.now()
        self._in_threads = 0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        """Return the seconds that have passed by the clock."""
        return (self._clock.now() - self._start).total_seconds()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Make a call in a thread; time stands still until it was made."""
        self._in_threads += 1
        made = super().run_in_executor(executor, func, *args)
        made.add_done_callback(self._made)
        return made

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Let go of the loop's own threads; time stands still until they have ended."""
        self._in_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._in_threads -= 1

    def _made(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1

    def _jump(self, timeout: float | None) -> bool:
        """Move the clock to the next instant at which there is something to do.

        Args:
            timeout: Seconds until the loop's own next timer; None: it has none.

        Returns:
            Whether there is something to do then.

        Raises:
            RuntimeError: Everything waits for what no clock brings.
        """
        if self._in_threads:
            return False
        alarm = self._clock.next_alarm()
        if timeout is None and alarm is None:
            raise RuntimeError("every task waits for something that no clock brings")
        now = self._clock.now()
        # A microsecond more: less than the loop's own resolution is lost in its sums.
        steps = [] if timeout is None else [timedelta(microseconds=math.ceil(timeout * 1e6) + 1)]
        if alarm is not None:
            steps.append(max(timedelta(0), alarm - now))
        self._clock.advance(min(steps))
        return True


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that jumps where another one would wait."""

    def __init__(self, jump: Callable[[float | None], bool]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; instead of waiting for nothing, have time pass."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        return [] if self._jump(timeout) else super().select(timeout)


def run_simulated(main: Coroutine[Any, Any, T], clock: ManualClock) -> T:
    """Run a coroutine to its end on a loop that lives by a clock; returns what it returns."""
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        return runner.run(main)
