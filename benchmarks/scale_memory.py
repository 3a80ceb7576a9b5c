"""What many sessions take of memory, and how many machines a manager keeps for them."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import attrs

from session_fsm import SessionMachine, SessionManager

from .measuring import resident_bytes
from .scale_stores import at_rest, id_of, url_of

MOST_MACHINES: Final = 1024
"""The bound on the machines that a manager keeps of sessions that nobody uses."""
PROBED: Final = 10_000
"""So many tell about what each session takes."""
USED: Final = 2000
"""Sessions of a stored million that are used one after the other, to see what is kept."""


@attrs.frozen
class Living:
    """A process with so many sessions on `memory://`.

    Attributes:
        sessions: How many.
        grown_bytes: How much its resident set has grown by them.
        seconds: How long their creation took.
        machines: How many machines of theirs are left.
    """

    sessions: int
    grown_bytes: int
    seconds: float
    machines: int


def machines() -> int:
    """Return how many machines of sessions are alive in this process."""
    gc.collect()
    return sum(type(each) is SessionMachine for each in gc.get_objects())


def kept_of_stored(path: Path, size: int) -> int:
    """Use many sessions of a store; return how many machines were kept for it."""
    before = machines()
    with SessionManager(url_of(path)) as manager:
        for number in range(min(size, USED)):
            manager.update(id_of(number), metadata={"used": at_rest(number)})
        return machines() - before


def live(sessions: int) -> Living:
    """Create sessions in this process, and look at what it has become."""
    with SessionManager() as manager:
        manager.create("first")
        gc.collect()
        before, begin = resident_bytes(), time.perf_counter()
        for number in range(sessions):
            settings = {"model": "large", "temperature": number % 10}
            manager.create(id_of(number), llm_config=settings)
        seconds = time.perf_counter() - begin
        grown = resident_bytes() - before
        return Living(sessions, grown, seconds, machines())


def live_elsewhere(sessions: int) -> Living:
    """Do the same in a process of its own; with a tenth where the whole would crowd the machine."""
    if sessions > PROBED:
        each = _elsewhere(PROBED).grown_bytes / PROBED
        while sessions > PROBED and each * sessions > available_bytes() / 2:
            sessions //= 10
    return _elsewhere(sessions)


def available_bytes() -> int:
    """Return how much memory new processes may take without swapping, as Linux estimates it."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


def _elsewhere(sessions: int) -> Living:
    command = [sys.executable, "-m", f"{__package__}.scale_memory", str(sessions)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this very module
    count, grown, seconds, kept = done.stdout.split()
    return Living(int(count), int(grown), float(seconds), int(kept))


if __name__ == "__main__":
    print(*attrs.astuple(live(int(sys.argv[1]))))
