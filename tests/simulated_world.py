"""One thread in which many programs live: simulated time, and all chance from one seed.

An actor is a piece of a program that would be a thread of its own. It is ordinary blocking code,
and runs until it waits: for an answer, for a time, or for a lock that another actor holds. Nothing
else lets others run, so that the same seed gives the same story.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet


class KilledError(BaseException):
    """The process in which an actor lived is dead: whatever it still tries comes to nothing."""


class Process:
    """What actors live in, and die with.

    Attributes:
        name: Shown in the story.
        is_dead: Whether it was killed.
        is_paused: Whether it stands still; nothing of it runs, and whatever comes for it waits.
        is_cut_off: Whether nothing that it sends arrives, nor what is sent to it.
        awake_since: When it began to run, or went on last.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_paused = False
        self.is_cut_off = False
        self.awake_since = 0.0
        self.actors: dict[Actor, None] = {}
        self.waiting: list[Callable[[], None]] = []


class Actor:
    """Something that goes on by itself in a process."""

    __slots__ = ("_greenlet", "_turn", "name", "number", "process", "world")

    def __init__(
        self, world: World, process: Process, name: str, work: Callable[[], object], number: int
    ) -> None:
        self.world = world
        self.process = process
        self.name = name
        self.number = number
        self._turn = 0
        self._greenlet = greenlet(self._run, world.hub)
        process.actors[self] = None
        world.actors[self._greenlet] = self
        world.after(0.0, self.waker(work))

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except KilledError:
            pass
        except BaseException as fault:  # noqa: BLE001 - it belongs to the run, not to the actor
            self.world.failed(f"{self.process.name} {self.name}: {fault!r}", fault)
        finally:
            self._forget()

    def _forget(self) -> None:
        self.process.actors.pop(self, None)
        self.world.actors.pop(self._greenlet, None)

    def waker(self, value: Any = None) -> Callable[[], None]:
        """Return what lets the actor go on from where it waits next, once."""
        turn = self._turn

        def wake() -> None:
            if self._turn != turn or self.process.is_dead:
                return
            if self.process.is_paused:
                self.process.waiting.append(wake)
                return
            self._turn += 1
            self._greenlet.switch(value)

        return wake

    def wait(self) -> Any:
        """Let others run until somebody wakes this actor; returns what it was woken with."""
        if self.process.is_dead:
            raise KilledError
        return self.world.hub.switch()

    def kill(self) -> None:
        """End it where it waits."""
        self._turn += 1
        if self._greenlet:
            self._greenlet.throw(KilledError)
        self._forget()


class World:
    """Time, chance, and everybody.

    Args:
        seed: Of all that happens.

    Attributes:
        now: Seconds since the beginning, by the one true time.
        chance: What all choices are made with.
        story: What happened, in order.
        faults: What should never be, in words.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.story: list[tuple[float, str]] = []
        self.faults: list[str] = []
        self.causes: list[BaseException] = []
        self.hub = getcurrent()
        self.actors: dict[greenlet, Actor] = {}
        self.checks: list[Callable[[], None]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # --- what happens ---------------------------------------------------------------------

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Have something happen after some time."""
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, event))

    def begin(self, process: Process, name: str, work: Callable[[], object]) -> Actor:
        """Begin something that goes on by itself."""
        self._number += 1
        return Actor(self, process, name, work, self._number)

    def run(self, until: float) -> None:
        """Let time pass until an instant, or until something is wrong."""
        events, checks, faults = self._events, self.checks, self.faults
        while events and events[0][0] <= until:
            self.now, _, event = heapq.heappop(events)
            event()
            for check in checks:
                check()
            if faults:
                return
        self.now = max(self.now, until)

    def tell(self, line: str) -> None:
        """Add to the story."""
        self.story.append((self.now, line))

    def failed(self, fault: str, cause: BaseException | None = None) -> None:
        """Note what should never be; the run ends with it."""
        self.tell(f"WRONG: {fault}")
        self.faults.append(fault)
        if cause is not None:
            self.causes.append(cause)

    # --- actors ---------------------------------------------------------------------------

    @property
    def actor(self) -> Actor | None:
        """Who runs now; None: nobody, time itself is at work."""
        return self.actors.get(getcurrent())

    def me(self) -> Actor:
        """Return who runs now."""
        actor = self.actors[getcurrent()]
        if actor.process.is_dead:
            raise KilledError
        return actor

    def sleep(self, seconds: float) -> None:
        """Have the actor that runs now wait for some time."""
        me = self.me()
        self.after(max(0.0, seconds), me.waker())
        me.wait()

    # --- processes ------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """End a process at once, with no chance to tidy up."""
        process.is_dead = True
        process.waiting.clear()
        while process.actors:
            next(iter(process.actors)).kill()

    def pause(self, process: Process) -> None:
        """Let a process stand still."""
        process.is_paused = True

    def resume(self, process: Process) -> None:
        """Let a process go on: what has come for it meanwhile comes now, in order."""
        process.is_paused = False
        process.awake_since = self.now
        waiting, process.waiting = process.waiting, []
        for event in waiting:
            self.after(0.0, event)
