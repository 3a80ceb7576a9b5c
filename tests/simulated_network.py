"""What lies between nodes and the database: it delays, loses and repeats what is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import attrs
from simulated_world import Process, World

T = TypeVar("T")


class LostError(Exception):
    """An answer did not come.

    Attributes:
        was_sent: Whether what was asked for may have been done.
    """

    def __init__(self, *, was_sent: bool) -> None:
        super().__init__("the answer was lost" if was_sent else "no connection")
        self.was_sent = was_sent


@attrs.frozen(kw_only=True)
class Trouble:
    """How bad it is: shares of all messages.

    Attributes:
        slow: Take up to twice as long as anybody waits.
        late: Take up to `late_seconds`.
        lost: Never arrive; of requests and of answers.
        cut: Their connection is cut, so that the sender knows at once that there is no answer.
        repeated: Requests that may arrive twice and do.
        stalled: Commits whose sender stands still when all that is left to be done is to send them.
        late_seconds: Longest that a message is under way.
    """

    slow: float = 0.0
    late: float = 0.0
    lost: float = 0.0
    cut: float = 0.0
    repeated: float = 0.0
    stalled: float = 0.0
    late_seconds: float = 45.0


class _Reply:
    """What becomes of a request, as its sender learns."""

    __slots__ = ("fault", "is_settled", "lost", "result", "until", "wake")

    def __init__(self, wake: Callable[[], None], until: float) -> None:
        self.wake = wake
        self.until = until
        self.is_settled = False
        self.lost = False
        self.result: Any = None
        self.fault: Exception | None = None

    def lose(self) -> None:
        if not self.is_settled:
            self.is_settled = self.lost = True
            self.wake()

    def answer(self, result: Any, fault: Exception | None) -> None:
        if not self.is_settled:
            self.is_settled = True
            self.result, self.fault = result, fault
            self.wake()


class Network:
    """Carries requests to the database, and answers back.

    Args:
        world: Time and chance.
        trouble: How bad it is; may be changed.

    Attributes:
        is_down: Whether the database is.
        stall: Lets a process stand still for some time.
    """

    def __init__(self, world: World, trouble: Trouble, stall: Callable[[Process], object]) -> None:
        self.world = world
        self.stall = stall
        self.trouble = trouble
        self.is_down = False

    def ask(
        self, process: Process, work: Callable[[], T], timeout: float, *, repeatable: bool = False
    ) -> T:
        """Have something done at the database, and return what comes of it.

        Args:
            process: Who asks.
            work: Done there, at one instant. It may raise what is to be raised here.
            timeout: How long the answer is waited for.
            repeatable: Whether it may be done although nobody waits for the answer any longer, and
                done twice. Anything else is a transaction, undone when its connection is lost.

        Raises:
            LostError: No answer came in time.
        """
        world = self.world
        me = world.me()
        if repeatable and world.chance.random() < self.trouble.stalled:
            self.stall(process)
            world.after(0.0, me.waker())
            me.wait()
        if not self._passes(process):
            world.after(timeout * world.chance.random(), me.waker())
            me.wait()
            raise LostError(was_sent=False)
        reply = _Reply(me.waker(), world.now + timeout)
        arrival = partial(self._arrive, process, work, reply, repeatable)
        fate = world.chance.random()
        trouble = self.trouble
        if fate < trouble.lost:
            world.after(timeout, reply.lose)
        elif fate < trouble.lost + trouble.cut:
            world.after(0.02 * world.chance.random(), reply.lose)
            world.after(0.02 * world.chance.random(), arrival)
        else:
            seconds = self._seconds(timeout)
            if seconds > timeout:
                world.after(timeout, reply.lose)
            world.after(seconds, arrival)
        me.wait()
        if reply.lost:
            raise LostError(was_sent=True)
        if reply.fault is not None:
            raise reply.fault
        result: T = reply.result
        return result

    def _passes(self, process: Process) -> bool:
        return not (self.is_down or process.is_cut_off)

    def _seconds(self, timeout: float) -> float:
        chance, trouble = self.world.chance, self.trouble
        fate = chance.random()
        if fate < trouble.late:
            return chance.uniform(0, trouble.late_seconds)
        if fate < trouble.late + trouble.slow:
            return chance.uniform(0, 2 * timeout)
        return 0.001 + 0.01 * chance.random()

    def _arrive(
        self, process: Process, work: Callable[[], Any], reply: _Reply, repeatable: bool
    ) -> None:
        world, trouble = self.world, self.trouble
        left = max(0.0, reply.until - world.now)
        if not self._passes(process) or (reply.is_settled and not repeatable):
            world.after(left, reply.lose)
            return
        result, fault = _done(work)
        if repeatable and trouble.repeated and world.chance.random() < trouble.repeated:
            seconds = world.chance.uniform(0, trouble.late_seconds)
            world.after(seconds, partial(self._arrive_again, process, work))
        seconds = self._seconds(left)
        if seconds > left or world.chance.random() < trouble.lost:
            world.after(left, reply.lose)
        else:
            world.after(seconds, partial(self._answer, process, reply, result, fault))

    def _arrive_again(self, process: Process, work: Callable[[], Any]) -> None:
        if self._passes(process):
            _done(work)

    def _answer(
        self, process: Process, reply: _Reply, result: Any, fault: Exception | None
    ) -> None:
        if self._passes(process):
            reply.answer(result, fault)
        else:
            self.world.after(max(0.0, reply.until - self.world.now), reply.lose)


def _done(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as fault:  # noqa: BLE001 - it is the answer
        return None, fault
