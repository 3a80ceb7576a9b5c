"""Sessions with children of all habits, for minutes, in one manager: nothing may grow.

    python tests/soak.py --seconds 60

Each round, some hundred sessions live for a day of simulated time on one SQLite file, are ended and
purged; all that time their feeds are followed. Beside them, in real time, live sessions with
processes of the operating system, messages and tables. Then it is counted what is there: tasks,
threads, descriptors, blocks of memory. All threads that the managers may have, and all readers that
they may need, are there before: one more of either is too many. The first half of the rounds warms
up, for a manager keeps the machines of a thousand sessions; what the last quarter has is compared
with what the third had.

What is purged leaves a tombstone, so the file grows by design, and SQLite's caches of pages with it
up to their bound. The program makes that bound small, and has the C library keep no free memory for
each thread: what grows then is kept by somebody.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from chaos import live
from managing import PATIENCE_SECONDS, START
from supervised import opened

from session_fsm.aio import (
    Child,
    ChildContext,
    ContextManager,
    ProcessWorker,
    RestartLimit,
    SessionManager,
)
from session_fsm.aio.following import FEED_THREADS
from session_fsm.clock import SYSTEM_CLOCK, Clock, ManualClock
from session_fsm.stores import SessionStore, SqliteStore, sqlite_connection
from session_fsm.testing import run_simulated

Result = TypeVar("Result")

MOST_GROWTH: Final = {"blocks": 1.01, "resident_bytes": 1.05}
"""Of the memory, from the third quarter of the rounds to the last."""
FEWEST_ROUNDS: Final = 8
MOST_THREADS: Final = 16


@attrs.frozen(kw_only=True)
class Sample:
    """What is there after a round."""

    tasks: int
    threads: int
    descriptors: int
    blocks: int
    resident_bytes: int


def sample(others: int) -> Sample:
    """Count what is there; besides the tasks of this loop there are others."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        tasks=len(asyncio.all_tasks()) + others,
        threads=threading.active_count(),
        descriptors=len(os.listdir("/proc/self/fd")),
        blocks=sys.getallocatedblocks(),
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
    )


async def begin_all_threads(manager: SessionManager, clock: Clock, most: int) -> None:
    """Have as many calls made, and as many feeds read, at the same time as the manager may."""

    def meeting(number: int) -> Callable[[object], object]:
        together = threading.Barrier(number, timeout=PATIENCE_SECONDS)

        def meet(value: object = None) -> object:
            together.wait()
            return value

        return meet

    names = [f"first-{number}" for number in range(most)]
    for name in names:
        await manager.create(name)
    meet = meeting(most)
    await asyncio.gather(*(manager.update(name, metadata=meet) for name in names))
    meet = meeting(FEED_THREADS)
    feeds = manager._desk.following._calls
    await asyncio.gather(*(feeds(partial(meet, None)) for _ in range(FEED_THREADS)))
    for name in names:
        await manager.terminate(name)
    await asyncio.sleep(1)
    await manager.purge(ended_before=clock.now())


def open_all_readers(store: SessionStore, most: int) -> None:
    """Have as many readers at the same time as the manager has threads."""
    assert isinstance(store, SqliteStore)
    with ExitStack() as readers:
        for _ in range(most + FEED_THREADS):
            readers.enter_context(store._connections.reading())


class RealTime:
    """A manager on a loop of its own, in real time: its sessions have processes."""

    SESSIONS = 6
    THREADS = 4

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._manager = SessionManager(f"sqlite:///{directory}/real.db", max_threads=self.THREADS)
        self._worker = ProcessWorker(
            ["/bin/sh", "-c", "echo ready; read -r word; exit $word"],
            ready_line=b"ready",
            stdin="pipe",
        )
        self._made = ThreadPoolExecutor(1)
        self.wait(self._open())

    async def _open(self) -> None:
        await self._manager.__aenter__()
        await begin_all_threads(self._manager, SYSTEM_CLOCK, self.THREADS)
        open_all_readers(self._manager.store, self.THREADS)

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do something on the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20 * PATIENCE_SECONDS)

    async def one_round(self, number: int) -> list[str]:
        """Have sessions live, work and end, while another loop waits; returns what was wrong."""
        mine = asyncio.get_running_loop()
        return await mine.run_in_executor(self._made, lambda: self.wait(self._round(number)))

    async def _round(self, number: int) -> list[str]:
        ids = [f"{number}-{each}" for each in range(self.SESSIONS)]
        manager = self._manager
        everything = asyncio.ensure_future(self._follow(None))
        followed = [asyncio.ensure_future(self._follow(each)) for each in ids]
        wrong = [each for told in await asyncio.gather(*map(self._live, ids)) for each in told]
        await asyncio.gather(*followed)
        everything.cancel()
        await asyncio.wait([everything])
        await asyncio.sleep(0.01)
        gone = await manager.purge(ended_before=SYSTEM_CLOCK.now())
        return wrong if gone == len(ids) else [*wrong, f"{gone} of {len(ids)} were purged"]

    async def _follow(self, session_id: str | None) -> None:
        async for each in self._manager.events(session_id):
            if session_id is not None and each.event.target == "terminated":
                return

    async def _live(self, session_id: str) -> list[str]:
        manager = self._manager
        read: list[str] = []

        async def agent(child: ChildContext) -> None:
            async for message in child.inbox:
                read.append(message.content)
                table = child.manager.table(child.session_id, "read")
                await table.put(message.content, len(read), ttl_seconds=60)

        await manager.create(
            session_id,
            children=[
                ContextManager.child(),
                Child("agent", agent),
                Child("box", self._worker, signals_ready=True),
            ],
            restarts=RestartLimit(max_restarts=0),
        )
        sent = [f"message {each}" for each in range(5)]
        for text in sent:
            await manager.send_message(session_id, "user", text)
        while len((await manager.table(session_id, "read").items()).items) < len(sent):
            await asyncio.sleep(0.01)
        kept = [message.content for message in await manager.context(session_id).history()]
        match int(session_id[-1]) % 3:
            case 0:
                process_id = self._worker.process_id(session_id)
                assert process_id is not None
                os.kill(process_id, signal.SIGKILL)
            case 1:
                await self._worker.send(b"7\n", session_id)
            case _:
                await manager.terminate(session_id)
        while (session := await manager.get(session_id)).worker is not None:
            await asyncio.sleep(0.01)
        ended = session.status == "terminated"
        return [] if ended and read == kept == sent else [f"{session}: {read}, {kept}"]

    def tasks(self) -> int:
        """Return how many tasks there are on the loop."""
        return len(asyncio.all_tasks(self.loop))

    def close(self) -> None:
        """Close the manager and the loop."""
        self.wait(self._manager.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self._made.shutdown()


async def one_round(
    manager: SessionManager, clock: ManualClock, *, sessions: int, seed: int
) -> list[str]:
    """Have sessions live, end and go; returns what was wrong with them."""
    day = 86_400.0
    followed = [asyncio.ensure_future(_follow(manager, f"{seed}-{each}")) for each in range(5)]
    followed.append(asyncio.ensure_future(_follow(manager, None)))
    findings = await live(manager, clock, sessions=sessions, seed=seed, span_seconds=day)
    while page := await manager.list(limit=100):
        await asyncio.gather(*(manager.terminate(session.session_id) for session in page))
    await asyncio.sleep(60)
    for each in followed:
        each.cancel()
    await asyncio.wait(followed)
    gone = await manager.purge(ended_before=clock.now())
    return [
        *findings.problems,
        *([f"{gone} of {sessions} were purged"] if gone != sessions else []),
    ]


async def _follow(manager: SessionManager, session_id: str | None) -> None:
    async for _ in manager.events(session_id, poll_seconds=3600):  # of a day
        pass


async def rounds(
    clock: ManualClock,
    directory: Path,
    real: RealTime,
    *,
    sessions: int,
    seconds: float,
    least: int,
) -> tuple[list[Sample], list[str]]:
    """Do rounds for a while, at least a few; returns what was counted, and what was wrong."""
    samples: list[Sample] = []
    problems: list[str] = []
    end = time.monotonic() + seconds
    async with opened(
        clock,
        store=f"sqlite:///{directory}/soak.db",
        stop_grace_seconds=10.0,
        max_threads=MOST_THREADS,
    ) as manager:
        await begin_all_threads(manager, clock, MOST_THREADS)
        open_all_readers(manager.store, MOST_THREADS)
        while len(samples) < least or time.monotonic() < end:
            problems += await one_round(manager, clock, sessions=sessions, seed=len(samples))
            problems += await real.one_round(len(samples))
            samples.append(sample(real.tasks()))
    return samples, problems


def growth(samples: list[Sample]) -> list[str]:
    """Say what has grown, from the third quarter to the last."""
    quarter = len(samples) // 4
    third, last = samples[-2 * quarter : -quarter], samples[-quarter:]
    found = []
    for name in ("tasks", "threads", "descriptors"):
        before, after = (max(getattr(each, name) for each in part) for part in (third, last))
        if after > before:
            found.append(f"{name}: {before} -> {after}")
    for name, most in MOST_GROWTH.items():
        before, after = (
            statistics.median(getattr(each, name) for each in part) for part in (third, last)
        )
        if after > before * most:
            found.append(f"{name}: {before:,.0f} -> {after:,.0f}")
    return found


def soak(
    *, sessions: int, seconds: float, least: int = FEWEST_ROUNDS
) -> tuple[list[Sample], list[str]]:
    """Do rounds in a file of their own; returns what was counted, and what was wrong."""
    clock = ManualClock(START)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        real = RealTime(Path(directory))
        try:
            work = rounds(
                clock, Path(directory), real, sessions=sessions, seconds=seconds, least=least
            )
            samples, problems = run_simulated(work, clock)
        finally:
            real.close()
    return samples, [*problems, *growth(samples)]


def keep_no_free_memory() -> None:
    """Have all threads share one heap, and SQLite's caches be full within a round or two."""
    arena_max = -8
    assert ctypes.CDLL(None).mallopt(arena_max, 1)
    sqlite_connection.CACHE_KIB = 200  # type: ignore[misc]  # of this process alone


def main() -> int:
    """Soak, and print what was counted."""
    keep_no_free_memory()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--sessions", type=int, default=200)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of failures are what is asked for
    samples, problems = soak(sessions=given.sessions, seconds=given.seconds)
    total = given.sessions * len(samples)
    print(f"{total:,} sessions in {len(samples)} rounds of a simulated day")
    print(f"{'round':>5} {'tasks':>6} {'threads':>8} {'descriptors':>12} {'blocks':>10} {'MB':>7}")
    for number in sorted({0, len(samples) // 4, len(samples) // 2, len(samples) - 1}):
        each = samples[number]
        print(
            f"{number + 1:>5} {each.tasks:>6} {each.threads:>8} {each.descriptors:>12}"
            f" {each.blocks:>10,} {each.resident_bytes / 1e6:>7.1f}"
        )
    for problem in problems:
        print(problem, file=sys.stderr)
    print("something grows, or is wrong" if problems else "nothing grows")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
