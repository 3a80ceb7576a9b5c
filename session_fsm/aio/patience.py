"""Waits that whoever cancels can't cut short, for what may not be left half done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from ..looks import in_thread
from ..processes import LOOK_SECONDS, ProcessHandle

T = TypeVar("T")


class Patience:
    """The waits of one task. Cancelling it is noted, and heeded between them.

    None of what is waited for here is a task, so whoever cancels all tasks there are ends none.

    Attributes:
        cancels: How often the task was cancelled.
    """

    def __init__(self) -> None:
        self.cancels = 0

    async def made(
        self,
        function: Callable[[], T],
        hurry: Callable[[], object] | None = None,
        *,
        begin: Callable[[Callable[[], None]], object] = in_thread,
    ) -> T:
        """Make a call that may block; whoever cancels waits for it.

        Args:
            function: What is called.
            hurry: Called when this is cancelled.
            begin: Has it called. As it is, in a thread of its own, and not in the loop's pool of
                threads: other people's calls may have taken it up for long.
        """
        loop = asyncio.get_running_loop()
        made: asyncio.Future[T] = loop.create_future()
        begin(partial(_make, function, made, loop))
        while not made.done():
            try:
                await asyncio.wait((made,))
            except asyncio.CancelledError:
                self.cancels += 1
                if hurry is not None:
                    hurry()
        return made.result()

    async def first(self, *futures: asyncio.Future[Any], seconds: float | None = None) -> None:
        """Wait for the first of some futures, or so long; who cancels this ends the wait."""
        try:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(futures, timeout=seconds, return_when=first)
        except asyncio.CancelledError:
            self.cancels += 1

    async def gone(self, handles: Iterable[ProcessHandle], seconds: float) -> None:
        """Wait until processes have ended, or so long; who cancels this ends the wait."""
        watches = [Watch(handle) for handle in handles]
        try:
            if watches:
                await asyncio.wait([watch.gone for watch in watches], timeout=seconds)
        except asyncio.CancelledError:
            self.cancels += 1
        finally:
            for watch in watches:
                watch.close()


class Watch:
    """Tells when a process has ended.

    Attributes:
        gone: Done when it has.
    """

    def __init__(self, handle: ProcessHandle) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle = handle
        self.gone: asyncio.Future[None] = self._loop.create_future()
        if handle.fd is None:
            self._look()
        else:
            self._loop.add_reader(handle.fd, self._settle)

    def _look(self) -> None:
        if self._handle.is_gone():
            self._settle()
        elif not self.gone.done():
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _settle(self) -> None:
        if self._handle.fd is not None:
            self._loop.remove_reader(self._handle.fd)
        if not self.gone.done():
            self.gone.set_result(None)

    def close(self) -> None:
        """Watch no longer; the handle stays its owner's."""
        if self._handle.fd is not None:
            self._loop.remove_reader(self._handle.fd)
        self.gone.cancel()


def called(function: Callable[[], T]) -> T:
    """Make a call whose outcome is for a future; errors are its own.

    Raises:
        RuntimeError: It has raised `StopIteration`, which no future can hold.
    """
    try:
        return function()
    except StopIteration as fault:
        raise RuntimeError("what was called raised StopIteration") from fault


def _make(
    function: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop
) -> None:
    settle: Callable[[], None]
    try:
        settle = partial(future.set_result, called(function))
    except BaseException as fault:  # noqa: BLE001 - it is told to who waits
        settle = partial(future.set_exception, fault)
    with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits any longer
        loop.call_soon_threadsafe(settle)
