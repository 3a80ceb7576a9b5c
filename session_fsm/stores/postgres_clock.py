"""The clock of a database, as it is told on this machine: every node goes by the same one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from ..clock import SYSTEM_CLOCK

_KEPT: Final = 8
"""So many measurements are kept, of which the best one counts."""

Seconds = Callable[[], float]


def boot_time() -> float:
    """Return seconds that go on while the machine is suspended, from any beginning."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if not hasattr(time, "CLOCK_BOOTTIME"):  # pragma: no cover - no Linux
    boot_time = time.monotonic


class DatabaseClock:
    """What time it is in a database, by the last measurements and what has passed since.

    A measurement is wrong by half its round trip at most. It never goes back; should the database's
    own clock be set back, it stands until that has caught up.

    Args:
        seconds: Tells what has passed.

    Threads: safe.
    """

    def __init__(self, seconds: Seconds = boot_time) -> None:
        self._seconds = seconds
        self._measured: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._offset: float | None = None
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def measure(self, sent: float, received: float, told: datetime) -> None:
        """Take in what the database said, between two moments of `seconds`."""
        offset = told.timestamp() - (sent + received) / 2
        error = (received - sent) / 2
        with self._lock:
            if any(abs(offset - each) > error + other for other, each in self._measured):
                self._measured.clear()  # one of the two clocks was set, or runs otherwise
            self._measured.append((error, offset))
            self._offset = min(self._measured)[1]

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC; before any measurement, the machine's."""
        with self._lock:
            offset = self._offset
            if offset is None:
                return SYSTEM_CLOCK.now()
            now = _EPOCH + timedelta(seconds=self._seconds() + offset)
            self._last = max(self._last, now)
            return self._last

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Wait until the event is set, or `timeout_seconds` have passed."""
        return SYSTEM_CLOCK.wait(event, timeout_seconds)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
