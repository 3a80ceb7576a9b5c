"""Clocks that are handed in, instants in UTC, and ids."""

import threading
import uuid
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from itertools import chain
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

from session_fsm.clock import (
    SYSTEM_CLOCK,
    Clock,
    ManualClock,
    SystemClock,
    as_utc,
    instant_text,
    random_id,
)
from session_fsm.testing import SequentialIds, instants

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Nanoseconds(datetime):
    """An instant that holds more than a `datetime`, as those of data frames do."""

    nanosecond = 7


class Unsettled(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, when: datetime | None, /) -> timedelta | None:
        return None

    dst = utcoffset

    def tzname(self, when: datetime | None, /) -> str | None:
        return None


class WatchedEvent(threading.Event):
    """An event that tells each time that somebody looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = threading.Semaphore(0)

    def is_set(self) -> bool:
        self.looks.release()
        return super().is_set()


# --- instants --------------------------------------------------------------------------------


@given(instants())
def test_clock_as_utc_keeps_the_instant(at: datetime) -> None:
    """The same instant comes back, in UTC and as an exact datetime, whatever its offset."""
    utc = as_utc(at)
    assert utc == at
    assert utc.tzinfo is UTC
    assert type(utc) is datetime
    assert utc.fold == 0
    assert as_utc(utc) is utc


@given(instants())
def test_clock_text_is_one_form(at: datetime) -> None:
    """An instant is written in UTC with all six decimals and `Z`, and is read back equal."""
    text = instant_text(at)
    assert len(text) == len("2026-01-31T12:00:00.000000Z")
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == at
    whole = at.replace(microsecond=0)
    for each in (at, whole):
        expected = each.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        assert instant_text(each) == f"{expected}Z"


def test_clock_text_examples() -> None:
    """Whole seconds, early years and other offsets have the same form."""
    assert instant_text(START) == "2026-01-31T12:00:00.000000Z"
    assert instant_text(datetime(7, 1, 2, 3, 4, 5, 6, UTC)) == "0007-01-02T03:04:05.000006Z"
    east = timezone(timedelta(hours=2))
    assert instant_text(datetime(2026, 1, 1, 1, tzinfo=east)) == "2025-12-31T23:00:00.000000Z"


@pytest.mark.parametrize("fold", [0, 1])
def test_clock_as_utc_knows_folds(fold: int) -> None:
    """Of an hour that a zone has twice, each one is another instant."""
    twice = datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=fold)
    assert as_utc(twice) == datetime(2025, 10, 26, 0 + fold, 30, tzinfo=UTC)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=1)), ZoneInfo("Europe/Paris")])
def test_clock_as_utc_makes_exact_datetimes(zone: tzinfo) -> None:
    """A subclass that may hold more is brought down to what is stored, with its fold."""
    for fold in (0, 1):
        at = Nanoseconds(2025, 10, 26, 2, 30, 1, 2, tzinfo=zone, fold=fold)
        plain = datetime(2025, 10, 26, 2, 30, 1, 2, tzinfo=zone, fold=fold)
        assert type(as_utc(at)) is datetime
        assert as_utc(at) == as_utc(plain)


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        (datetime(2026, 1, 1), ValueError, "needs a time zone; 2026-01-01T00:00:00 has none"),  # noqa: DTZ001 - naive
        (datetime(2026, 1, 1, tzinfo=Unsettled()), ValueError, "needs a time zone"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), ValueError, "years 1 to 9999"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), ValueError, "years 1 to 9999"),
        (date(2026, 1, 1), TypeError, "not date"),
        ("2026-01-01T00:00:00Z", TypeError, "not str"),
        (0, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
    ],
    ids=str,
)
def test_clock_as_utc_refuses(at: datetime, error: type[Exception], message: str) -> None:
    """What is naive, no instant, or out of the calendar in UTC is refused with the reason."""
    with pytest.raises(error, match=message):
        as_utc(at)


# --- the system's clock ----------------------------------------------------------------------


def test_clock_system_tells_utc() -> None:
    """The machine's clock tells aware instants in UTC, that do not run backwards here."""
    first, second = SYSTEM_CLOCK.now(), SystemClock().now()
    assert first.tzinfo is second.tzinfo is UTC
    assert first <= second


@pytest.mark.parametrize("seconds", [0.001, 0.0, -1.0, float("-inf")])
def test_clock_system_wait_ends(seconds: float) -> None:
    """A wait for an event that does not come ends, and one below zero only looks."""
    assert SystemClock().wait(threading.Event(), seconds) is False


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(START)], ids=["system", "manual"])
@pytest.mark.parametrize("seconds", [0.0, 60.0, 1e12, float("inf")])
def test_clock_wait_sees_the_event(clock: Clock, seconds: float) -> None:
    """An event that is set ends a wait of any length at once."""
    event = threading.Event()
    event.set()
    assert clock.wait(event, seconds) is True


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(START)], ids=["system", "manual"])
@pytest.mark.parametrize("seconds", [60.0, 1e12, float("inf")])
def test_clock_wait_is_ended_by_the_event(clock: Clock, seconds: float) -> None:
    """An event that another thread sets ends a wait of any length."""
    event = threading.Event()
    told: list[bool] = []
    waiting = threading.Thread(target=lambda: told.append(clock.wait(event, seconds)), daemon=True)
    waiting.start()
    event.set()
    waiting.join(10)
    assert told == [True]


# --- the manual clock ------------------------------------------------------------------------


def test_clock_manual_stands_still() -> None:
    """A manual clock tells the instant that it was set to, in UTC, until it is moved."""
    clock = ManualClock(START.astimezone(timezone(timedelta(hours=3))))
    assert clock.now() == clock.now() == START
    assert clock.now().tzinfo is UTC
    assert clock.advance(1.5) == START + timedelta(seconds=1.5)
    assert clock.advance(timedelta(days=1)) == clock.now()
    clock.set(START - timedelta(days=1))
    assert clock.now() == START - timedelta(days=1)


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=Unsettled())])  # noqa: DTZ001 - naive
def test_clock_manual_refuses_naive_instants(at: datetime) -> None:
    """A manual clock can't be made with or set to an instant without an offset."""
    clock = ManualClock(START)
    with pytest.raises(ValueError, match="needs a time zone"):
        ManualClock(at)
    with pytest.raises(ValueError, match="needs a time zone"):
        clock.set(at)
    assert clock.now() == START


def test_clock_manual_wait_ends_when_moved() -> None:
    """A wait on a manual clock ends when the clock has come to its end, and not before."""
    clock = ManualClock(START)
    event = WatchedEvent()
    told: list[bool] = []
    waiting = threading.Thread(target=lambda: told.append(clock.wait(event, 10)), daemon=True)
    waiting.start()
    assert event.looks.acquire(timeout=10)
    clock.advance(9.999999)
    for _ in range(3):
        assert event.looks.acquire(timeout=10)
    assert told == []
    clock.advance(0.000001)
    waiting.join(10)
    assert told == [False]


def test_clock_manual_wait_without_time_only_looks() -> None:
    """A wait of no length ends at once on a clock that stands still."""
    assert ManualClock(START).wait(threading.Event(), 0) is False
    assert ManualClock(START).wait(threading.Event(), -5) is False


def test_clock_autojump_moves_to_the_end_of_a_wait() -> None:
    """A clock that jumps goes to the end of a wait, unless the event is set already."""
    clock = ManualClock(START, autojump=True)
    event = threading.Event()
    assert clock.wait(event, 10) is False
    assert clock.now() == START + timedelta(seconds=10)
    event.set()
    assert clock.wait(event, 10) is True
    assert clock.now() == START + timedelta(seconds=10)


# --- ids -------------------------------------------------------------------------------------


def test_clock_random_ids_differ() -> None:
    """Each random id is another version 4 UUID in its usual form."""
    ids = {random_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(str(uuid.UUID(one, version=4)) == one for one in ids)


def test_clock_sequential_ids_count() -> None:
    """Ids that count start where they are told and have the prefix."""
    new_id = SequentialIds()
    assert [new_id(), new_id()] == ["session-1", "session-2"]
    assert SequentialIds("t", start=7)() == "t7"


def test_clock_sequential_ids_are_given_once() -> None:
    """Threads that ask at the same time get different ids, and none is left out."""
    new_id = SequentialIds("")
    start = threading.Barrier(4)
    got: list[list[str]] = [[] for _ in range(4)]

    def ask(mine: list[str]) -> None:
        start.wait(10)
        mine.extend(new_id() for _ in range(500))

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(map(int, chain.from_iterable(got))) == list(range(1, 2001))
