"""Nodes, clocks, network and crashes under one seed: all is well, unless a guard is taken away.

`make simulate` lives through more seeds, `make simulate SEED=7` tells the story of one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from simulated_guards import Guarded
from simulation import simulate, simulate_many

PARTS: Final = 20
SEEDS: Final = 50
"""So many are lived through in each part: a thousand in all."""


@pytest.mark.parametrize("part", range(PARTS))
def test_simulation_keeps_what_is_promised(part: int) -> None:
    """Whatever is lost, repeated, paused and killed: every invariant holds, at every step."""
    counts: Counter[str] = Counter()
    wrong: list[tuple[int, str]] = []
    for outcome in simulate_many(range(part * SEEDS, (part + 1) * SEEDS)):
        counts.update(outcome.counts)
        wrong += [(outcome.seed, fault) for fault in outcome.faults]
    assert wrong == []
    tried = {
        "restarted",
        "released",
        "ended",
        "expire",
        "task_timeout",
        "start_timeout",
        "compacted",
    }
    assert tried <= counts.keys()


@pytest.mark.parametrize(
    ("guard", "invariants"),
    [
        ("fencing", ("fencing: a commit of",)),
        ("compare_and_set", ("lost change: what",)),
        ("margin", ("margin:",)),
        ("exclusive", ("taken once:", "one owner:")),
        ("traces", ("at most once:",)),
    ],
)
def test_simulation_finds_what_is_not_guarded(guard: str, invariants: tuple[str, ...]) -> None:
    """Without one of the guards, an invariant is broken within a thousand seeds, by its name."""
    outcomes = simulate_many(range(PARTS * SEEDS), Guarded(**{guard: False}))
    found = (fault for outcome in outcomes for fault in outcome.faults)
    assert any(fault.startswith(invariants) for fault in found)


def test_simulation_is_the_same_in_every_process() -> None:
    """A seed has one story, whatever process lives through it, and however that hashes."""
    here = simulate(11)
    assert len(here.story) > 100
    assert here.digest != simulate(12).digest
    script = Path(__file__).with_name("simulation.py")
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-W", "error", script, "--seed", "11"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert told[-1] == f"seed 11: {here.digest}"
        assert [line.split(None, 1)[1] for line in told[:-1]] == [line for _, line in here.story]


def test_simulation_tells_of_what_goes_wrong() -> None:
    """The story of a seed that goes wrong ends with that."""
    outcome = simulate(0, Guarded(compare_and_set=False))
    wrong = [f"WRONG: {fault}" for fault in outcome.faults]
    assert wrong
    assert [line for _, line in outcome.story[-len(wrong) :]] == wrong
