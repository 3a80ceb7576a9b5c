"""What the module `threading` is to actors: they wait for each other as threads do.

A manager asks the module for its locks. For the time of a run, the modules of the manager have this
one in its place, so that its own code is what is run, with its own locks, and two actors of one
node meet in it as two threads would.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from simulated_world import Actor, World

MODULES: Final = ("contexts", "core", "feeds", "manager", "slots", "telling", "waking", "workers")
"""The modules of `session_fsm` that a manager consists of and that use locks."""


class Lock:
    """A lock of actors; the first to come gets it next."""

    __slots__ = ("_holder", "_waiting", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._holder: object = None
        self._waiting: deque[Actor] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock."""
        me: Any = self._world.actor
        if self._holder is None:
            self._holder = me or self
            return True
        if not blocking:
            return False
        self._waiting.append(me)
        me.wait()
        return True

    def release(self) -> None:
        """Let go of the lock."""
        self._holder = None
        if self._waiting:
            self._holder = heir = self._waiting.popleft()
            self._world.after(0.0, heir.waker())

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """A lock that its holder may take again."""

    __slots__ = ("_depth",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._depth = 0

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock."""
        if self._holder is not (self._world.actor or self) and not super().acquire(blocking):
            return False
        self._depth += 1
        return True

    def release(self) -> None:
        """Let go of the lock, as often as it was taken."""
        self._depth -= 1
        if not self._depth:
            super().release()


class _Waiting:
    """Actors that wait for something, each for some time at most."""

    __slots__ = ("_wakers", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._wakers: list[Callable[[], None]] = []

    def wait(self, timeout: float | None) -> bool:
        me = self._world.me()
        self._wakers.append(me.waker(True))
        if timeout is not None:
            self._world.after(timeout, me.waker(False))
        return bool(me.wait())

    def wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            self._world.after(0.0, waker)


class Condition:
    """A condition of actors, over a lock."""

    def __init__(self, world: World, lock: Lock | None = None) -> None:
        self._lock = RLock(world) if lock is None else lock
        self._waiting = _Waiting(world)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody notifies."""
        self._lock.release()
        try:
            return self._waiting.wait(timeout)
        finally:
            self._lock.acquire()

    def notify_all(self) -> None:
        """Wake whoever waits."""
        self._waiting.wake()

    def __enter__(self) -> Condition:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Event:
    """An event of actors."""

    def __init__(self, world: World) -> None:
        self._is_set = False
        self._waiting = _Waiting(world)

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        self._is_set = True
        self._waiting.wake()

    def clear(self) -> None:
        """Have it not be set."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        return self._is_set or self._waiting.wait(timeout) or self._is_set


class Thread:
    """A thread is an actor of the process that begins it."""

    def __init__(self, world: World, target: Callable[[], object], name: str) -> None:
        self._world = world
        self._target = target
        self._name = name
        self._ended = Event(world)

    def start(self) -> None:
        """Begin."""
        self._world.begin(self._world.me().process, self._name, self._run)

    def _run(self) -> None:
        self._target()
        self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, for some time at most."""
        self._ended.wait(timeout)


class Threads:
    """Stands in the place of the module `threading`."""

    TIMEOUT_MAX = threading.TIMEOUT_MAX

    def __init__(self, world: World) -> None:
        self._world = world

    def Lock(self) -> Lock:  # noqa: N802 - as in the module
        """Return a lock."""
        return Lock(self._world)

    def RLock(self) -> RLock:  # noqa: N802 - as in the module
        """Return a lock that its holder may take again."""
        return RLock(self._world)

    def Condition(self, lock: Any = None) -> Condition:  # noqa: N802 - as in the module
        """Return a condition."""
        return Condition(self._world, lock)

    def Event(self) -> Event:  # noqa: N802 - as in the module
        """Return an event."""
        return Event(self._world)

    def Thread(  # noqa: N802 - as in the module
        self, target: Callable[[], object], name: str, daemon: bool | None = None
    ) -> Thread:
        """Return a thread, which ends with its process whatever it is told."""
        return Thread(self._world, target, name)

    def get_ident(self) -> int:
        """Return the number of the actor that runs now."""
        actor = self._world.actor
        return 0 if actor is None else actor.number


@contextmanager
def simulated_threads(world: World) -> Iterator[None]:
    """Have managers take actors for threads."""
    modules: list[Any] = [importlib.import_module(f"session_fsm.{name}") for name in MODULES]
    threads: Any = Threads(world)
    try:
        for module in modules:
            module.threading = threads
        yield
    finally:
        for module in modules:
            module.threading = threading
