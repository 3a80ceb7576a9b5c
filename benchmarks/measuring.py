"""What the benchmarks share: turns in rounds, ratios, the cost of an fsync, facts of a machine.

Subjects take turns in short rounds, in one process, and a ratio is the median of the ratios of the
rounds: what slows the machine down slows all of them down.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

LEAST_FSYNC_SECONDS: Final = 50e-6
"""Below this nothing reaches a disk: what is measured there is no durability."""
EXIT_NOT_DURABLE: Final = 3
"""The exit code of a benchmark that refuses a directory."""


class NotDurableError(Exception):
    """The file system acknowledges an fsync too fast for anything durable to be measured on it."""

    def __init__(self, *, seconds: float, kind: str) -> None:
        super().__init__(
            f"an fsync takes {seconds * 1e6:.1f} µs on this file system ({kind}), less than"
            f" {LEAST_FSYNC_SECONDS * 1e6:.0f} µs: nothing durable can be measured here;"
            " name a directory on a disk by --directory"
        )
        self.seconds = seconds
        self.kind = kind


def fsync_seconds(directory: Path, times: int = 200) -> float:
    """Return the median time that 4 KiB, appended to a file, take to be on disk."""
    took = []
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        page = os.urandom(4096)
        for _ in range(times):
            begin = time.perf_counter()
            file.write(page)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
    return statistics.median(took)


def durable_fsync_seconds(
    directory: Path, measure: Callable[[Path], float] = fsync_seconds
) -> float:
    """Measure an fsync in a directory, and refuse it where that is too fast to be one.

    Raises:
        NotDurableError: It is.
    """
    seconds = measure(directory)
    if seconds < LEAST_FSYNC_SECONDS:
        raise NotDurableError(seconds=seconds, kind=file_system_of(directory))
    return seconds


def file_system_of(directory: Path) -> str:
    """Return the type of the file system of a directory; `unknown` where nothing tells."""
    real = directory.resolve()
    best, kind = -1, "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            mounted, found = line.split()[1:3]
            if len(mounted) > best and real.is_relative_to(mounted):
                best, kind = len(mounted), found
    return kind


def resident_bytes() -> int:
    """Return the resident set of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Turn:
    """What came of one turn of a subject.

    Attributes:
        moves: How many moves were made.
        seconds: How long it took from the first to the end of the last.
        latencies: What each move took, in seconds.
        failures: How many moves ended in an exception.
    """

    moves: int
    seconds: float
    latencies: Sequence[float] = ()
    failures: int = 0

    @property
    def rate(self) -> float:
        """Moves a second; 0 where none was made."""
        return self.moves / self.seconds if self.seconds else 0.0


@attrs.frozen
class Record:
    """The turns of one subject, in the order of the rounds; never empty."""

    turns: Sequence[Turn]

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return statistics.median(turn.rate for turn in self.turns)

    @property
    def each_seconds(self) -> float:
        """The median of what a move takes of the time of all callers together."""
        return statistics.median(turn.seconds / max(1, turn.moves) for turn in self.turns)

    @property
    def p95_seconds(self) -> float:
        """The time that 95 of 100 moves of all turns kept to; 0 where none was timed alone."""
        return percentile((each for turn in self.turns for each in turn.latencies), 0.95)

    @property
    def failures(self) -> int:
        """How many moves failed in all turns."""
        return sum(turn.failures for turn in self.turns)

    def ratio_to(self, other: Record) -> float:
        """Return the median of the ratios of the rates, round by round."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(
            mine.rate / theirs.rate if theirs.rate else float("inf") for mine, theirs in pairs
        )


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that this share of all does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


def in_turns(turns: dict[str, Callable[[], Turn]], rounds: int) -> dict[str, Record]:
    """Let subjects take turns, after one turn of each that does not count.

    Every other round goes backwards, so that none always follows the same one.
    """
    for turn in turns.values():
        turn()
    found: dict[str, list[Turn]] = {name: [] for name in turns}
    order = list(turns.items())
    for _ in range(rounds):
        for name, turn in order:
            found[name].append(turn())
        order.reverse()
    return {name: Record(each) for name, each in found.items()}


def repeated(act: Callable[[], object], seconds: float) -> Turn:
    """Do something again and again for so long, each time on the clock."""
    latencies = []
    begin = now = time.perf_counter()
    while now - begin < seconds:
        act()
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return Turn(len(latencies), now - begin, latencies)


def counted(act: Callable[[], object], times: int) -> Turn:
    """Do something so often, with one look at the clock before and one after."""
    begin = time.perf_counter()
    for _ in range(times):
        act()
    return Turn(times, time.perf_counter() - begin)


# --- what is told --------------------------------------------------------------------------------


def told_seconds(seconds: float) -> str:
    """Return a length of time in the unit that fits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def machine_lines(directory: Path, fsync: float, packages: Iterable[str]) -> Iterator[str]:
    """Yield what the figures were measured on; neither names nor paths of the machine."""
    known = ", ".join(f"{name} {version}" for name in packages if (version := version_of(name)))
    yield (
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()};"
        f" {platform.python_implementation()} {platform.python_version()},"
        f" SQLite {sqlite3.sqlite_version}; {file_system_of(directory)},"
        f" where an fsync of 4 KiB takes {fsync * 1e6:.0f} µs (median of 200)."
    )
    yield ""
    yield f"{known}."


def version_of(package: str) -> str | None:
    """Return the version of a package that is installed; None if it is not."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a Markdown table, its first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            rest = "|".join(f"{'-' * (width + 1)}:" for width in widths[1:])
            yield f"|{'-' * (widths[0] + 2)}|{rest}|"


def show(lines: Iterable[str], output: Path | None) -> None:
    """Print lines as they come, and keep them in a file where one is named."""
    printed = []
    for line in lines:
        print(line, flush=True)
        printed.append(line)
    if output is not None:
        output.write_text("\n".join([*printed, ""]), encoding="utf-8")
