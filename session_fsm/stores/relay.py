"""Threads that may go on, woken one after another.

Threads of Python run one at a time. Many that are woken at once get in each other's way: each finds
that it has to wait again, on another processor perhaps, and is woken once more. So one is woken,
and the first thing that it does is to have the next one woken.

Where something else keeps the interpreter busy, each of them waits for its turn there, and one
after another would take long: as soon as one was slow to wake, all are woken. One may not wake at
all for now, as a signal is handled on its thread: those who wait are to look, by `hurry`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

SLOW_SECONDS: Final = 0.004
"""Whoever needs longer to wake has others to compete with."""


class Runner:
    """A thread that waits until it may go on.

    Attributes:
        turn: Held from when the thread is to wait; released when it may go on.
        is_gone: Whether it is not to be woken any longer.
    """

    __slots__ = ("is_gone", "turn")

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.is_gone = False

    def go_on(self) -> None:
        """Let it go on; once more is harmless."""
        if self.turn.locked():
            self.turn.release()


class Relay:
    """Wakes threads, one after another.

    Args:
        seconds: Tells what has passed.

    Threads: safe.
    """

    __slots__ = ("_awaited", "_lock", "_seconds", "_since", "_waiting")

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._waiting: deque[Runner] = deque()
        self._awaited: Runner | None = None
        self._since = 0.0

    @property
    def is_running(self) -> bool:
        """Whether somebody is yet to wake."""
        return self._awaited is not None

    def wake(self, *runners: Runner) -> None:
        """Let threads go on, in order, behind those that are to be woken already.

        Each is to say that it is awake (`woke`, `pass_over`), or that it has left (`wake_all`).
        """
        with self._lock:
            self._waiting.extend(runners)
            if self._awaited is None:
                self._wake_next()

    def woke(self, runner: Runner) -> None:
        """Wake the next one, as this one is awake."""
        with self._lock:
            if self._awaited is not runner:
                return
            if self._is_slow:
                self._wake_rest()
            else:
                self._wake_next()

    def pass_over(self, runner: Runner) -> None:
        """Wake the next one, as this one has found out by itself that it may go on."""
        with self._lock:
            runner.is_gone = True
            if self._awaited is runner:
                self._wake_next()

    def hurry(self) -> None:
        """Wake all, if the one that is to wake has not for long."""
        with self._lock:
            if self._awaited is not None and self._is_slow:
                self._wake_rest()

    @property
    def _is_slow(self) -> bool:
        return self._seconds() - self._since > SLOW_SECONDS

    def wake_all(self, left: Runner, *runners: Runner) -> None:
        """Let everybody go on at once; whatever an interrupt has left undone is made good by that.

        Args:
            left: Who has left, and is not to be waited for, now or later.
            runners: Whom to wake besides; some may be awake.
        """
        with self._lock:
            left.is_gone = True
            self._waiting.extend(runners)
            self._wake_rest()

    def _wake_next(self) -> None:
        # Each stays in line until it may go on: what is interrupted is left to `wake_all`.
        while self._waiting:
            runner = self._waiting[0]
            if not runner.is_gone:
                self._awaited, self._since = runner, self._seconds()
                runner.go_on()
                self._waiting.popleft()
                return
            self._waiting.popleft()
        self._awaited = None

    def _wake_rest(self) -> None:
        for runner in self._waiting:
            runner.go_on()
        self._waiting.clear()
        self._awaited = None
