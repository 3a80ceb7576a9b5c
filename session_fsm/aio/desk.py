"""What every awaited verb goes by: the manager of threads, the threads, the clock, the sweeper."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from ..session import Session, SweepReport
from .calls import Calls
from .following import Following
from .given import as_given
from .holding import Holding
from .listening import Listening
from .moving import Moving
from .steps import SteppedManager
from .sweeping import Sweeper
from .timing import Timing

P = ParamSpec("P")
T = TypeVar("T")


def documented_by(blocking: type) -> Callable[[type[T]], type[T]]:
    """Give the verbs of a class the documentation of those of another one, which they await."""

    def documented(cls: type[T]) -> type[T]:
        for name, verb in vars(cls).items():
            if inspect.isfunction(verb) and not verb.__doc__ and hasattr(blocking, name):
                verb.__doc__ = getattr(blocking, name).__doc__
        return cls

    return documented


class Desk:
    """What the verbs of an open manager go by.

    Args:
        inner: The manager of threads.
        calls: Makes its calls.
        timing: What waits.
        poll_seconds: Longest sleep of the sweeper.

    Threads: none but the loop's.
    """

    def __init__(
        self, inner: SteppedManager, calls: Calls, timing: Timing, *, poll_seconds: float
    ) -> None:
        self.inner = inner
        self.calls = calls
        self.timing = timing
        self.listening = Listening(inner)
        self.following = Following(inner, timing)
        self.holding = Holding(inner, calls)
        self.sweeper = Sweeper(self._sweep, timing=timing, poll_seconds=poll_seconds)
        self.change = Moving(inner, calls, self.sweeper.expect)

    async def _sweep(self) -> SweepReport:
        report = await self.calls(self.inner.sweep)
        await self.holding.look()
        return report

    async def do(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call of the manager of threads, with its arguments as they are now."""
        given = [as_given(each) for each in args]
        named = {name: as_given(each) for name, each in kwargs.items()}
        done = await self.calls(lambda: cast(Callable[..., T], verb)(*given, **named))
        if isinstance(done, Session):
            self.expect(done)
        return done

    def expect(self, session: Session) -> None:
        """Have the sweeper wake when a session is due."""
        deadline = self.inner.deadline_of(session)
        if deadline is not None:
            self.sweeper.expect(deadline)
