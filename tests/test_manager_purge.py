"""Purging: ended sessions go, a tombstone stays, and an id that is used again goes on from it."""

from __future__ import annotations

from datetime import datetime

import pytest
from managing import START, House, Recorder, minutes, seconds, together, triggers

from session_fsm import SessionManager, SessionNotFoundError
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)


def test_manager_purge_by_the_time_of_the_end(manager: SessionManager, clock: ManualClock) -> None:
    """Sessions that ended before the instant go, those that ended at it or later stay."""
    for session_id in "abc":
        manager.create(session_id)
    for session_id in "abc":
        manager.terminate(session_id)
        clock.advance(60)
    assert manager.purge(ended_before=START) == 0
    assert manager.purge(ended_before=START + minutes(1)) == 1
    assert [manager.find(session_id) is None for session_id in "abc"] == [True, False, False]
    assert manager.purge(ended_before=START + minutes(500)) == 2
    assert manager.purge(ended_before=START + minutes(500)) == 0
    assert manager.counts()["terminated"] == 0


def test_manager_purge_of_the_ended_only(manager: SessionManager, clock: ManualClock) -> None:
    """Whatever its age, a session that has not ended stays."""
    manager.create("active", config={"timeout_minutes": None})
    manager.create("idle", config={"timeout_minutes": None})
    manager.transition("idle", "idle")
    manager.create("terminating")
    manager.begin_task("terminating", "t")
    manager.terminate("terminating", wait=False)
    before = manager.list()
    clock.advance(minutes(10_000))
    assert manager.purge(ended_before=clock.now()) == 0
    assert manager.list() == before


def test_manager_purge_needs_an_instant(manager: SessionManager) -> None:
    """An instant without a zone is refused."""
    with pytest.raises(ValueError, match="time zone"):
        manager.purge(ended_before=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_manager_purge_in_pieces(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are removed at a time, all that ended early enough are removed."""
    monkeypatch.setattr("session_fsm.upkeep.BATCH_SIZE", 3)
    manager = house.open()
    recorder = Recorder()
    for number in range(10):
        manager.create(f"s{number}")
        if number != 4:
            manager.terminate(f"s{number}")
    manager.subscribe(recorder)
    assert manager.purge(ended_before=START + seconds(1)) == 9
    assert [session.session_id for session in manager.list()] == ["s4"]
    assert [event.kind for event in recorder.events] == ["purged"] * 9
    assert manager.verify().ok


def test_manager_purge_leaves_a_tombstone(manager: SessionManager, clock: ManualClock) -> None:
    """Of a whole life one event is left: that it was purged, when, and the last digest."""
    manager.create("a", metadata={"secret": "x"})
    manager.terminate("a")
    last = manager.history("a")[-1]
    clock.advance(60)
    assert manager.purge(ended_before=clock.now()) == 1
    [stone] = manager.history("a")
    assert (stone.kind, stone.revision, stone.at) == ("purged", 5, clock.now())
    assert stone.changes == {"last_digest": last.digest}
    assert (stone.source, stone.target, stone.trigger) == ("terminated", "terminated", None)
    with pytest.raises(SessionNotFoundError):
        manager.get("a")
    with pytest.raises(SessionNotFoundError):
        manager.touch("a")
    report = manager.verify()
    assert (report.ok, report.sessions, report.events) == (True, 0, 1)


def test_manager_purge_and_the_same_id_again(house: House, manager: SessionManager) -> None:
    """An id that is used again goes on from the tombstone, life after life."""
    for life in range(3):
        session = manager.create("a", metadata={"life": life})
        assert session.revision == 5 * life + 2
        assert session.state.metadata == {"life": life}
        manager.terminate("a")
        assert manager.purge(ended_before=START + seconds(1)) == 1
        assert house.open().verify().ok
    manager.create("a")
    events = manager.history("a")
    assert [(event.kind, event.revision) for event in events] == [
        ("purged", 15),
        ("created", 16),
        ("moved", 17),
    ]
    report = manager.verify()
    assert (report.ok, report.sessions) == (True, 1)


def test_manager_purge_is_told_of(manager: SessionManager) -> None:
    """Whoever subscribed is told of the tombstone, then of the next life, in order."""
    recorder = Recorder()
    manager.subscribe(recorder, "a")
    manager.create("a")
    manager.terminate("a")
    manager.purge(ended_before=START + seconds(1))
    manager.create("a")
    assert recorder.told == [("a", number) for number in range(1, 8)]
    assert recorder.events[4].kind == "purged"


def test_manager_purge_by_many_at_once(house: House) -> None:
    """However many purge at once, each session is removed once."""
    managers = [house.open() for _ in range(3)]
    for number in range(30):
        managers[0].create(f"s{number}")
        managers[0].terminate(f"s{number}")
    removed = together(
        *(
            lambda manager=manager: manager.purge(ended_before=START + seconds(1))
            for manager in managers
        )
    )
    assert sum(removed) == 30
    assert all(len(managers[0].history(f"s{number}")) == 1 for number in range(30))
    assert managers[0].verify().ok


def test_manager_purge_leaves_no_work(manager: SessionManager) -> None:
    """Nothing is left that anybody would answer for."""
    manager.create("a", start=lambda _: object())
    manager.begin_task("a", "t")
    manager.fail("a", "boom")
    manager.purge(ended_before=START + seconds(1))
    assert manager.store.work_in("a") == ()
    manager.create("a")
    assert triggers(manager, "a") == [None, None, "activate"]
    assert manager.terminate("a").status == "terminated"


def test_manager_purge_with_a_clock_set_back(manager: SessionManager, clock: ManualClock) -> None:
    """A tombstone is never older than the life that it closes."""
    manager.create("a")
    manager.terminate("a")
    clock.set(START - minutes(5))
    assert manager.purge(ended_before=START + seconds(1)) == 1
    assert manager.history("a")[0].at == START
    assert manager.create("a").revision == 7
    assert manager.verify().ok
