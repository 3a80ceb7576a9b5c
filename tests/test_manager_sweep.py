"""Sweeping: what is due fires once, at its time, whatever is wrong with its neighbours."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime

import pytest
from managing import (
    START,
    House,
    Recorder,
    await_event,
    begin,
    end,
    minutes,
    seconds,
    together,
    triggers,
)

from session_fsm import (
    SESSION_LIFECYCLE,
    Attempt,
    Guard,
    Row,
    Session,
    SessionManager,
    SessionStartError,
    StateInvalidError,
)
from session_fsm.clock import ManualClock
from session_fsm.table import IDLE_DEADLINE

pytest_plugins = ("manager_fixtures",)


def test_manager_sweep_fires_what_is_due(manager: SessionManager, clock: ManualClock) -> None:
    """What is due goes the whole way out, in the order of the deadlines; the rest stays."""
    for session_id, timeout in (("c", 1), ("a", 2), ("b", 3), ("d", None)):
        manager.create(session_id, config={"timeout_minutes": timeout})
    clock.advance(minutes(2))
    report = manager.sweep()
    assert [(event.session_id, event.trigger) for event in report.fired] == [
        ("c", "expire"),
        ("c", "finish"),
        ("a", "expire"),
        ("a", "finish"),
    ]
    assert report.failed == ()
    assert report.next_deadline == manager.next_deadline() == START + minutes(3)
    assert [session.session_id for session in manager.list()] == ["b", "d"]
    assert manager.get("a").state.error is None


def test_manager_sweep_to_the_microsecond(manager: SessionManager, clock: ManualClock) -> None:
    """Nothing fires before its deadline, and everything at it."""
    manager.create("a")
    clock.advance(minutes(30) - seconds(1e-6))
    assert manager.sweep().fired == ()
    clock.advance(seconds(1e-6))
    assert len(manager.sweep().fired) == 2


def test_manager_sweep_fires_once(manager: SessionManager, clock: ManualClock) -> None:
    """A second sweep finds nothing to do."""
    manager.create("a")
    clock.advance(minutes(30))
    manager.sweep()
    before = manager.get("a")
    clock.advance(minutes(300))
    report = manager.sweep()
    assert (report.fired, report.next_deadline) == ((), None)
    assert manager.get("a") == before


def test_manager_sweep_fires_once_by_many(house: House) -> None:
    """However many sweep at once, each due row fires once, and one of them tells of it."""
    managers = [house.open() for _ in range(3)]
    for number in range(20):
        managers[0].create(f"s{number:02}")
    house.clock.advance(minutes(30))
    reports = together(*(manager.sweep for manager in managers))
    fired = sorted(
        (event.session_id, event.revision) for report in reports for event in report.fired
    )
    assert fired == [(f"s{number:02}", revision) for number in range(20) for revision in (3, 4)]
    assert all(report.failed == () for report in reports)
    assert managers[0].verify().ok


def test_manager_sweep_at_a_given_instant(manager: SessionManager, clock: ManualClock) -> None:
    """An instant may be given instead of the clock's, in any zone; a naive one is refused."""
    manager.create("a")
    assert manager.sweep(at=START + minutes(29)).fired == ()
    assert [event.at for event in manager.sweep(at=START + minutes(31)).fired] == [
        START + minutes(31)
    ] * 2
    assert clock.now() == START
    with pytest.raises(ValueError, match="time zone"):
        manager.sweep(at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_manager_sweep_of_a_start_and_a_stop(manager: SessionManager, clock: ManualClock) -> None:
    """A start and a stop that last too long are ended, with what was dropped in the error."""
    manager.create("b")
    manager.begin_task("b", "t")
    manager.terminate("b", wait=False)

    def start(_: Session) -> None:
        assert manager.next_deadline() == START + seconds(10)
        clock.advance(60)
        fired = [(event.session_id, event.trigger) for event in manager.sweep().fired]
        assert fired == [("b", "stop_timeout"), ("a", "start_timeout")]

    with pytest.raises(SessionStartError):
        manager.create("a", start=start)
    assert manager.get("a").state.error == "the start did not end within 60 s"
    assert manager.get("b").state.error == "the stop did not end within 10 s; 1 task dropped: t"


def test_manager_sweep_lets_a_late_one_drain(manager: SessionManager, clock: ManualClock) -> None:
    """A sweep that comes late ends what has expired; graces count from then."""
    worker_at: list[datetime] = []

    class Worker:
        def stop(self) -> None:
            worker_at.append(clock.now())

    manager.create("a", start=lambda _: Worker())
    clock.advance(minutes(1000))
    manager.sweep()
    assert worker_at == [START + minutes(1000)]
    assert triggers(manager, "a")[-2:] == ["expire", "finish"]


def test_manager_sweep_says_what_it_made_due(house: House) -> None:
    """What a sweep makes due at the same instant is fired by the next one, which it asks for."""
    manager, other = house.open(stop_grace_seconds=0.0), house.open(stop_grace_seconds=0.0)
    other.create("a", start=lambda _: object())
    house.clock.advance(minutes(30))
    report = manager.sweep()
    assert [event.trigger for event in report.fired] == ["expire"]
    assert report.next_deadline == house.clock.now()
    report = manager.sweep()
    assert [event.trigger for event in report.fired] == ["stop_timeout"]
    assert report.next_deadline is None


def test_manager_sweep_next_deadline(manager: SessionManager, clock: ManualClock) -> None:
    """The next deadline is the first of all clocks that run; there may be none."""
    assert manager.next_deadline() is None
    manager.create("a", config={"timeout_minutes": None})
    assert manager.next_deadline() is None
    manager.create("b", config={"timeout_minutes": 20})
    clock.advance(minutes(1))
    manager.create("c", config={"timeout_minutes": 10})
    assert manager.next_deadline() == START + minutes(11)
    manager.begin_task("c", "t")
    assert manager.next_deadline() == START + minutes(20)
    manager.terminate("b")
    assert manager.next_deadline() is None
    manager.terminate("c", wait=False)
    assert manager.next_deadline() == START + minutes(1) + seconds(10)


def test_manager_sweep_by_its_own_advice(manager: SessionManager, clock: ManualClock) -> None:
    """Sweeping only when the last sweep said so, every session expires at its deadline."""
    for number in range(5):
        manager.create(f"s{number}", config={"timeout_minutes": 5 - number})
    due = manager.next_deadline()
    ends = []
    while due is not None:
        clock.set(due)
        report = manager.sweep()
        assert report.fired
        ends += [(event.session_id, event.at) for event in report.fired[:1]]
        due = report.next_deadline
    assert ends == [(f"s{5 - number}", START + minutes(number)) for number in (1, 2, 3, 4, 5)]


def test_manager_sweep_in_large_numbers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are fetched at a time, all that are due are fired."""
    monkeypatch.setattr("session_fsm.upkeep.BATCH_SIZE", 3)
    manager = house.open()
    for number in range(10):
        manager.create(f"s{number}", config={"timeout_minutes": 1 + number % 3})
    house.clock.advance(minutes(3))
    report = manager.sweep()
    assert len(report.fired) == 20
    ended = [event.session_id for event in report.fired if event.trigger == "finish"]
    assert ended == [f"s{number}" for number in (0, 3, 6, 9, 1, 4, 7, 2, 5, 8)]


def _cost(house: House, stored: int, due: int) -> dict[str, int]:
    store = house.store()
    manager = house.open(store=store)
    base = sum(manager.counts().values())
    with manager.batch():
        for number in range(stored):
            manager.create(f"stored-{base}-{number}", config={"timeout_minutes": 1_000_000})
        for number in range(due):
            manager.create(f"due-{base}-{number}")
    house.clock.advance(minutes(30))
    store.calls.clear()
    assert len(manager.sweep().fired) == 2 * due
    return dict(store.calls)


def test_manager_sweep_costs_by_what_is_due(house: House) -> None:
    """What a sweep asks of the store depends on what is due, not on what is stored."""
    few, many = _cost(house, stored=5, due=3), _cost(house, stored=200, due=3)
    assert few == many
    none = _cost(house, stored=100, due=0)
    assert sum(none.values()) <= 4
    assert "commit" not in none


# --- one bad session holds up nobody ---------------------------------------------------------


def test_manager_sweep_past_a_corrupt_row(file_house: House) -> None:
    """A session that can't be read is named and left; all others are fired."""
    manager = file_house.open()
    for session_id in "abc":
        manager.create(session_id)
    with sqlite3.connect(file_house.path) as raw:
        raw.execute("DROP TRIGGER session_goes_on")
        raw.execute("UPDATE session SET state = '{\"format\": 1' WHERE session_id = 'a'")
    raw.close()
    other = file_house.open()
    file_house.clock.advance(minutes(30))
    report = other.sweep()
    assert [session_id for session_id, _ in report.failed] == ["a"]
    assert "session 'a'" in report.failed[0][1]
    assert [other.get(session_id).status for session_id in "bc"] == ["terminated"] * 2


def _poisoned(guard: Callable[[Attempt], bool]) -> Row:
    return Row(
        "expire",
        ("active", "idle"),
        "terminating",
        guards=(Guard("poison", guard, "poisoned"),),
        deadline=IDLE_DEADLINE,
    )


def test_manager_sweep_past_a_guard_that_raises(house: House) -> None:
    """A guard that fails on one session leaves that one, and no other, where it is."""

    def poison(attempt: Attempt) -> bool:
        if attempt.state.metadata.get("poison") and attempt.at >= START + minutes(31):
            raise RuntimeError("poison")
        return True

    lifecycle = SESSION_LIFECYCLE.extend(rows=[_poisoned(poison)], name="poisoned")
    manager = house.open(lifecycle=lifecycle)
    for session_id in "abc":
        manager.create(session_id, metadata={"poison": session_id == "b"})
    before = manager.get("b")
    house.clock.advance(minutes(31))
    report = manager.sweep()
    assert [session_id for session_id, _ in report.failed] == ["b"]
    assert "poison" in report.failed[0][1]
    assert manager.get("b") == before
    assert [manager.get(session_id).status for session_id in "ac"] == ["terminated"] * 2


def test_manager_sweep_past_an_effect_that_raises(house: House) -> None:
    """Whatever a lifecycle's own code raises, it stops no sweep."""

    def effect(attempt: Attempt) -> dict[str, object]:
        return {"metadata": {"left": 1 / attempt.state.metadata["n"]}}

    row = Row("expire", ("active", "idle"), "terminating", deadline=IDLE_DEADLINE, effect=effect)
    lifecycle = SESSION_LIFECYCLE.extend(rows=[row], name="dividing")
    manager = house.open(lifecycle=lifecycle)
    for number, session_id in enumerate("abc"):
        manager.create(session_id, metadata={"n": number})
    house.clock.advance(minutes(30))
    report = manager.sweep()
    assert [session_id for session_id, _ in report.failed] == ["a"]
    assert [manager.get(session_id).status for session_id in "bc"] == ["terminated"] * 2
    assert manager.get("a").status == "active"


def test_manager_sweep_beside_other_verbs(house: House) -> None:
    """Sweeps on another thread while sessions live: none with a task expires, all end at last."""
    manager, other = house.open(), house.open()
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            other.sweep()

    sweeping = begin(sweep)
    try:
        for number in range(10):
            manager.create(f"s{number}", config={"timeout_minutes": 1})
            with manager.task(f"s{number}", "t"):
                house.clock.advance(minutes(2))
    finally:
        stop.set()
        end(sweeping)
    house.clock.advance(minutes(2))
    manager.sweep()
    assert manager.counts()["terminated"] == 10
    assert all("expire" in triggers(manager, f"s{number}") for number in range(10))
    assert manager.verify().ok


def test_manager_sweep_does_not_wait_for_a_session_in_use(house: House) -> None:
    """A session whose change takes long holds up the sweep of no other manager."""
    manager, other = house.open(), house.open()
    manager.create("a")
    manager.create("b")
    deciding, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> dict[str, object]:
        deciding.set()
        await_event(go_on)
        return {}

    changing = begin(manager.update, "a", metadata=slow)
    await_event(deciding)
    house.clock.advance(minutes(30))
    [report] = end(begin(other.sweep))
    assert len(report.fired) == 4
    go_on.set()
    assert changing.exception(20) is not None
    assert manager.get("a").status == "terminated"


def test_manager_sweep_tells_subscribers(manager: SessionManager, clock: ManualClock) -> None:
    """What was fired is what is told."""
    manager.create("a")
    manager.create("b")
    recorder = Recorder()
    manager.subscribe(recorder)
    clock.advance(minutes(30))
    assert manager.sweep().fired == tuple(recorder.events)


def test_manager_sweep_of_bad_data_is_no_crash(manager: SessionManager) -> None:
    """A refusal to create leaves nothing that could come due."""
    with pytest.raises(StateInvalidError):
        manager.create("a", config={"timeout_minutes": 10**12})
    assert manager.next_deadline() is None


def test_manager_sweep_of_a_deadline_beyond_all_time(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A time-out that ends after the last year there is never fires."""
    manager.create("a", config={"timeout_minutes": 527_040_000})
    clock.set(datetime(9998, 1, 1, tzinfo=START.tzinfo))
    manager.create("b", config={"timeout_minutes": 527_040_000})
    report = manager.sweep()
    assert [event.session_id for event in report.fired] == ["a", "a"]
    assert report.next_deadline is None
