"""Feeds that are followed: what comes is told as it comes, and who reads slowly costs nothing."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pytest
from managing import (
    PATIENCE_SECONDS,
    START,
    HookedMemory,
    House,
    Recorder,
    begin,
    end,
    wait_until,
)

from session_fsm import CorruptRecordError, ManagerClosedError, PositionedEvent, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore
from session_fsm.stores.records import StoredStep

pytest_plugins = ("manager_fixtures",)


class WatchedClock(ManualClock):
    """A clock that tells when somebody waits."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock.now())
        self.waits = threading.Semaphore(0)
        self.waited: list[float] = []

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Wait, and say so."""
        self.waited.append(timeout_seconds)
        self.waits.release()
        return super().wait(event, timeout_seconds)

    def await_wait(self) -> None:
        """Return when somebody has begun to wait once more."""
        assert self.waits.acquire(timeout=PATIENCE_SECONDS)


@pytest.fixture
def clock(house: House) -> WatchedClock:
    """The clock of the manager."""
    return WatchedClock(house.clock)


@pytest.fixture
def manager(house: House, clock: WatchedClock) -> SessionManager:
    """A manager whose clock stands still."""
    return house.open(clock=clock)


def told(events: Iterator[PositionedEvent], number: int | None = None) -> list[tuple[str, int]]:
    """Return session and revision of the next events."""
    return [(event.session_id, event.revision) for event in islice(events, number)]


def test_feeds_followed_tell_what_this_manager_commits(
    manager: SessionManager, clock: WatchedClock
) -> None:
    """Who waits is woken by each commit, alone or in a batch, though no time passes."""
    manager.create("a")
    feed = manager.events()
    waiting = begin(told, feed, 1)
    clock.await_wait()
    manager.touch("a")
    assert end(waiting) == [[("a", 3)]]
    waiting = begin(told, feed, 2)
    clock.await_wait()
    with manager.batch():
        manager.fire("a", "go_idle")
        manager.create("b")
    assert end(waiting) == [[("a", 4), ("b", 1)]]
    waiting = begin(told, manager.events("b", after=6), 1)
    clock.await_wait()
    manager.fire("a", "resume")
    manager.touch("b")
    assert end(waiting) == [[("b", 3)]]
    assert not clock.waits.acquire(blocking=False)  # it was not woken by what was none of its own
    assert not manager._core.bell.any  # nobody waits any longer


def test_feeds_followed_begin_with_the_call(manager: SessionManager) -> None:
    """What was committed between the call and the first look is told; what was before is not."""
    manager.create("a")
    feed = manager.events()
    manager.touch("a")
    assert told(feed, 1) == [("a", 3)]
    assert told(manager.events(after=1, timeout_seconds=0)) == [("a", 2), ("a", 3)]


def test_feeds_followed_tell_what_others_commit(
    house: House, manager: SessionManager, clock: WatchedClock
) -> None:
    """Of another manager's commits nobody is woken: they are found at the next look."""
    other = house.open()
    feed = manager.events(poll_seconds=5)
    waiting = begin(told, feed, 1)
    clock.await_wait()
    other.create("a")
    clock.advance(4)
    assert not waiting.done()
    clock.advance(1)
    assert end(waiting) == [[("a", 1)]]
    assert clock.waited == [5]


def test_feeds_followed_end_when_nothing_comes_in_time(
    manager: SessionManager, clock: WatchedClock
) -> None:
    """The time-out is for the next event, by the manager's clock; 0 only looks."""
    manager.create("a")
    assert told(manager.events(after=0, timeout_seconds=0)) == [("a", 1), ("a", 2)]
    assert clock.waited == []
    waiting = begin(told, manager.events(timeout_seconds=3, poll_seconds=2))
    clock.await_wait()
    clock.advance(2)
    clock.await_wait()
    manager.touch("a")
    clock.await_wait()
    clock.advance(2)
    clock.await_wait()
    assert not waiting.done()
    clock.advance(1)
    assert end(waiting) == [[("a", 3)]]
    # It is the next event that is waited for: three more seconds from the touch on.
    assert clock.waited == [2, 1, 2, 1]


def test_feeds_followed_end_with_the_manager(manager: SessionManager, clock: WatchedClock) -> None:
    """Closing wakes whoever waits, and ends all feeds; none can be begun afterwards."""
    manager.create("a")
    waiting = begin(told, manager.events(after=0))
    other = manager.events(after=0)
    assert told(other, 1) == [("a", 1)]
    clock.await_wait()
    manager.close()
    assert end(waiting) == [[("a", 1), ("a", 2)]]
    assert told(other) == [("a", 2)]  # it had that in hand
    with pytest.raises(ManagerClosedError):
        manager.events()


def test_feeds_followed_are_refused_bad_numbers(manager: SessionManager) -> None:
    """Nobody waits for less than no time, or looks without a break."""
    for name, value in (("poll_seconds", 0), ("poll_seconds", 1e9), ("timeout_seconds", -1)):
        with pytest.raises(ValueError, match=name):
            manager.events(**{name: value})  # type: ignore[arg-type]


def test_feeds_followed_by_nobody_cost_nothing(manager: SessionManager) -> None:
    """A reader that has stopped to read is not called, and nothing is kept for it."""
    manager.create("a", config={"timeout_minutes": None})
    feed = manager.events(after=0)
    assert told(feed, 1) == [("a", 1)]
    never = manager.events()
    core = manager._core
    assert not core.bell.any
    assert not core._subscribers.any
    for _ in range(300):
        manager.touch("a")
    # In memory, an event is made when somebody looks at it.
    if isinstance(manager.store, MemoryStore):
        for each in manager.store._lives["a"].history[2:]:
            assert isinstance(each, StoredStep)
            assert each._sealed is None
    assert told(feed, 301) == [("a", number) for number in range(2, 303)]
    assert told(never, 2) == [("a", 3), ("a", 4)]
    feed.close()
    assert not core.bell.any


def test_feeds_followed_by_nobody_keep_no_memory() -> None:
    """What a reader that never reads adds to the memory of a manager does not grow."""

    def grown(readers: int) -> int:
        with SessionManager() as manager:
            manager.create("a")
            feeds = [manager.events(after=0) for _ in range(readers)]
            assert all(told(feed, 1) for feed in feeds)
            gc.collect()
            tracemalloc.start()
            for _ in range(500):
                manager.touch("a")
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return size

    without = grown(0)
    assert grown(50) < without + 50_000


def test_feeds_followed_wake_whoever_waits_only(
    manager: SessionManager, clock: WatchedClock
) -> None:
    """Feeds that are told and subscribers that are told do not get in each other's way."""
    recorder = Recorder()
    manager.subscribe(recorder)
    feeds = [begin(told, manager.events(), 3) for _ in range(3)]
    for _ in feeds:
        clock.await_wait()
    assert manager._core.bell.any
    manager.create("a")
    wait_until(lambda: clock.waits.acquire(blocking=False))
    manager.touch("a")
    assert end(*feeds) == [[("a", 1), ("a", 2), ("a", 3)]] * 3
    assert recorder.told == [("a", 1), ("a", 2), ("a", 3)]


def test_feeds_followed_by_many_look_in_turns() -> None:
    """Once in their interval it is looked for all; an event that can't be read wakes them all."""
    clock, store = WatchedClock(ManualClock(START)), HookedMemory()
    with SessionManager(store, clock=clock) as manager, SessionManager(store, clock=clock) as other:
        ids = [f"s{number}" for number in range(20)]
        for session_id in ids:
            manager.create(session_id)
        waiting = {each: begin(told, manager.events(each, poll_seconds=5), 1) for each in ids}
        for _ in ids:
            clock.await_wait()
        read = store.calls["feed"]
        for _ in range(3):
            clock.advance(5)
            for _ in ids:
                clock.await_wait()
        assert store.calls["feed"] == read + 3
        other.touch("s0")
        clock.advance(5)
        assert end(waiting.pop("s0")) == [[("s0", 3)]]
        for _ in ids[1:]:
            clock.await_wait()
        assert store.calls["feed"] == read + 5

        def broken(_: int, limit: int, session_id: str | None = None) -> None:
            if limit and session_id is None:
                raise CorruptRecordError(record="event", problems=("broken",))

        store.before["feed"] = broken
        for session_id in ids[1:]:
            other.touch(session_id)
        clock.advance(5)
        for session_id, found in waiting.items():
            assert end(found) == [[(session_id, 3)]]
