"""What verbs cost with a thousand sessions stored, and with a million: `make bench-scale`.

All stores are open at once and take turns, so that whatever the machine is busy with hits each size
alike. The stores are filled once and kept; each run works on copies.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

from . import scale_memory, scale_plot, scale_stores
from .measuring import (
    EXIT_NOT_DURABLE,
    NotDurableError,
    Record,
    Turn,
    durable_fsync_seconds,
    in_turns,
    machine_lines,
    show,
    table,
    told_seconds,
)
from .scale_verbs import TIMES, Store, read_through
from .targets import Verdict, verdict_lines

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
MOST_GROWTH: Final = 1.5
MOST_ROUNDS: Final = SIZES[0] // TIMES["move"] - 1
"""No move meets a session twice, and there are turns that do not count."""

Records = Mapping[str, Mapping[int, Record]]
"""The turns by verb and size."""


def measure(paths: Mapping[int, Path], rounds: int) -> Records:
    """Let the stores take turns at each verb."""
    with ExitStack() as held:
        turns = {}
        for size, path in paths.items():
            store = Store(
                scale_stores.url_of(path),
                size,
                moves=(rounds + 1) * TIMES["move"],
                warm=partial(read_through, path),
            )
            turns[size] = held.enter_context(closing(store)).verbs()
        return by_verb(turns, rounds)


def by_verb(turns: Mapping[int, Mapping[str, Callable[[], Turn]]], rounds: int) -> Records:
    """Let verbs take turns, in each of which the sizes follow each other.

    Args:
        turns: What does a turn, by size and verb.
        rounds: How many turns each has.
    """
    verbs = list(turns[min(turns)])
    flat = {f"{verb} {size}": turns[size][verb] for verb in verbs for size in turns}
    found = in_turns(flat, rounds)
    return {verb: {size: found[f"{verb} {size}"] for size in turns} for verb in verbs}


def growth(records: Mapping[int, Record]) -> dict[int, float]:
    """Return the cost with each size in proportion to the cost with the smallest."""
    least = records[min(records)]
    return {size: least.ratio_to(record) for size, record in records.items()}


def growth_verdicts(records: Records) -> Iterator[Verdict]:
    """Yield the targets of what verbs cost with more stored."""
    for verb, by_size in records.items():
        ratio, worst = max((ratio, size) for size, ratio in list(growth(by_size).items())[1:])
        subject = f"{verb}, with {worst:,} stored, of its cost with {min(by_size):,}"
        yield Verdict(subject, ratio, MOST_GROWTH, "at most")
    largest = max(records["open"])
    opening = records["open"][largest].each_seconds
    yield Verdict(f"opening a store of {largest:,}", opening * 1e3, 1000, "at most", "ms")


def verdicts(records: Records, living: scale_memory.Living | None, kept: int) -> Iterator[Verdict]:
    """Yield the targets, each with what was found."""
    yield from growth_verdicts(records)
    yield Verdict(
        f"machines kept after {scale_memory.USED:,} stored sessions were used",
        kept, scale_memory.MOST_MACHINES, "at most", "machines",
    )  # fmt: skip
    if living is None:
        yield Verdict("live sessions in memory", None, 1.5, "at most", "GB", "not asked for")
        return
    subject = f"{living.sessions:,} live sessions in memory, growth of the process"
    # The bound is for a million, of which fewer may take their part.
    bound = 1.5 * living.sessions / 1_000_000
    yield Verdict(subject, living.grown_bytes / 1e9, bound, "at most", "GB")
    yield Verdict(
        f"machines kept of {living.sessions:,} live sessions",
        living.machines, scale_memory.MOST_MACHINES, "at most", "machines",
    )  # fmt: skip


def cost_lines(records: Records) -> Iterator[str]:
    """Yield the costs and their ratios as a table."""
    sizes = list(next(iter(records.values())))
    rows = []
    for verb, by_size in records.items():
        ratios = growth(by_size)
        costs = [told_seconds(by_size[size].each_seconds) for size in sizes]
        rows.append([verb, *costs, *(f"{ratios[size]:.2f} ×" for size in sizes[1:])])
    head = ["", *(f"{size:,}" for size in sizes), *(f"at {size:,}" for size in sizes[1:])]
    yield from table(head, rows)


def lines(given: argparse.Namespace, fsync: float) -> Iterator[str]:
    """Measure, and yield what came out as Markdown."""
    yield "# What it costs with a million sessions"
    yield ""
    yield "Measured by `make bench-scale`."
    yield ""
    yield from machine_lines(given.directory, fsync, ("session_fsm", "orjson"))
    kept_files = scale_stores.filled(given.directory, given.sizes)
    scale_stores.check_whole(kept_files[min(given.sizes)])
    with tempfile.TemporaryDirectory(dir=given.directory) as working:
        paths = {
            size: scale_stores.working_copy(path, Path(working, f"{size}.db"))
            for size, path in kept_files.items()
        }
        records = measure(paths, given.rounds)
        kept = scale_memory.kept_of_stored(paths[max(paths)], max(paths))
    living = scale_memory.live_elsewhere(given.live) if given.live else None
    if living is not None and living.sessions < given.live:
        print(f"{given.live:,} live sessions do not fit; {living.sessions:,} do", file=sys.stderr)
    if given.plot:
        _draw(records, given.plot)
    yield ""
    yield "## Targets"
    yield ""
    yield from verdict_lines(verdicts(records, living, kept))
    yield ""
    yield "## Costs"
    yield ""
    yield (
        f"Medians of {given.rounds} turns, in which the sizes follow each other; a ratio is the"
        " median of the ratios of the turns to those of the smallest size. Ids are random, and no"
        " session is moved twice, so that each move reads its session first. Each file is read"
        " through before a turn, so that it lies in the page cache. The stores were filled through"
        " the manager, in batches, ids in order; each smaller one is the beginning of the larger."
    )
    yield ""
    yield from cost_lines(records)
    if given.plot:
        yield ""
        yield f"![Costs by what is stored]({given.plot.name})"
    if living is not None:
        yield ""
        yield "## Memory"
        yield ""
        yield (
            f"{living.sessions:,} live sessions on `memory://`, each with settings and two events,"
            f" in a process of its own: {living.grown_bytes / 1e9:.2f} GB,"
            f" {living.grown_bytes / living.sessions:,.0f} bytes each, made in"
            f" {living.seconds:.0f} s; {living.machines:,} machines of theirs are kept."
        )


def _draw(records: Records, path: Path) -> None:
    sizes = list(next(iter(records.values())))
    costs = {
        verb: [each.each_seconds for each in by_size.values()] for verb, by_size in records.items()
    }
    ratios = {verb: list(growth(by_size).values()) for verb, by_size in records.items()}
    scale_plot.draw(costs, ratios, sizes, MOST_GROWTH, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure verbs by what is stored.")
    parser.add_argument(
        "--directory", type=Path, default=Path("build/scale"), help="where files are"
    )
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--plot", type=Path, help="a file for the curves, such as scale.svg")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sessions stored")
    parser.add_argument("--rounds", type=int, default=30, help=f"at most {MOST_ROUNDS}")
    parser.add_argument("--live", type=int, default=SIZES[-1], help="sessions in memory; 0: none")
    parser.add_argument("--quick", action="store_true", help="10,000 sessions, few rounds")
    given = parser.parse_args(arguments)
    if given.quick:
        given.sizes, given.rounds, given.live = SIZES[:2], 5, 10_000
    given.sizes = sorted(given.sizes)
    sizes_are_good = len(given.sizes) > 1 and given.sizes[0] >= SIZES[0]
    if not 0 < given.rounds <= MOST_ROUNDS or not sizes_are_good:
        parser.error(f"1 to {MOST_ROUNDS} rounds, and two sizes from {SIZES[0]:,} on")
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        fsync = durable_fsync_seconds(given.directory)
    except NotDurableError as refused:
        print(refused, file=sys.stderr)
        return EXIT_NOT_DURABLE
    show(lines(given, fsync), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
