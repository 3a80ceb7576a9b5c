"""What durability costs, beside what people use: `make bench`.

Prints what an fsync costs where it runs, and refuses a file system on which nothing durable can be
measured. Then ours, the floor and the peers make durable moves, one caller and many; states are
written and read as JSON; and a move in memory is held against a bare trigger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from . import durable, memory, wire
from .measuring import (
    EXIT_NOT_DURABLE,
    NotDurableError,
    Record,
    durable_fsync_seconds,
    fsync_seconds,
    machine_lines,
    show,
)
from .peers import LangGraph
from .peers_async import Adk
from .subjects import Floor
from .targets import Verdict, verdict_lines

PACKAGES: Final = ("session_fsm", "transitions", "orjson", "langgraph-checkpoint-sqlite",
                   "openai-agents", "google-adk", "sqlalchemy", "aiosqlite",
                   "xstate-statemachine", "pydantic", "msgspec")  # fmt: skip


@attrs.frozen(kw_only=True)
class Extent:
    """How long everything is measured.

    Attributes:
        rounds: Turns of each subject with one caller, and in memory.
        rounds_of_many: Turns of each with many callers.
        callers: How many.
        seconds: The length of a turn with one caller; with many it is ten times that.
    """

    rounds: int = 30
    rounds_of_many: int = 7
    callers: int = 64
    seconds: float = 0.05


QUICK: Final = Extent(rounds=7, rounds_of_many=2, seconds=0.02)


@attrs.frozen
class Found:
    """All that was measured."""

    alone: durable.Durable
    many: durable.Durable
    wire: wire.Wire
    memory: Mapping[str, Record]


def measure(directory: Path, extent: Extent) -> Found:
    """Measure everything in new directories inside one."""
    with tempfile.TemporaryDirectory(dir=directory) as one:
        alone = durable.measure(Path(one), callers=1, rounds=extent.rounds, seconds=extent.seconds)
    with tempfile.TemporaryDirectory(dir=directory) as many:
        together = durable.measure(
            Path(many),
            callers=extent.callers,
            rounds=extent.rounds_of_many,
            seconds=extent.seconds * 10,
        )
    return Found(
        alone,
        together,
        wire.measure(extent.rounds, extent.seconds / 10),
        memory.measure(extent.rounds, extent.seconds / 2),
    )


def verdicts(found: Found) -> Iterator[Verdict]:
    """Yield the targets, each with what was found."""
    alone, many = found.alone, found.many
    yield Verdict("a durable move alone, of the floor's rate", alone.ratio(Floor.name), 0.7)
    for who, name, bound in (
        ("the rate of the floor with one caller", durable.ONE_BY_ONE, 5),
        ("the rate of the floor through a lock", Floor.name, 5),
        ("LangGraph's rate", LangGraph.name, 10),
        ("ADK's rate", Adk.name, 50),
    ):
        subject = f"{many.callers} callers, of {who}"
        yield Verdict(subject, many.ratio(name), bound, why_not=many.missing.get(name, ""))
    for size, verb in found.wire.records:
        ratio = found.wire.time_ratio(size, verb, "pydantic")
        subject = f"{verb} of a {size} state, of pydantic's time"
        why_not = found.wire.missing.get("pydantic", "")
        yield Verdict(subject, ratio, 1, "at most", why_not=why_not)
    ratio = 1 / found.memory[memory.MANAGED].ratio_to(found.memory[memory.STOCK])
    yield Verdict("a move in memory, of a bare trigger's time", ratio, 1, "at most")


def lines(directory: Path, fsync: float, extent: Extent) -> Iterator[str]:
    """Measure, and yield what came out as Markdown."""
    yield "# What durability costs, beside what people use"
    yield ""
    yield "Measured by `make bench`."
    yield ""
    yield from machine_lines(directory, fsync, PACKAGES)
    found = measure(directory, extent)
    yield ""
    yield "## Targets"
    yield ""
    yield from verdict_lines(verdicts(found))
    yield ""
    yield "## A durable move, one caller"
    yield ""
    yield (
        f"Medians of {extent.rounds} turns of {extent.seconds * 1000:.0f} ms; all subjects take"
        " turns, and a ratio is the median of the ratios of the rounds. A move is one change of"
        " one session, durable when the call returns where `synchronous` is FULL. Ours decides on"
        " the machine, and commits the state, an event with a chained digest and what its indexes"
        " and constraints ask for; the floor writes the same state and event by hand, into tables"
        " without either; a peer stores what it has for a change. What is not told to be set is"
        " the peer's own default."
    )
    yield ""
    yield from durable.lines(found.alone)
    yield ""
    yield f"## {found.many.callers} callers at once, each in a session of its own"
    yield ""
    yield (
        f"Medians of {extent.rounds_of_many} turns of {extent.seconds * 10:.1f} s. Threads of one"
        " manager, of one saver, of one store, and at one connection of the floor; tasks of one"
        " event loop for the awaited manager, ADK and openai-agents. A move's own time is of all"
        " callers together; p95 is what one caller waits. The floor that is never synced is what"
        " would be left if the disk cost nothing."
    )
    yield ""
    yield from durable.lines(found.many)
    yield ""
    yield "## States as JSON"
    yield ""
    yield from wire.lines(found.wire)
    yield ""
    yield "## A move in memory"
    yield ""
    yield (
        "The manager's has the lock, the event with its digest, the history and the telling of"
        " subscribers in it; the bare trigger has a status that changes."
    )
    yield ""
    yield from memory.lines(found.memory)


def main(
    arguments: Sequence[str] | None = None, fsync: Callable[[Path], float] = fsync_seconds
) -> int:
    """Measure, print, and keep what was printed where that is asked for.

    Args:
        arguments: Of the command line; None: its own.
        fsync: Measures what an fsync takes in a directory.

    Returns:
        The exit code: 3 where nothing durable can be measured.
    """
    whole = Extent()
    parser = argparse.ArgumentParser(description="Measure durability beside peers.")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="where files are")
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--rounds", type=int, help="turns of one caller")
    parser.add_argument("--callers", type=int, default=whole.callers, help="callers at once")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        seconds = durable_fsync_seconds(given.directory, fsync)
    except NotDurableError as refused:
        print(refused, file=sys.stderr)
        return EXIT_NOT_DURABLE
    print(f"an fsync takes {seconds * 1e6:.0f} µs here", file=sys.stderr)
    extent = attrs.evolve(QUICK if given.quick else whole, callers=given.callers)
    if given.rounds:
        extent = attrs.evolve(extent, rounds=given.rounds)
    show(lines(given.directory, seconds, extent), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
