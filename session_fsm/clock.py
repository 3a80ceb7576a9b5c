"""Time and identity, handed in: the only module that asks the system for either.

Source: `Clock` as an interface with a public clock that jumps follows Trio.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from .jsontext import dump_json

IdFactory = Callable[[], str]
"""Makes a new id at each call; ids must not repeat."""


class Clock(Protocol):
    """What tells the time, and waits.

    It may jump. Deadlines are instants, so a jump forward makes due what lies behind it, and a jump
    back undoes nothing: a step is never earlier than the one before it in its session.
    """

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Wait until the event is set, or the time has passed by this clock.

        Args:
            event: What ends the wait early.
            timeout_seconds: Longest wait; zero or less only looks.

        Returns:
            True if the event is set.
        """
        ...


# A call of this is half the price of a method's that makes the same call.
utc_now: Callable[[], datetime] = functools.partial(datetime.now, UTC)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        return utc_now()

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Wait until the event is set, or `timeout_seconds` have passed."""
        return event.wait(_bounded(timeout_seconds))


SYSTEM_CLOCK = SystemClock()
"""The clock of whoever is handed no other; it holds no state."""


class ManualClock:
    """A clock that stands still until it is moved.

    Args:
        start: The first instant, aware.
        autojump: Whether a wait moves the clock to the wait's own end, for programs of one thread
            in which nobody else could move it.

    Threads: safe; moving the clock wakes whoever waits for a time that has come.
    """

    def __init__(self, start: datetime, *, autojump: bool = False) -> None:
        self._now = as_utc(start)
        self._autojump = autojump
        self._moved = threading.Condition()
        self._alarms: dict[int, Callable[[], object]] = {}
        self._alarm_times: list[tuple[datetime, int]] = []
        self._alarm_numbers = itertools.count()

    def now(self) -> datetime:
        """Return the instant that the clock stands at."""
        return self._now

    def set(self, at: datetime) -> None:
        """Move the clock to an instant, which may be earlier."""
        with self._moved:
            self._now = as_utc(at)
            self._moved.notify_all()
        self._ring()

    def advance(self, seconds: float | timedelta) -> datetime:
        """Move the clock forward, and return its new instant."""
        step = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        with self._moved:
            self._now += step
            self._moved.notify_all()
            now = self._now
        self._ring()
        return now

    def call_at(self, at: datetime, callback: Callable[[], object]) -> Callable[[], None]:
        """Have a callback called once the clock stands at an instant or later.

        It runs on the thread that moves the clock there; now, if it stands there already.

        Returns:
            A function that takes it back; it does nothing if it was called.
        """
        number = next(self._alarm_numbers)
        with self._moved:
            self._alarms[number] = callback
            heapq.heappush(self._alarm_times, (as_utc(at), number))
        self._ring()

        def take_back() -> None:
            with self._moved:
                self._alarms.pop(number, None)

        return take_back

    def next_alarm(self) -> datetime | None:
        """Return the earliest instant at which something is to be called, or None."""
        with self._moved:
            return self._earliest()

    def _earliest(self) -> datetime | None:
        while self._alarm_times and self._alarm_times[0][1] not in self._alarms:
            heapq.heappop(self._alarm_times)
        return self._alarm_times[0][0] if self._alarm_times else None

    def _ring(self) -> None:
        while True:
            with self._moved:
                earliest = self._earliest()
                if earliest is None or earliest > self._now:
                    return
                callback = self._alarms.pop(heapq.heappop(self._alarm_times)[1])
            callback()

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Wait until the event is set, or the clock was moved past the time-out."""
        end = self._now + timedelta(seconds=_bounded(timeout_seconds))
        with self._moved:
            if self._autojump and not event.is_set():
                self._now = max(self._now, end)
                self._moved.notify_all()
            while not event.is_set() and self._now < end:
                # An event can't notify a condition: look at it a hundred times a second.
                self._moved.wait(0.01)
        self._ring()
        return event.is_set()


def _bounded(seconds: float) -> float:
    """Return a wait that threads can make: none is negative, and three centuries are for ever."""
    return min(max(0.0, seconds), threading.TIMEOUT_MAX)


def random_id() -> str:
    """Return a new random id: a version 4 UUID in its usual form."""
    return str(uuid.uuid4())


def numbered_ids(prefix: str) -> IdFactory:
    """Return what makes ids of one prefix and a number; unique as far as the prefix is."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}-{next(numbers)}"


def as_utc(at: datetime) -> datetime:
    """Return the same instant in UTC, as an exact `datetime`.

    Raises:
        ValueError: The instant is naive, or can't be told in UTC.
        TypeError: It is no `datetime`.
    """
    if not isinstance(at, datetime):
        raise TypeError(f"an instant is an aware datetime, not {type(at).__name__}")
    if type(at) is not datetime:
        # A subclass may hold more than is stored, such as nanoseconds.
        clock_time = (at.hour, at.minute, at.second, at.microsecond)
        at = datetime(at.year, at.month, at.day, *clock_time, tzinfo=at.tzinfo, fold=at.fold)
    if at.tzinfo is UTC:
        return at.replace(fold=0) if at.fold else at
    if at.utcoffset() is None:
        raise ValueError(f"an instant needs a time zone; {at.isoformat()} has none")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{at.isoformat()} lies outside the years 1 to 9999 in UTC") from None


# A step writes one instant in several places; equal instants have one text.
@functools.lru_cache(maxsize=1024)
def instant_text(at: datetime) -> str:
    """Return an instant as stored and printed: ISO 8601, UTC, microseconds, `Z`."""
    if type(at) is not datetime or at.tzinfo is not UTC:
        at = as_utc(at)
    text = dump_json(at)[1:-1].decode()  # a fifth of the price of `isoformat`
    return text if at.microsecond else f"{text[:-1]}.000000Z"
