"""A town of nodes under one seed: what may happen to them happens, and nothing may go wrong.

    python tests/simulation.py [--seeds N] [--first N] [--processes N]
    python tests/simulation.py --seed N

The nodes are real managers, with everything that is theirs; what is simulated is what lies around
them: time, threads, the network, the machines, and the database with its leases. The same seed
gives the same story, event by event. The exit code is 1 if anything went wrong with any seed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final

import attrs
from simulated_guards import Guarded
from simulated_threads import simulated_threads
from simulated_world import World
from simulation_town import QUIET_SECONDS, Town

from session_fsm.errors import SessionFsmError

PART: Final = 50
"""So many seeds are lived through by one process before it tells of them."""
MOST_PARTS: Final = 100
"""So many parts are lived through by the same processes."""
TOLD: Final = 1000
"""After so many it is said how far it has come."""


Lived = tuple[list[tuple[int, str]], Counter[str], float]
"""What went wrong in some seeds, what was seen how often, and seconds of a processor."""


@attrs.frozen
class Outcome:
    """What came of one seed.

    Attributes:
        seed: The seed.
        faults: What went wrong, in words.
        digest: Of the story.
        story: What happened, by time.
        counts: How often some things happened.
        causes: Exceptions that nothing should have raised.
    """

    seed: int
    faults: tuple[str, ...]
    digest: str
    story: tuple[tuple[float, str], ...]
    counts: dict[str, int]
    causes: tuple[BaseException, ...] = ()


class _Listener(logging.Handler):
    """Hears of errors that a manager has caught, and that nothing in a simulation may raise."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        if fault is not None and not isinstance(fault, (SessionFsmError, LookupError)):
            self._world.failed(f"{record.getMessage()}: {fault!r}", fault)


@contextmanager
def _listening(world: World) -> Iterator[None]:
    logger, listener = logging.getLogger("session_fsm"), _Listener(world)
    level, propagates = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagates


def simulate(seed: int, guarded: Guarded | None = None) -> Outcome:
    """Live through one seed.

    Args:
        seed: The seed.
        guarded: What the database sees to; None: everything that it should.
    """
    world = World(seed)
    with simulated_threads(world), _listening(world):
        town = Town(world, guarded or Guarded())
        town.begin()
        world.run(town.chaos_seconds)
        if not world.faults:
            town.calm_down()
            world.run(town.chaos_seconds + QUIET_SECONDS)
        if not world.faults:
            town.check_all()
        for node in town.nodes:
            world.kill(node.process)
    told = "\n".join(f"{at:.6f} {line}" for at, line in world.story)
    return Outcome(
        seed,
        tuple(world.faults),
        hashlib.sha256(told.encode()).hexdigest(),
        tuple(world.story),
        town.invariants.counts,
        tuple(world.causes),
    )


def simulate_many(seeds: Iterable[int], guarded: Guarded | None = None) -> Iterator[Outcome]:
    """Live through seeds, one after the other.

    What each leaves is full of cycles; to look for them after every few hundred objects would take
    a third of the time.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
    try:
        for seed in seeds:
            yield simulate(seed, guarded)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _run(seeds: range) -> Lived:
    """Live through seeds in a process of their own; returns what went wrong, counts, seconds."""
    begun = time.process_time()
    wrong: list[tuple[int, str]] = []
    counts: Counter[str] = Counter()
    for outcome in simulate_many(seeds):
        counts.update(outcome.counts)
        wrong += [(outcome.seed, fault) for fault in outcome.faults[:1]]
    return wrong, counts, time.process_time() - begun


def _run_all(parts: Sequence[range], processes: int) -> Iterator[Lived]:
    """Live through parts side by side; yields what came of each, in order."""
    spawn = multiprocessing.get_context("spawn")
    # What seeds leave behind in a process is never cleared away to the last: others take its place.
    for first in range(0, len(parts), MOST_PARTS):
        # Unlike a pool of `multiprocessing`, it says so when one of its processes is killed.
        with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
            yield from pool.map(_run, parts[first : first + MOST_PARTS])


def _tell(seed: int) -> int:
    """Tell the story of a seed."""
    outcome = simulate(seed)
    for at, line in outcome.story:
        print(f"{at:10.3f}  {line}")
    for cause in outcome.causes:
        sys.excepthook(type(cause), cause, cause.__traceback__)
    for fault in outcome.faults:
        print(f"WRONG: {fault}")
    print(f"seed {seed}: {outcome.digest}")
    return int(bool(outcome.faults))


def main() -> None:
    """Do what the command line says."""
    summary, *_ = str(__doc__).splitlines()
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds are tried")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="the one whose story is told")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    told = parser.parse_args()
    if told.seed is not None:
        raise SystemExit(_tell(told.seed))
    begun, spent, failed, done = time.monotonic(), 0.0, 0, 0
    counts: Counter[str] = Counter()
    last = told.first + told.seeds
    parts = [range(each, min(each + PART, last)) for each in range(told.first, last, PART)]
    for part, (wrong, seen, seconds) in zip(parts, _run_all(parts, told.processes), strict=True):
        counts.update(seen)
        spent += seconds
        failed += len(wrong)
        done += len(part)
        for seed, fault in wrong:
            print(f"seed {seed}: {fault}", flush=True)
        if done % TOLD == 0:
            print(f"{done} of {told.seeds} seeds, {failed} went wrong", flush=True)
    print(", ".join(f"{what}: {count}" for what, count in sorted(counts.items())))
    passed = time.monotonic() - begun
    each = spent / told.seeds * 1000
    print(f"{told.seeds} seeds in {passed:.0f} s, {each:.0f} ms of a processor each")
    print(f"{failed} of them went wrong" if failed else "nothing went wrong")
    raise SystemExit(int(bool(failed)))


if __name__ == "__main__":
    main()
