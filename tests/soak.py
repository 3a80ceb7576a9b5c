"""Sessions with children of all habits, for minutes, in one manager: nothing may grow.

    python tests/soak.py --seconds 60

Each round, some hundred sessions live for a day of simulated time on one SQLite file, are ended and
purged. Then it is counted what is there: tasks, threads, descriptors, blocks of memory. All threads
that the manager may have, and all readers that they may need, are there before: one more of either
is too many. The first half of the rounds warms up, for a manager keeps the machines of a thousand
sessions; what the last quarter has is compared with what the third had.

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
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
from chaos import live
from managing import PATIENCE_SECONDS, START
from supervised import opened

from session_fsm.aio import SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores import SessionStore, SqliteStore, sqlite_connection
from session_fsm.testing import run_simulated

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


def sample() -> Sample:
    """Count what is there."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        descriptors=len(os.listdir("/proc/self/fd")),
        blocks=sys.getallocatedblocks(),
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
    )


async def begin_all_threads(manager: SessionManager, clock: ManualClock) -> None:
    """Have as many calls made at the same time as the manager may make."""
    together = threading.Barrier(MOST_THREADS, timeout=PATIENCE_SECONDS)

    def meet(metadata: object) -> object:
        together.wait()
        return metadata

    names = [f"first-{number}" for number in range(MOST_THREADS)]
    for name in names:
        await manager.create(name)
    await asyncio.gather(*(manager.update(name, metadata=meet) for name in names))
    for name in names:
        await manager.terminate(name)
    await asyncio.sleep(1)
    await manager.purge(ended_before=clock.now())


def open_all_readers(store: SessionStore) -> None:
    """Have as many readers at the same time as the manager has threads."""
    assert isinstance(store, SqliteStore)
    with ExitStack() as readers:
        for _ in range(MOST_THREADS):
            readers.enter_context(store._connections.reading())


async def one_round(
    manager: SessionManager, clock: ManualClock, *, sessions: int, seed: int
) -> list[str]:
    """Have sessions live, end and go; returns what was wrong with them."""
    day = 86_400.0
    findings = await live(manager, clock, sessions=sessions, seed=seed, span_seconds=day)
    while page := await manager.list(limit=100):
        await asyncio.gather(*(manager.terminate(session.session_id) for session in page))
    await asyncio.sleep(60)
    gone = await manager.purge(ended_before=clock.now())
    return [
        *findings.problems,
        *([f"{gone} of {sessions} were purged"] if gone != sessions else []),
    ]


async def rounds(
    clock: ManualClock, directory: Path, *, sessions: int, seconds: float, least: int
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
        await begin_all_threads(manager, clock)
        open_all_readers(manager.store)
        while len(samples) < least or time.monotonic() < end:
            problems += await one_round(manager, clock, sessions=sessions, seed=len(samples))
            samples.append(sample())
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
        work = rounds(clock, Path(directory), sessions=sessions, seconds=seconds, least=least)
        samples, problems = run_simulated(work, clock)
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
