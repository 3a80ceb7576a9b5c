"""Many live supervised sessions in one process: `python -m benchmarks.supervised`.

Each subject has a process of its own, so that what it takes of memory is its own. The floor is what
no library can do without: one `asyncio` task for each session, which waits.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from session_fsm import aio
from session_fsm.aio import Child, ChildContext

from .measuring import file_system_of, resident_bytes, show, table

TOGETHER: Final = 100
"""So many are created, or ended, at the same time."""
SUBJECTS: Final = {
    "a task that waits": "the floor",
    "a session in memory": "no child",
    "a supervised session in memory": "one child",
    "a supervised session in a file": "one child, SQLite",
}

Many = Callable[[int], Awaitable[object]]


async def waits(child: ChildContext) -> None:
    """Do nothing until asked to stop."""
    await child.stopping.wait()


async def by_hundreds(make: Many, number: int) -> float:
    """Do something for each number; returns the seconds that it took."""
    begun = time.perf_counter()
    for first in range(0, number, TOGETHER):
        last = min(first + TOGETHER, number)
        await asyncio.gather(*(make(each) for each in range(first, last)))
    return time.perf_counter() - begun


async def tasks_that_wait(number: int) -> dict[str, float]:
    """Measure the floor."""
    end = asyncio.Event()
    tasks: list[asyncio.Task[bool]] = []

    async def make(_: int) -> None:
        tasks.append(asyncio.get_running_loop().create_task(end.wait()))

    before = resident_bytes()
    started = await by_hundreds(make, number)
    await asyncio.sleep(0)
    grown = resident_bytes() - before
    begun = time.perf_counter()
    end.set()
    await asyncio.gather(*tasks)
    return {"start": started, "bytes": grown, "end": time.perf_counter() - begun}


async def sessions(url: str, number: int, children: Sequence[Child]) -> dict[str, float]:
    """Measure sessions, with these children each."""
    async with aio.SessionManager(url) as manager:
        await manager.create("first", children=children)
        gc.collect()
        before = resident_bytes()
        started = await by_hundreds(
            lambda each: manager.create(f"s{each}", children=children), number
        )
        gc.collect()
        grown = resident_bytes() - before
        counts = await manager.counts()
        assert counts["active"] == number + 1
        ended = await by_hundreds(lambda each: manager.terminate(f"s{each}"), number)
        assert (await manager.counts())["terminated"] == number
    return {"start": started, "bytes": grown, "end": ended}


def measure(subject: str, number: int, directory: Path) -> dict[str, float]:
    """Measure one subject, in this process."""
    if subject == "a task that waits":
        return asyncio.run(tasks_that_wait(number))
    url = f"sqlite:///{directory}/s.db" if subject.endswith("file") else "memory://"
    children = [Child("agent", waits)] if "supervised" in subject else []
    return asyncio.run(sessions(url, number, children))


def lines(given: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield what came out as Markdown."""
    yield "# Live supervised sessions"
    yield ""
    yield (
        f"{given.sessions:,} at once in one process, {TOGETHER} started or ended at a time; for"
        f" each session, the median of {given.rounds} processes. Files are on {given.kind}."
    )
    yield ""
    rows = []
    for subject, told in SUBJECTS.items():
        found = [_in_a_process(subject, given) for _ in range(given.rounds)]

        def each(name: str, found: list[dict[str, float]] = found) -> float:
            number: int = given.sessions
            return statistics.median(one[name] for one in found) / number

        start, end, size = each("start") * 1e6, each("end") * 1e6, each("bytes")
        rows.append((f"{subject} ({told})", f"{start:.0f} µs", f"{end:.0f} µs", f"{size:,.0f}"))
    yield from table(("", "start", "end", "bytes"), rows)


def _in_a_process(subject: str, given: argparse.Namespace) -> dict[str, float]:
    with TemporaryDirectory(dir=given.directory) as directory:
        command = [
            sys.executable,
            "-m",
            "benchmarks.supervised",
            "--one",
            subject,
            "--directory",
            directory,
        ]
        run = subprocess.run(  # noqa: S603 - this very program
            [*command, "--sessions", str(given.sessions)],
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what a live supervised session costs.")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="where files are")
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each subject")
    parser.add_argument("--sessions", type=int, default=10_000, help="how many live at once")
    parser.add_argument("--one", choices=tuple(SUBJECTS), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(measure(given.one, given.sessions, given.directory)))
        return 0
    given.kind = file_system_of(given.directory)
    show(lines(given), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
