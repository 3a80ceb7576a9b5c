"""Worker processes for tests: what runs them in the place of a supervisor, and what they run."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import textwrap
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs

from session_fsm.aio import ProcessWorker
from session_fsm.processes import (
    ProcessHandle,
    all_stats,
    tokens_of,
    wait_until_gone,
)
from session_fsm.stores import MemoryStore, SessionStore

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""How long a test waits for anything; only a deadlock takes that long."""

PAUSE = "import signal\nwhile True: signal.pause()"
"""A program that does nothing, for ever."""


FORKS_ALL_THE_WHILE = """
    import os, signal
    if os.fork() == 0:
        print("ready", flush=True)
        while os.fork() == 0:
            pass
        os._exit(0)
    while True: signal.pause()
"""
"""A program whose processes replace themselves without end, and hold whatever they have inherited.

No look at the processes is sure to see one of them: whoever reads from the other end of a pipe that
they hold learns that none is left.
"""


@attrs.define
class Stand:
    """The context of a child, as a supervisor would hand it over."""

    store: SessionStore = attrs.field(factory=MemoryStore)
    session_id: str = "chat/1"
    name: str = "sandbox"
    owner_id: str = "owner-1"
    stopping: asyncio.Event = attrs.field(factory=asyncio.Event)
    is_ready: asyncio.Event = attrs.field(factory=asyncio.Event)

    def ready(self) -> None:
        """Tell that the child can be worked with."""
        self.is_ready.set()


def program(source: str, *arguments: object) -> list[str]:
    """Return the words that run a Python program."""
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(source), *map(str, arguments)]


def says_ready(source: str) -> str:
    """Return a program that says `ready` and does nothing more, once its beginning is done."""
    return f"{textwrap.dedent(source)}\nprint('ready', flush=True)\n{PAUSE}"


def worker_of(source: str, *arguments: object, **options: Any) -> ProcessWorker:
    """Return a worker that runs a Python program."""
    return ProcessWorker(program(source, *arguments), **{"term_seconds": 20.0, **options})


def paused(source: str = "", **options: Any) -> ProcessWorker:
    """Return a worker that is ready when its beginning is done, and does nothing more."""
    return worker_of(says_ready(source), ready_line=b"ready", **options)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test on a loop of its own."""
    return asyncio.run(within_patience(work))


def number_of(worker: ProcessWorker) -> int:
    """Return the number of the process that a worker runs."""
    pid = worker.process_id()
    assert pid is not None
    return pid


async def within_patience(awaitable: Awaitable[T]) -> T:
    """Await something that a deadlock alone would hold up."""
    return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)


async def started(worker: ProcessWorker, stand: Stand) -> asyncio.Task[None]:
    """Begin a run, and wait until it is ready."""
    task = asyncio.ensure_future(worker(stand))
    ready = asyncio.ensure_future(stand.is_ready.wait())
    await within_patience(asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED))
    if task.done():
        ready.cancel()
        await task
    return task


@attrs.frozen
class Marked:
    """The processes that a test has begun, whatever became of their parents."""

    token: str

    def handles(self) -> list[ProcessHandle]:
        """Hold on to each that runs."""
        stats = [stat for stat in all_stats() if self.token in tokens_of(stat.pid)]
        taken = (ProcessHandle.take(stat.pid, stat.start_ticks) for stat in stats)
        return [handle for handle in taken if handle is not None]

    def pids(self) -> set[int]:
        """Return the number of each that runs."""
        with self.held() as handles:
            return {handle.pid for handle in handles}

    @contextmanager
    def held(self) -> Iterator[list[ProcessHandle]]:
        """Hold on to each that runs, for as long as the block is."""
        handles = self.handles()
        try:
            yield handles
        finally:
            for handle in handles:
                handle.close()

    def wait_until_gone(self) -> None:
        """Wait until none runs any longer."""
        with self.held() as handles:
            wait_until_gone(handles, PATIENCE_SECONDS)
            assert all(handle.is_gone() for handle in handles)


def has_ended(reader: int) -> bool:
    """Tell whether all who hold the other end of a pipe are gone; waits for that."""
    poll = select.poll()
    poll.register(reader, 0)
    return bool(poll.poll(PATIENCE_SECONDS * 1000))


def open_descriptors() -> set[str]:
    """Return what this process has open, but for what looks."""
    return {
        f"{name} {os.readlink(f'/proc/self/fd/{name}')}"
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
    }


def children() -> set[int]:
    """Return the processes that this one has begun, and has not reaped."""
    return {stat.pid for stat in all_stats() if stat.parent == os.getpid()}
