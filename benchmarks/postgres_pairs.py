"""Two stores that take turns: the one as it is, and one that lacks something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import psycopg

from .measuring import Record, Turn, in_turns, percentile
from .postgres_meter import Meter, Spent
from .postgres_promises import AS_IT_IS, Lacking


@attrs.frozen
class Pair:
    """The turns of the store as it is, and those of another one that followed them, or went before.

    Attributes:
        with_it: Those of the store as it is.
        without: Those of the other.
        spent_with: What the server spent on a move in the former, with a turn that does not count.
        spent_without: The same of the latter.
    """

    with_it: Record
    without: Record
    spent_with: Spent
    spent_without: Spent


Pairs = Mapping[str, Pair]
"""By the name of the other store."""


Stores = Mapping[str, tuple[Lacking, str]]
"""Each by its name, with the URL of its database; the store as it is comes first."""


def in_pairs(url: str, stores: Stores, turn: Callable[[Lacking], Turn], rounds: int) -> Pairs:
    """Let the store as it is take turns with each of the others, one after the other.

    Among a dozen that take turns, those at both ends of a round would follow themselves in the next
    one, and find the processor's caches as they left them.
    """
    found = {}
    with psycopg.connect(url, autocommit=True) as looking:
        for other in list(stores)[1:]:
            meters = {name: Meter(looking, stores[name][1]) for name in (AS_IT_IS, other)}
            turns: dict[str, Callable[[], Turn]] = {
                name: partial(meter.turn, partial(turn, stores[name][0]))
                for name, meter in meters.items()
            }
            records = in_turns(turns, rounds)
            if any(record.failures for record in records.values()):
                raise RuntimeError(f"moves have failed, with or without {other}")
            spent = [meter.spent for meter in meters.values()]
            found[other] = Pair(records[AS_IT_IS], records[other], *spent)
    return found


def ratios_told(pair: Pair) -> tuple[str, str]:
    """Return the median of the ratios of two stores by round, and the middle half of them."""
    ratios = [
        other.rate / mine.rate
        for mine, other in zip(pair.with_it.turns, pair.without.turns, strict=True)
        if mine.rate
    ]
    low, high = (percentile(ratios, share) for share in (0.25, 0.75))
    return f"{pair.without.ratio_to(pair.with_it):.2f} ×", f"{low:.2f}–{high:.2f}"


def as_it_is(pairs: Pairs) -> tuple[Record, Spent]:
    """Return all turns of the store as it is, and what was spent in them."""
    turns = [turn for pair in pairs.values() for turn in pair.with_it.turns]
    spent = Spent()
    for pair in pairs.values():
        spent.wal.extend(pair.spent_with.wal)
        spent.cpu.extend(pair.spent_with.cpu)
    return Record(turns), spent
