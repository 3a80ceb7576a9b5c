"""Fuzzes all that reads input from outside: `python tests/fuzz.py [--inputs N] [--seed S]`.

Inputs that are almost right go to `loads`, `deserialize` and the reader of logs. Each may be
refused by its documented error, or by a fault in the log's report; anything else is a finding:
another exception, more than a second of the processor's time, more memory than a process is given,
a state that does not come back from its own text.

A seed and a number tell an input: `--seed S --first N --inputs 1` gives it once more. A finding is
written to `build/fuzz/` with both. The exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

import attrs
from fuzz_targets import TARGETS, Target, each, remove_scratch

SECONDS: Final = 1.0
"""Most time of the processor for one input."""
MEMORY_BYTES: Final = 512 * 1024 * 1024
"""Most memory that a process may take beside what it has when it begins."""
BATCH: Final = 2_000
"""How many inputs a process takes at a time."""
DIRECTORY: Final = Path("build/fuzz")


class TooLongError(BaseException):
    """An input took more than its time; nothing that is tested catches it."""


@attrs.frozen
class Finding:
    """An input that did what none may do."""

    target: str
    seed: int
    number: int
    problem: str
    data: Any

    def save(self, directory: Path) -> Path:
        """Write what the input did, and beside it the input where it is a text."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.target.replace(' ', '-')}-{self.seed}-{self.number}"
        if isinstance(self.data, bytes | str):
            data = (
                self.data
                if isinstance(self.data, bytes)
                else self.data.encode("utf-8", "surrogatepass")
            )
            path.with_suffix(".input").write_bytes(data)
        again = f"python tests/fuzz.py --seed {self.seed} --first {self.number} --inputs 1"
        path.with_suffix(".txt").write_text(f"{again}\n\n{self.problem}\n", encoding="utf-8")
        return path


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise TooLongError


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Bound the memory of this process, and make its timer raise `TooLongError`, for a while."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    handler = signal.signal(signal.SIGVTALRM, _ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def examine(target: Target, seed: int, number: int) -> str | Finding:
    """Give a target the input of a number, within `limits`, and return what came of it."""
    data = target.make(Random(f"{seed}/{number}"))
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            return target.take(data)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except TooLongError:
        problem = f"more than {SECONDS} s:\n{traceback.format_exc(limit=-5)}"
    except BaseException as fault:  # noqa: BLE001 - whatever it is, it is a finding
        problem = f"{type(fault).__name__}:\n{traceback.format_exc(limit=-8)}"
    return Finding(target.name, seed, number, problem, data)


def batch(seed: int, first: int, count: int) -> tuple[Counter[tuple[str, str]], list[Finding]]:
    """Examine some inputs, and count what came of them by target."""
    outcomes: Counter[tuple[str, str]] = Counter()
    findings: list[Finding] = []
    for target in TARGETS:  # what they draw from is made before memory is bounded
        target.make(Random(0))
    try:
        with limits():
            for number, target in each(first, count):
                outcome = examine(target, seed, number)
                if isinstance(outcome, Finding):
                    findings.append(outcome)
                    outcome = "FINDING"
                outcomes[target.name, outcome] += 1
    finally:
        remove_scratch()
    return outcomes, findings


def run(
    seed: int, first: int, inputs: int, processes: int
) -> tuple[Counter[tuple[str, str]], list[Finding]]:
    """Examine inputs in several processes."""
    outcomes: Counter[tuple[str, str]] = Counter()
    findings: list[Finding] = []
    ranges = [
        (begin, min(BATCH, first + inputs - begin)) for begin in range(first, first + inputs, BATCH)
    ]
    with ProcessPoolExecutor(processes) as pool:
        waiting = [(begin, pool.submit(batch, seed, begin, count)) for begin, count in ranges]
        for begin, future in waiting:
            try:
                counted, found = future.result()
            except BrokenProcessPool:
                problem = f"a process died on one of the {BATCH} inputs from here, or before"
                findings.append(Finding("all", seed, begin, problem, b""))
                break
            outcomes += counted
            findings += found
    return outcomes, findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print what came of the inputs, and return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of states and of logs.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=DIRECTORY)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    outcomes, findings = run(options.seed, options.first, options.inputs, options.processes)
    seconds = time.monotonic() - begun
    for (target, outcome), count in sorted(outcomes.items()):
        print(f"{count:>10,}  {target}: {outcome}")
    rate = sum(outcomes.values()) / max(seconds, 1e-9)
    print(f"{sum(outcomes.values()):>10,}  inputs in {seconds:.0f} s, {rate:,.0f} a second")
    print(f"{len(findings):>10,}  findings, seed {options.seed}")
    for finding in findings[:20]:
        path = finding.save(options.output)
        last = finding.problem.strip().splitlines()[-1][:200]
        print(f"{finding.target}, input {finding.number}: {last}; see {path}.txt")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
