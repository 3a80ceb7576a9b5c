"""Waiting on an event loop, by the clock that was handed in.

A clock that can be told to call at an instant, as a `ManualClock` can, wakes whoever waits when it
is moved there. Any other one is looked at again when its time should have come: a system's clock
may be set back, and a wait then goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, runtime_checkable

from ..clock import Clock

LONGEST_SLEEP_SECONDS: Final = 3600.0
"""A system's clock is looked at this often at least, however far the instant is."""


@runtime_checkable
class Alarms(Protocol):
    """A clock that calls when an instant has come."""

    def call_at(self, at: datetime, callback: Callable[[], object]) -> Callable[[], None]:
        """Have a callback called once the clock stands at an instant or later; on any thread.

        Returns:
            A function that takes it back.
        """
        ...


class Timing:
    """Waits on the running event loop by one clock.

    Args:
        clock: What tells the time.

    Threads: none but the loop's.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._alarms = clock if isinstance(clock, Alarms) else None

    def now(self) -> datetime:
        """Return the present instant."""
        return self.clock.now()

    def after(self, seconds: float) -> datetime:
        """Return the instant that is so many seconds from now; the last there is, if none is."""
        try:
            return self.clock.now() + timedelta(seconds=seconds)
        except OverflowError:
            return datetime.max.replace(tzinfo=self.clock.now().tzinfo)

    def seconds_until(self, at: datetime) -> float:
        """Return how many seconds are left until an instant; negative if it has passed."""
        return (at - self.clock.now()).total_seconds()

    def call_at(self, at: datetime, callback: Callable[[], object]) -> Callable[[], None]:
        """Have a callback called on this loop once an instant has come.

        Returns:
            A function that takes it back.
        """
        loop = asyncio.get_running_loop()
        if self._alarms is not None:
            return self._alarms.call_at(at, _on_loop(loop, callback))
        handle: asyncio.TimerHandle

        def look() -> None:
            nonlocal handle
            left = self.seconds_until(at)
            if left <= 0:
                callback()
                return
            handle = loop.call_later(min(left, LONGEST_SLEEP_SECONDS), look)

        handle = loop.call_later(max(0.0, min(self.seconds_until(at), LONGEST_SLEEP_SECONDS)), look)
        return lambda: handle.cancel()  # noqa: PLW0108 - whichever handle it is then

    @contextmanager
    def alarm(self, at: datetime | None) -> Iterator[asyncio.Future[None]]:
        """Give a future that is done when an instant has come; None: never."""
        rings: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        take_back = None if at is None else self.call_at(at, lambda: _ring(rings))
        try:
            yield rings
        finally:
            if take_back is not None:
                take_back()
            rings.cancel()

    async def sleep_until(self, at: datetime) -> None:
        """Wait until an instant has come."""
        with self.alarm(at) as rings:
            await rings

    async def wait(
        self, futures: Collection[asyncio.Future[Any]], *, until: datetime | None
    ) -> bool:
        """Wait until one of some futures is done, or an instant has come; none is cancelled.

        Returns:
            Whether one is done.
        """
        with self.alarm(until) as rings:
            await asyncio.wait({*futures, rings}, return_when=asyncio.FIRST_COMPLETED)
        return any(each.done() for each in futures)

    async def wait_event(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until an event is set; it is set here when the time has passed."""
        take_back = self.call_at(self.after(seconds), event.set)
        try:
            await event.wait()
        finally:
            take_back()


def _ring(rings: asyncio.Future[None]) -> None:
    if not rings.done():
        rings.set_result(None)


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> Callable[[], None]:
    def called() -> None:
        call_soon(loop, callback)

    return called


def call_soon(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: Any
) -> None:
    """Have something called on a loop from another thread; a loop that is closed hears nothing."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
