"""Forks that do something, and are killed before a step, in a write, or after some time."""

from __future__ import annotations

import os
import resource
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import attrs

DEADLOCK_SECONDS: Final = 60.0


class Fuse:
    """Counts steps, and kills the process before one of them.

    Args:
        last: The step before which it is killed, counted from 1; 0: none.
    """

    def __init__(self, last: int) -> None:
        self.steps = 0
        self._last = last

    def step(self, *_: object) -> None:
        """Note a step that is about to be done."""
        self.steps += 1
        if self.steps == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what the interpreter is about to do, if it changes files."""
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if event in _FILE_EVENTS or (event == "open" and (arguments[2] or 0) & writes):
            self.step()

    def lay(self) -> None:
        """Watch this process from now on, for as long as it lives."""
        connect = sqlite3.connect

        def connect_and_watch(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)
            connection.set_trace_callback(self.step)
            return connection

        sqlite3.connect = connect_and_watch  # type: ignore[assignment]  # in a fork that ends soon
        sys.addaudithook(self.audited)


_FILE_EVENTS: Final = frozenset(
    {"os.mkdir", "os.link", "os.remove", "os.rename", "os.chmod", "fcntl.flock", "sqlite3.connect"}
)


@attrs.frozen
class Child:
    """A fork that does something until it is killed.

    Attributes:
        process: Its id.
        said: Where it is heard.
    """

    process: int
    said: int

    def hear(self) -> bytes:
        """Return the next thing that it says; nothing if it has ended."""
        ready, _, _ = select.select([self.said], [], [], DEADLOCK_SECONDS)
        if not ready:
            os.kill(self.process, signal.SIGKILL)
            raise SystemExit("a fork does not come to an end")
        return os.read(self.said, 100)

    def end(self, after_seconds: float | None) -> int:
        """Wait for its death, or kill it some time after it has begun; returns its exit code."""
        begun = self.hear()
        if after_seconds is not None:
            assert begun == b"begun\n"
            select.select([], [], [], after_seconds)
            os.kill(self.process, signal.SIGKILL)
        else:
            while self.hear():
                continue
        os.close(self.said)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def fork(act: Callable[[], object], fuse: Fuse | None, most_bytes: int | None = None) -> Child:
    """Do something in a fork, which says that it begins, and how many steps it has done.

    Args:
        act: What is done.
        fuse: What kills it before a step; None: it is killed from outside, however late.
        most_bytes: The write that makes a file longer than this is torn there, and kills it.
    """
    hears, says = os.pipe()
    process = os.fork()
    if process:
        os.close(says)
        return Child(process, hears)
    try:
        os.write(says, b"begun\n")
        if fuse is not None:
            fuse.lay()
        if most_bytes is not None:
            _limit(most_bytes)
        act()
        os.write(says, b"%d\n" % (0 if fuse is None else fuse.steps))
        if fuse is None:
            signal.pause()  # it is killed a little late
        os._exit(0)
    except BaseException as fault:  # noqa: BLE001 - nothing of the parent may run here
        with suppress(OSError):
            print(f"{fault!r}", file=sys.stderr, flush=True)
        os._exit(1)


def _limit(most_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the interpreter ignores it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def unbroken(act: Callable[[], object]) -> tuple[int, float]:
    """Do something whole; returns its steps, and its length in seconds."""
    counted = fork(act, Fuse(0))
    begun = time.monotonic()
    assert counted.hear() == b"begun\n"
    steps = int(counted.hear())
    seconds = time.monotonic() - begun
    counted.end(None)
    return steps, seconds


def in_another_process(action: Callable[[], object]) -> None:
    """Do something in a process of its own, which has to kill itself in it."""
    process = os.fork()
    if process:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status == -signal.SIGKILL, status
        return
    try:
        action()
    except BaseException as fault:  # noqa: BLE001 - nothing of the parent may run here
        print(f"{fault!r}", file=sys.stderr, flush=True)
    os._exit(1)  # it should have died
