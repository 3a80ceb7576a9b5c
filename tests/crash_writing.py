"""Kills a writer of one store again and again, and compares what is left with what it said."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import attrs
from crash_check import Findings, Histories, Report, compare

from session_fsm import SessionManager, SessionNotFoundError
from session_fsm.clock import SYSTEM_CLOCK

SESSIONS: Final = tuple(f"s{number:02}" for number in range(40))
THREADS: Final = 6
MOST_ACKNOWLEDGED: Final = 120
"""Before each kill the parent waits for up to this many acknowledgements, by lot."""
LONGEST_DELAY_SECONDS: Final = 0.004
"""And then for up to this long, by lot."""
PATIENCE_SECONDS: Final = 120.0
"""How long a writer may say nothing; only a deadlock takes that long."""


@attrs.define
class Tally:
    """What all rounds came to."""

    kills: int = 0
    acknowledged: int = 0
    told: int = 0
    whole: int = 0
    absent: int = 0
    recovered: int = 0
    seconds: float = 0.0
    faults: list[str] = attrs.field(factory=list)

    def add(self, found: Findings) -> None:
        """Add what one round found."""
        self.acknowledged += found.acknowledged
        self.told += found.told
        self.whole += found.whole
        self.absent += found.absent
        self.faults += found.faults


class Writer:
    """A writer in a process of its own, which waits until it is told to begin.

    Args:
        path: The file that it will open.
        seed: What decides its choices.
    """

    def __init__(self, path: Path, seed: str) -> None:
        script = Path(__file__).with_name("crash_process.py")
        url = f"sqlite:///{path}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", script, url, seed, str(THREADS), *SESSIONS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout.fileno()
        self._rest = b""
        self.report = Report()

    def killed_after(self, acknowledged: int, delay_seconds: float) -> Report:
        """Let it begin, and kill it some time after it has acknowledged some changes.

        Returns:
            All that it had said when it was dead.
        """
        self._in.write(b"begin\n")
        self._in.flush()
        heard = 0
        while heard < acknowledged:
            heard += self._hear(PATIENCE_SECONDS)
        end = time.monotonic() + delay_seconds
        while (left := end - time.monotonic()) > 0:
            self._hear(left)
        self.kill()
        while chunk := os.read(self._out, 65536):
            self._take(chunk)
        self._process.stdout.close()  # type: ignore[union-attr]  # it is a pipe
        return self.report

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is not None:
            self.report.broken.append(f"it ended by itself with {self._process.returncode}")
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)
        self._in.close()

    def _hear(self, patience_seconds: float) -> int:
        ready, _, _ = select.select([self._out], [], [], patience_seconds)
        if not ready:
            if patience_seconds < PATIENCE_SECONDS:
                return 0
            raise SystemExit("the writer says nothing")
        chunk = os.read(self._out, 65536)
        if not chunk:
            self.kill()
            raise SystemExit(f"the writer has ended: {self.report.broken}")
        return self._take(chunk)

    def _take(self, chunk: bytes) -> int:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return sum(self.report.hear(line.decode()) for line in lines)


def histories(manager: SessionManager) -> Histories:
    """Return the events of each id that has any."""
    found = {}
    for session_id in SESSIONS:
        try:
            found[session_id] = manager.history(session_id)
        except SessionNotFoundError:
            continue
    return found


def kill_writers(
    path: Path, rounds: int, seed: int, progress: Callable[[str], object] = lambda _: None
) -> Tally:
    """Kill one writer after another on one file, and compare after each.

    Args:
        path: The file; made if it is missing.
        rounds: How many are killed.
        seed: What decides the operations, and the moments of the kills.
        progress: Called with a line now and then.
    """
    tally = Tally()
    begun = time.monotonic()
    chance = random.Random(f"kills.{seed}")
    before: Histories = {}
    # The next one starts up while what the last one left is compared.
    writer = Writer(path, f"{seed}.0")
    for number in range(rounds):
        acknowledged = chance.randrange(MOST_ACKNOWLEDGED)
        delay_seconds = chance.uniform(0, LONGEST_DELAY_SECONDS)
        report = writer.killed_after(acknowledged, delay_seconds)
        tally.kills += 1
        if number + 1 < rounds:
            writer = Writer(path, f"{seed}.{number + 1}")
        with SessionManager(f"sqlite:///{path}") as manager:
            faults = list(manager.verify().problems)
            found = compare(before, histories(manager), report)
            faults += found.faults
            found.faults = [f"round {number}: {each}" for each in faults + _clear(manager, tally)]
            before = histories(manager)
        tally.add(found)
        if (number + 1) % 25 == 0:
            progress(f"{number + 1} kills, {tally.acknowledged:,} changes")
    tally.seconds = time.monotonic() - begun
    return tally


def _clear(manager: SessionManager, tally: Tally) -> list[str]:
    """Clear away what the dead writer left, and all that has ended; returns what is still there."""
    report = manager.recover()
    tally.recovered += len(report.ended) + len(report.released)
    faults = [f"{each} was not recovered: {why}" for each, why in report.failed]
    faults += [f"{each} is left of the dead" for each in manager.store.abandoned()]
    live = [*manager.list(limit=len(SESSIONS))]
    for session in live:
        if session.state.active_tasks or session.status not in {"active", "idle"}:
            tasks = ", ".join(session.state.active_tasks)
            faults.append(f"{session.session_id} is {session.status} with tasks {tasks!r}")
    # Ids are used again, so that the histories of later lives go on from tombstones.
    manager.purge(ended_before=SYSTEM_CLOCK.now() + timedelta(hours=1))
    return faults + [f"when it was cleared: {each}" for each in manager.verify().problems]
