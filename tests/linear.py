"""Many processes move the same sessions at once; what each was told is held against the histories.

    python tests/linear.py [--seconds N] [--processes N] [--sessions N] [--seed N]

The exit code is 1 if the histories are not whole, or if anybody was told another story than they
tell; see `linearizability`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from linear_process import read
from linearizability import Call, check

from session_fsm import SessionEvent, SessionManager
from session_fsm.stores.abc import all_ids

PROCESS = Path(__file__).with_name("linear_process.py")


def record(url: str, seed: int, processes: int, places: int, seconds: float) -> list[Call]:
    """Let processes call for some time, and return all their calls."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{number}.jsonl" for number in range(processes)]
        common = [sys.executable, "-W", "error", str(PROCESS), url, str(seed), str(places)]
        callers = [
            subprocess.Popen(
                [*common, str(seconds), str(number), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, file in enumerate(files)
        ]
        try:
            for awaited in ("open", "done"):
                for caller in callers:
                    assert caller.stdout is not None
                    if (said := caller.stdout.readline().strip()) != awaited:
                        raise SystemExit(f"a process said {said!r}, not {awaited!r}")
                for caller in callers:
                    assert caller.stdin is not None
                    caller.stdin.write("go on\n")
                    caller.stdin.flush()
        finally:
            for caller in callers:
                caller.communicate()
        return [read(line) for file in files for line in file.read_text().splitlines()]


def overlapping(calls: list[Call]) -> int:
    """Count the calls that began while another one on the same session had not ended."""
    ends: dict[str, int] = {}
    count = 0
    for call in sorted(calls, key=lambda call: call.begun):
        session_id = call.operation.session_id
        count += call.begun < ends.get(session_id, 0)
        ends[session_id] = max(call.ended, ends.get(session_id, 0))
    return count


def main() -> None:
    """Do what the command line says."""
    summary, *_ = str(__doc__).splitlines()
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--seconds", type=float, default=60, help="for how long they call")
    parser.add_argument("--processes", type=int, default=8, help="how many call")
    parser.add_argument("--sessions", type=int, default=100, help="how many live at a time")
    parser.add_argument("--seed", type=int, default=1, help="what decides all choices")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        url = f"sqlite:///{name}/sessions.db"
        calls = record(url, told.seed, told.processes, told.sessions, told.seconds)
        begun = time.monotonic()
        with SessionManager(url) as manager:
            faults = list(manager.verify().problems)
            histories: dict[str, tuple[SessionEvent, ...]] = {
                each: manager.history(each) for each in all_ids(manager.store)
            }
    faults += check(calls, histories)
    errors = Counter(call.error for call in calls if call.error is not None)
    reads = sum(call.error is None and call.operation.verb == "get" for call in calls)
    events = sum(map(len, histories.values()))
    refused = ", ".join(f"{count:,} {error}" for error, count in sorted(errors.items()))
    print(f"{told.processes} processes, {told.seconds:g} s, seed {told.seed}")
    print(f"{len(calls):,} calls, {overlapping(calls):,} of them while another was under way")
    print(f"{len(calls) - reads - errors.total():,} writes, {reads:,} reads; refused: {refused}")
    print(f"{len(histories):,} sessions, {events:,} events", end="; ")
    print(f"checked in {time.monotonic() - begun:.1f} s")
    print(*faults[:50], f"faults: {len(faults) or 'none'}", sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
