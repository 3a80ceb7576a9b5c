"""What the tests of supervised sessions share: simulated time, children of all kinds, a watch."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, ParamSpec

import pytest
from managing import PATIENCE_SECONDS

from session_fsm import Session, SessionEvent
from session_fsm.aio import ChildContext, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.testing import run_simulated

P = ParamSpec("P")

LONGEST_TEST_SECONDS: Final = 10 * 86_400.0
"""Of simulated time: a sweeper lets it pass for ever while a test hangs."""


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test, which takes `clock` among its fixtures, on a loop that lives by that clock.

    One that hangs is ended when it has taken very long by the clock.
    """

    @functools.wraps(test)
    def run(*args: Any, clock: ManualClock, **fixtures: Any) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(LONGEST_TEST_SECONDS):
                await test(*args, clock=clock, **fixtures)

        run_simulated(in_time(), clock)

    return run


def in_real_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on a usual loop; one that hangs is ended."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 3 * PATIENCE_SECONDS))

    return run


class Watch:
    """Notes all events of a manager, and waits for sessions to come to a status."""

    def __init__(self, manager: SessionManager) -> None:
        self.events: list[SessionEvent] = []
        self._heard = asyncio.Event()
        manager.subscribe(self._hear)

    def _hear(self, event: SessionEvent) -> None:
        self.events.append(event)
        self._heard.set()

    def status(self, session_id: str) -> str | None:
        """Return the status that a session came to last."""
        targets = [each.target for each in self.events if each.session_id == session_id]
        return targets[-1] if targets else None

    def triggers(self, session_id: str) -> list[str | None]:
        """Return what was fired in a session, in order."""
        return [each.trigger for each in self.events if each.session_id == session_id]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, which is looked at whenever there is an event.

        What never comes fails the test, after an hour by the loop's time.
        """
        try:
            async with asyncio.timeout(3600):
                while not condition():
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            pytest.fail(f"what was waited for never happened; what did: {self.events}")

    async def ended(self, *session_ids: str) -> None:
        """Wait until sessions have ended."""
        await self.until(lambda: all(self.status(each) == "terminated" for each in session_ids))


class Diary:
    """What children did, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def __call__(self, entry: str) -> None:
        self.entries.append(entry)

    def child(
        self, fails: BaseException | None = None, after: float | None = None
    ) -> Callable[[ChildContext], Awaitable[None]]:
        """Return a child that notes its begin and its end.

        Args:
            fails: What it raises; None: it returns.
            after: Seconds after which it does; None: when it is asked to stop.
        """

        async def run(child: ChildContext) -> None:
            self(f"{child.name} begins")
            try:
                if after is None:
                    await child.stopping.wait()
                else:
                    await asyncio.sleep(after)
                if fails is not None:
                    raise fails
            except asyncio.CancelledError:
                self(f"{child.name} cancelled")
                raise
            self(f"{child.name} ends")

        return run


async def waits(child: ChildContext) -> None:
    """Do nothing until asked to stop."""
    await child.stopping.wait()


async def deaf(_: ChildContext) -> None:
    """Do nothing until cancelled."""
    await asyncio.Event().wait()


class Stubborn:
    """A child that ends neither when it is asked to nor when it is cancelled, but when let go."""

    def __init__(self) -> None:
        self.cancels = 0
        self._let_go = False
        self.begun = asyncio.Event()

    def let_go(self) -> None:
        """Let the next cancellation end it."""
        self._let_go = True

    async def __call__(self, _: ChildContext) -> None:
        """Run."""
        self.begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancels += 1
                if self._let_go:
                    raise


@asynccontextmanager
async def opened(clock: ManualClock, **options: Any) -> Any:
    """Open a manager that lives by a clock."""
    async with SessionManager(**{"clock": clock, "sweep_poll_seconds": 60.0, **options}) as manager:
        yield manager


def statuses(sessions: list[Session]) -> set[str]:
    """Return the statuses of sessions."""
    return {str(each.status) for each in sessions}
