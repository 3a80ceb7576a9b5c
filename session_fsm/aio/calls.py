"""Calls that may block, made in threads of their own, awaited on the loop.

Who is cancelled while such a call is awaited: if no thread has begun with it, it is never made. If
one has, it is waited for, and only then is the cancellation raised. So when `await` ends, by
whatever, the call is either undone or done, and never still being made.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from ..errors import ManagerClosedError
from .patience import called

T = TypeVar("T")

logger = logging.getLogger(__name__)

_CANCELLED: Final = "the call was cancelled "
NOT_BEGUN: Final = f"{_CANCELLED}before it began: nothing was changed"
GONE_THROUGH: Final = f"{_CANCELLED}after it began, and has gone through"
FAILED: Final = f"{_CANCELLED}after it began, and has failed: "
END_BEGUN: Final = f"{_CANCELLED}after it began: the session's end has begun, and goes on"
ENDED: Final = f"{_CANCELLED}after it began: the session was ended for that"
NOT_ENDED: Final = (
    f"{_CANCELLED}after it began: the session could not be ended, and is recovered later"
)
LEFT_ALONE: Final = f"{_CANCELLED}after it began: the session lives, and nothing runs for it"
TASK_ENDED: Final = f"{_CANCELLED}after the task was begun: it has ended"
TASK_NOT_ENDED: Final = f"{_CANCELLED}after the task was begun: it could not be ended"
"""What is told of a cancelled call, in a note of its `CancelledError`."""


class Calls:
    """Makes blocking calls for one event loop.

    Args:
        max_threads: Most calls that are made at the same time; others wait for their turn.

    Threads: none but the loop's.
    """

    def __init__(self, max_threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_threads, thread_name_prefix="session_fsm")
        self._open = True
        self._making: set[asyncio.Future[Any]] = set()

    async def __call__(
        self,
        function: Callable[[], T],
        undo: Callable[[T], Awaitable[object]] | None = None,
        *,
        in_vain: Callable[[], bool] | None = None,
    ) -> T:
        """Make a call in a thread, and await what it returns.

        Args:
            function: What is called.
            undo: Awaited with what the call has returned, if nobody waits for that any longer.
            in_vain: Asked when the call is made: whether nothing can be done with what it has
                returned, because the manager is being closed. That is undone, too.

        Raises:
            asyncio.CancelledError: With a note that says what became of the call.
            ManagerClosedError: No calls are made any longer, or this one was in vain.
        """
        if not self._open:
            raise ManagerClosedError()
        call = _Call(partial(contextvars.copy_context().run, function))
        made = asyncio.get_running_loop().run_in_executor(self._pool, call.make)
        self._making.add(made)
        try:
            await asyncio.wait((made,))
        except asyncio.CancelledError as cancelled:
            if call.withdraw():
                made.cancel()
                cancelled.add_note(NOT_BEGUN)
                raise
            await until_done(made)
            fault = made.exception()
            cancelled.add_note(GONE_THROUGH if fault is None else f"{FAILED}{fault!r}")
            if fault is None and undo is not None:
                await _undone(undo(made.result()))
            raise
        else:
            returned = made.result()
            if undo is not None and in_vain is not None and in_vain():
                if await _undone(undo(returned)):
                    raise asyncio.CancelledError
                raise ManagerClosedError()
            return returned
        finally:
            # As long as something is to be undone, whoever closes waits for this call.
            self._making.discard(made)

    @property
    def is_open(self) -> bool:
        """Whether calls are made."""
        return self._open

    def begin(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Have something called that raises nothing, and that this is held open for.

        Raises:
            RuntimeError: There is no thread for it.
        """
        return asyncio.get_running_loop().run_in_executor(self._pool, function)

    def hold(self, future: asyncio.Future[None]) -> None:
        """Have whoever closes wait for a future, too."""
        self._making.add(future)

    def let_go(self, future: asyncio.Future[None]) -> None:
        """Have nobody wait for a future any longer, once those go on who were told until now."""
        asyncio.get_running_loop().call_soon(self._let_go, future)

    def _let_go(self, future: asyncio.Future[None]) -> None:
        self._making.discard(future)
        future.set_result(None)

    async def close(self, last: Callable[[], object] | None = None) -> None:
        """Let go of the threads, when the calls that were asked for are made.

        Args:
            last: One more call, made when all others are.
        """
        while self._making:
            await until_done(*self._making)
            await asyncio.sleep(0)  # whoever has made it may have something to undo by another one
        self._open = False
        try:
            if last is not None:
                await asyncio.get_running_loop().run_in_executor(self._pool, partial(called, last))
        finally:
            self._pool.shutdown()  # no thread has anything to do, so this is no wait


class Note:
    """The one note of a verb that makes several calls.

    Attributes:
        text: What a cancellation is told now; None: what the call says that is being made.
    """

    def __init__(self) -> None:
        self.text: str | None = None


@contextmanager
def noted() -> Iterator[Note]:
    """Have whoever is cancelled in a block told one thing of all calls in it."""
    note = Note()
    try:
        yield note
    except asyncio.CancelledError as cancelled:
        if note.text is not None:
            put_note(cancelled, note.text)
        raise


def put_note(cancelled: asyncio.CancelledError, text: str) -> None:
    """Give a cancellation a note, in the place of those that calls have given it."""
    notes: list[str] = getattr(cancelled, "__notes__", [])
    notes[:] = [each for each in notes if not each.startswith(_CANCELLED)]
    cancelled.add_note(text)


class _Call(Generic[T]):
    """A call that can be withdrawn until it has begun."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._deciding = threading.Lock()
        self._begun = False
        self._withdrawn = False

    def make(self) -> T:
        """Make the call, if it was not withdrawn; nobody waits for it then."""
        with self._deciding:
            self._begun = not self._withdrawn
        return called(self._function) if self._begun else cast(T, None)

    def withdraw(self) -> bool:
        """Keep the call from being made; returns whether it will not be."""
        with self._deciding:
            self._withdrawn = not self._begun
            return self._withdrawn


async def _undone(work: Awaitable[object]) -> bool:
    """Wait for what undoes a call; returns whether this task was cancelled meanwhile."""
    undoing = asyncio.ensure_future(work)
    cancelled = await until_done(undoing)
    if not undoing.cancelled() and (fault := undoing.exception()) is not None:
        logger.error("what nobody waits for any longer was not undone", exc_info=fault)
    return cancelled


async def until_done(
    *futures: asyncio.Future[Any], hurry: Callable[[], object] | None = None
) -> bool:
    """Wait for what can't be cut short.

    Args:
        *futures: All of them are waited for.
        hurry: Called if this task is cancelled meanwhile.

    Returns:
        Whether this task was cancelled meanwhile, which is left to the caller to heed.
    """
    cancelled = False
    while not all(each.done() for each in futures):
        try:
            await asyncio.wait(futures)
        except asyncio.CancelledError:
            cancelled = True
            if hurry is not None:
                hurry()
    return cancelled
