"""Who is told of what, when, in which order, and what a callback may do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
from managing import (
    PATIENCE_SECONDS,
    START,
    House,
    Recorder,
    await_event,
    begin,
    end,
    minutes,
    no_gaps,
    together,
)

from session_fsm import GuardRejectedError, SessionEvent, SessionManager
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)


def test_manager_subscribe_tells_of_every_step(manager: SessionManager) -> None:
    """Each step is told as the event that stands in the history, oldest first."""
    recorder = Recorder()
    manager.subscribe(recorder)
    manager.create("a")
    manager.begin_task("a", "t")
    manager.end_task("a", "t")
    manager.terminate("a")
    manager.create("b")
    assert tuple(recorder.events) == (*manager.history("a"), *manager.history("b"))


def test_manager_subscribe_tells_of_sweep_and_purge(
    manager: SessionManager, clock: ManualClock
) -> None:
    """What a sweep fires and what a purge removes is told too."""
    manager.create("a")
    recorder = Recorder()
    manager.subscribe(recorder)
    clock.advance(minutes(30))
    manager.sweep()
    manager.purge(ended_before=START + minutes(60))
    assert [event.trigger or event.kind for event in recorder.events] == [
        "expire",
        "finish",
        "purged",
    ]
    assert recorder.events[-1:] == list(manager.history("a"))


def test_manager_subscribe_to_one_session(manager: SessionManager) -> None:
    """Who asks for one session hears of no other, also where it is created later."""
    one, every = Recorder(), Recorder()
    manager.subscribe(one, "b")
    manager.subscribe(every)
    manager.create("a")
    manager.create("b")
    manager.touch("a")
    manager.touch("b")
    assert one.told == [("b", 1), ("b", 2), ("b", 3)]
    assert len(every.told) == 6


def test_manager_subscribe_only_to_this_manager(house: House, manager: SessionManager) -> None:
    """What another manager commits is not told here."""
    recorder = Recorder()
    manager.subscribe(recorder)
    other = house.open()
    other.create("a")
    other.touch("a")
    assert recorder.events == []
    manager.touch("a")
    assert recorder.told == [("a", 4)]


def test_manager_subscribe_before_the_verb_returns(manager: SessionManager) -> None:
    """When a verb returns, its event was told, on its own thread."""
    told: list[tuple[int, int]] = []
    manager.subscribe(lambda event: told.append((event.revision, threading.get_ident())))

    def verb() -> tuple[int, int]:
        revision = manager.create("a").revision
        assert told[-1] == (revision, threading.get_ident())
        return told[-1]

    [(_, thread)] = end(begin(verb))
    assert thread != threading.get_ident()


def test_manager_subscribe_after_the_commit(house: House, manager: SessionManager) -> None:
    """A callback finds what it is told of in the store, through any manager, whole commits only."""
    other = house.open()
    seen: list[tuple[int, str, int]] = []

    def look(event: SessionEvent) -> None:
        session = other.get("a")
        seen.append((event.revision, session.status, session.revision))

    manager.subscribe(look)
    manager.create("a")
    manager.begin_task("a", "t")
    manager.fail("a", "boom")
    ended = manager.get("a").revision
    assert seen[:3] == [(1, "active", 2), (2, "active", 2), (3, "active", 3)]
    assert seen[3:] == [(number, "terminated", ended) for number in range(4, ended + 1)]


def test_manager_subscribe_holds_no_lock(manager: SessionManager) -> None:
    """While a callback takes its time, other threads read and change the same session."""
    manager.create("a")
    called, go_on = threading.Event(), threading.Event()

    def slow(event: SessionEvent) -> None:
        if event.revision == 3:
            called.set()
            await_event(go_on)

    manager.subscribe(slow)
    changing = begin(manager.update, "a", metadata={"n": 1})
    await_event(called)
    [session] = end(begin(manager.get, "a"))
    assert session.revision == 3
    # The change is made while the callback runs; only its telling waits for the one before it.
    seen = threading.Event()

    def change(_: object) -> dict[str, int]:
        seen.set()
        return {"n": 2}

    second = begin(manager.update, "a", metadata=change)
    await_event(seen)
    go_on.set()
    end(changing, second)
    assert manager.get("a").state.metadata == {"n": 2}


def test_manager_subscribe_callback_changes_the_session(manager: SessionManager) -> None:
    """A callback may change its session; all are told of the first change before the second."""
    first, last = Recorder(), Recorder()
    manager.create("a")
    manager.subscribe(first)

    def react(event: SessionEvent) -> None:
        if event.trigger == "begin_task":
            manager.update("a", metadata={"told": event.revision})
            manager.end_task("a", "t")

    manager.subscribe(react)
    manager.subscribe(last)
    session = manager.begin_task("a", "t")
    assert session.status == "active"
    assert manager.get("a").status == "idle"
    assert first.told == last.told == [("a", number) for number in (3, 4, 5, 6)]


def test_manager_subscribe_callback_ends_the_session(manager: SessionManager) -> None:
    """A callback may end the session that it is told of."""
    recorder = Recorder()
    manager.subscribe(lambda event: manager.terminate("a") if event.revision == 2 else None)
    manager.subscribe(recorder)
    assert manager.create("a").status == "active"
    assert manager.get("a").status == "terminated"
    assert recorder.told == [("a", number) for number in (1, 2, 3, 4)]


def test_manager_subscribe_callbacks_that_cross(manager: SessionManager) -> None:
    """Two threads whose callbacks each change the other's session do not wait for each other.

    Each is told in the order of revisions all the same.
    """
    manager.create("a")
    manager.create("b")
    barrier = threading.Barrier(2)
    recorder = Recorder()

    def cross(event: SessionEvent) -> None:
        if event.trigger == "touch":
            barrier.wait(PATIENCE_SECONDS)
            other = "b" if event.session_id == "a" else "a"
            manager.update(other, metadata={"by": event.session_id})

    manager.subscribe(cross)
    manager.subscribe(recorder)
    end(begin(manager.touch, "a"), begin(manager.touch, "b"))
    for session_id in ("a", "b"):
        told = [revision for each, revision in recorder.told if each == session_id]
        assert told == [3, 4]
        assert manager.get(session_id).state.metadata == {"by": "b" if session_id == "a" else "a"}


def test_manager_subscribe_keeps_the_order(house: House) -> None:
    """Eight threads on two sessions: everybody is told of each session in order, all of it."""
    manager = house.open()
    recorders = [Recorder() for _ in range(3)]
    for recorder in recorders:
        manager.subscribe(recorder)
    manager.create("a")
    manager.create("b")

    def touch(session_id: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(10):
                manager.touch(session_id)

        return run

    together(*(touch(session_id) for session_id in "abababab"))
    for recorder in recorders:
        for session_id in ("a", "b"):
            revisions = [revision for each, revision in recorder.told if each == session_id]
            assert revisions == list(range(1, 43))
    assert no_gaps(manager, "a")


def test_manager_subscribe_own_revisions_rise(house: House) -> None:
    """With two managers at work, each tells its own steps in order."""
    managers = [house.open(), house.open()]
    recorders = [Recorder(), Recorder()]
    managers[0].create("a")
    for manager, recorder in zip(managers, recorders, strict=True):
        manager.subscribe(recorder)

    def touch(manager: SessionManager) -> Callable[[], None]:
        def run() -> None:
            for _ in range(10):
                manager.touch("a")

        return run

    together(*(touch(manager) for manager in managers * 2))
    told = [[revision for _, revision in recorder.told] for recorder in recorders]
    assert all(before < after for each in told for before, after in pairwise(each))
    assert sorted(told[0] + told[1]) == list(range(3, 43))


def test_manager_subscribe_callback_that_raises(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged, and harms neither the verb nor the other callbacks."""
    recorder = Recorder()

    def fail(_: SessionEvent) -> None:
        raise RuntimeError("listener's trouble")

    manager.subscribe(fail)
    manager.subscribe(recorder)
    with caplog.at_level(logging.ERROR, "session_fsm"):
        assert manager.create("a").status == "active"
    assert recorder.told == [("a", 1), ("a", 2)]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert "listener's trouble" in caplog.text


def test_manager_subscribe_callback_interrupted(manager: SessionManager) -> None:
    """An interrupt in a callback passes through; the change stands, and the rest is told later."""
    manager.create("a")
    after = Recorder()

    def interrupt(event: SessionEvent) -> None:
        if event.revision == 3:
            raise KeyboardInterrupt

    manager.subscribe(interrupt)
    manager.subscribe(after)
    with pytest.raises(KeyboardInterrupt):
        manager.touch("a")
    assert manager.get("a").revision == 3
    manager.touch("a")
    assert after.told == [("a", 3), ("a", 4)]


def test_manager_subscribe_until_unsubscribed(manager: SessionManager) -> None:
    """After it is ended nobody is told; ending it twice is harmless; others are told still."""
    one, other = Recorder(), Recorder()
    stop = manager.subscribe(one)
    manager.subscribe(other)
    manager.create("a")
    stop()
    stop()
    manager.touch("a")
    assert one.told == [("a", 1), ("a", 2)]
    assert other.told == [("a", 1), ("a", 2), ("a", 3)]


def test_manager_subscribe_ended_from_the_callback(manager: SessionManager) -> None:
    """Who ends it within a callback hears nothing more, not even the next step of the commit."""
    told: list[int] = []

    def listen(event: SessionEvent) -> None:
        told.append(event.revision)
        stop()

    stop = manager.subscribe(listen)
    manager.create("a")
    manager.touch("a")
    assert told == [1]


def test_manager_subscribe_twice(manager: SessionManager) -> None:
    """One callback may be subscribed twice, is told twice, and each is ended by itself."""
    recorder = Recorder()
    stop = manager.subscribe(recorder)
    manager.subscribe(recorder, "a")
    manager.create("a")
    assert recorder.told == [("a", 1), ("a", 1), ("a", 2), ("a", 2)]
    stop()
    manager.touch("a")
    assert recorder.told[4:] == [("a", 3)]


def test_manager_subscribe_from_now_on(manager: SessionManager) -> None:
    """Nothing of what was before is told, and a refusal never is."""
    manager.create("a")
    recorder = Recorder()
    manager.subscribe(recorder)
    with pytest.raises(GuardRejectedError):
        manager.end_task("a", "t")
    assert recorder.events == []


def test_manager_subscribe_within_a_callback(manager: SessionManager) -> None:
    """Who is subscribed within a callback hears of later changes, not of the present one."""
    late = Recorder()
    manager.create("a")

    def listen(event: SessionEvent) -> None:
        if event.revision == 3:
            manager.subscribe(late)

    manager.subscribe(listen)
    manager.touch("a")
    manager.touch("a")
    assert late.told == [("a", 4)]
