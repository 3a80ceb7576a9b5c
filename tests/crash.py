"""Kills what writes to a store, at many moments, and sees that nothing is lost.

    python tests/crash.py [--rounds N] [--seed N] [--only NAME]… [--steps N] [--moments N]

`writing`: threads of one process change the sessions of one file, tell each change as soon as it is
acknowledged, and are killed; this is done N times on the same file. The other names are those of
`crash_actions`: each is killed before its steps, in writes, and at moments chosen by lot, on copies
of a file.

The same seed makes the same choices. The exit code is 1 if anything was lost or is half there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from crash_actions import ACTIONS
from crash_steps import Action, kill_everywhere
from crash_writing import kill_writers

WRITING = "writing"


def say(name: str, text: str) -> None:
    """Print one line of the table."""
    print(f"{name:22}{text}", flush=True)


def write_and_kill(directory: Path, rounds: int, seed: int) -> list[str]:
    """Kill writers, print what it came to, and return the faults."""
    tally = kill_writers(
        directory / "sessions.db", rounds, seed, lambda line: say(WRITING, f"… {line}")
    )
    say(
        WRITING,
        f"{tally.kills} kills, {tally.acknowledged:,} acknowledged changes and {tally.told:,} told"
        f" events checked, {tally.whole:,} unacknowledged changes found whole, {tally.absent:,}"
        f" absent, {tally.recovered:,} sessions recovered, {tally.seconds:.1f} s",
    )
    return tally.faults


def act_and_kill(
    action: Action, directory: Path, steps: int | None, moments: int, seed: int
) -> list[str]:
    """Kill an action, print what it came to, and return the faults."""
    begun = time.monotonic()
    killed = kill_everywhere(action, directory, most_steps=steps, moments=moments, seed=seed)
    say(
        action.name,
        f"{killed.kills} kills ({killed.at_steps} before one of {killed.steps:,} steps,"
        f" {killed.in_writes} in a write, {killed.at_moments} at a moment), then there:"
        f" nothing {killed.nothing}, a part {killed.part}, all {killed.all};"
        f" {time.monotonic() - begun:.1f} s",
    )
    return killed.faults


def main() -> None:
    """Do what the command line says."""
    summary, *_ = str(__doc__).splitlines()
    names = [WRITING, *(action.name for action in ACTIONS)]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--rounds", type=int, default=300, help="how many writers are killed")
    parser.add_argument("--seed", type=int, default=1, help="what decides all choices")
    parser.add_argument("--only", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--steps", type=int, help="before how many steps at most")
    parser.add_argument(
        "--moments", type=int, default=20, help="at how many moments, and in how many writes"
    )
    told = parser.parse_args()
    only = told.only or names
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        if WRITING in only:
            faults += write_and_kill(Path(name), told.rounds, told.seed)
    for action in ACTIONS:
        if action.name in only:
            with tempfile.TemporaryDirectory() as name:
                faults += act_and_kill(action, Path(name), told.steps, told.moments, told.seed)
    print(*faults, f"faults: {len(faults) or 'none'}", sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
