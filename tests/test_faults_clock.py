"""A clock that jumps: instants of a session never run backwards, and deadlines are instants.

A jump forward fires what is due by then. A jump back undoes nothing. A session that was changed
while the clock stood too far ahead keeps that instant: it can be used and ended by hand at once,
and ends by itself when the clock gets there, or when a sweep is told to look so far.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from managing import begin, end, wait_until

from session_fsm import SessionManager, TransitionError
from session_fsm.clock import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY, YEAR = timedelta(days=1), timedelta(days=365)
TIMEOUT = timedelta(minutes=30)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that a test moves as it likes."""
    return ManualClock(NOON)


@pytest.fixture
def manager(tmp_path: Path, clock: ManualClock) -> Iterator[SessionManager]:
    """A manager with that clock."""
    with SessionManager(f"sqlite:///{tmp_path}/sessions.db", clock=clock) as manager:
        yield manager


@pytest.fixture
def ahead(manager: SessionManager, clock: ManualClock) -> str:
    """A session that was used while the clock stood a year ahead; now it is right again."""
    session_id = "a"
    clock.set(NOON + YEAR)
    manager.create(session_id, config={"timeout_minutes": 30})
    manager.touch(session_id)
    clock.set(NOON)
    return session_id


def check_order(manager: SessionManager, session_id: str) -> None:
    """Assert that the instants of a session never run backwards, in its history and its state."""
    instants = [event.at for event in manager.history(session_id)]
    assert instants == sorted(instants)
    state = manager.get(session_id).state
    assert state.created_at <= state.status_since <= state.updated_at
    assert state.created_at <= state.last_activity_at <= state.updated_at
    assert state.updated_at == instants[-1]
    assert manager.verify().ok


def test_faults_clock_jump_forward_fires_what_is_due(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A machine that slept finds its sessions expired, but none that has work in flight."""
    manager.create("idle", config={"timeout_minutes": 30})
    manager.transition("idle", "idle")
    manager.create("busy", config={"timeout_minutes": 30})
    manager.begin_task("busy", "t")
    clock.advance(YEAR)
    with pytest.raises(TransitionError, match="expired"):
        manager.touch("idle")
    report = manager.sweep()
    assert [(event.session_id, event.trigger) for event in report.fired] == [
        ("idle", "expire"),
        ("idle", "finish"),
    ]
    assert {event.at for event in report.fired} == {NOON + YEAR}
    assert manager.end_task("busy", "t").status == "idle"
    check_order(manager, "idle")
    check_order(manager, "busy")


def test_faults_clock_jump_back_undoes_nothing(manager: SessionManager, clock: ManualClock) -> None:
    """What was fired while the clock stood ahead stays so when it is set right."""
    manager.create("a", config={"timeout_minutes": 30})
    clock.advance(YEAR)
    manager.sweep()
    clock.set(NOON)
    assert manager.get("a").status == "terminated"
    assert manager.sweep().fired == ()
    with pytest.raises(TransitionError):
        manager.touch("a")
    check_order(manager, "a")
    assert manager.purge(ended_before=NOON + YEAR) == 0
    assert manager.purge(ended_before=NOON + YEAR + DAY) == 1


def test_faults_clock_jump_back_by_a_day(manager: SessionManager, clock: ManualClock) -> None:
    """A deadline that was set stays the instant that it is; steps in between bear the last one."""
    manager.create("a", config={"timeout_minutes": 30})
    deadline = manager.store.next_deadline()
    assert deadline == NOON + TIMEOUT
    clock.set(NOON - DAY)
    manager.begin_task("a", "t")
    manager.end_task("a", "t")
    assert manager.store.next_deadline() == deadline
    assert {event.at for event in manager.history("a")} == {NOON}
    clock.set(NOON + TIMEOUT - timedelta(microseconds=1))
    assert manager.sweep().fired == ()
    clock.set(NOON + TIMEOUT)
    assert [event.trigger for event in manager.sweep().fired] == ["expire", "finish"]
    check_order(manager, "a")


def test_faults_clock_ahead_session_can_be_used(
    manager: SessionManager, clock: ManualClock, ahead: str
) -> None:
    """A session whose last activity lies in the future is refused nothing on that account."""
    before = manager.get(ahead).state
    manager.touch(ahead)
    with manager.task(ahead, "t"):
        manager.start_conversation(ahead)
    assert manager.get(ahead).status == "idle"
    manager.transition(ahead, "active")
    manager.update(ahead, metadata={"x": 1})
    state = manager.get(ahead).state
    assert state.updated_at == before.updated_at == NOON + YEAR
    assert manager.sweep().fired == ()
    clock.set(NOON + YEAR + DAY)
    assert [event.trigger for event in manager.sweep().fired] == ["expire", "finish"]
    check_order(manager, ahead)


def test_faults_clock_ahead_session_can_be_ended(manager: SessionManager, ahead: str) -> None:
    """It is ended by hand at once, with a task in flight as well, which has to end first."""
    manager.begin_task(ahead, "t")
    assert manager.terminate(ahead, wait=False).status == "terminating"
    assert manager.end_task(ahead, "t").status == "terminated"
    check_order(manager, ahead)


def test_faults_clock_ahead_session_waits_for_its_grace_alone(
    manager: SessionManager, clock: ManualClock, ahead: str
) -> None:
    """An end that waits for a task waits for the grace, by the clock as it goes on now."""
    manager.begin_task(ahead, "t")
    ending = begin(manager.terminate, ahead)
    wait_until(lambda: manager.get(ahead).status == "terminating")
    for _ in range(11):
        clock.advance(1)
    [session] = end(ending)
    assert session.status == "terminated"
    assert "1 task dropped: t" in str(session.state.error)
    check_order(manager, ahead)


def test_faults_clock_ahead_session_can_fail(manager: SessionManager, ahead: str) -> None:
    """A failure ends it at once, with its tasks dropped."""
    manager.begin_task(ahead, "t")
    assert manager.fail(ahead, "boom").status == "terminated"
    check_order(manager, ahead)


def test_faults_clock_ahead_session_is_found_by_a_sweep_ahead(
    manager: SessionManager, clock: ManualClock, ahead: str
) -> None:
    """A sweep that is told an instant so far ahead ends what nobody would end for a year."""
    clock.advance(DAY)
    assert manager.sweep().next_deadline == NOON + YEAR + TIMEOUT
    report = manager.sweep(at=NOON + YEAR + TIMEOUT)
    assert [event.trigger for event in report.fired] == ["expire", "finish"]
    assert report.next_deadline is None
    check_order(manager, ahead)


def test_faults_clock_ahead_start_is_not_too_late(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A start over which the clock is set back takes no negative time, and is activated."""
    clock.set(NOON + YEAR)
    manager.create("a", start=lambda _: clock.set(NOON))
    assert manager.get("a").status == "active"
    check_order(manager, "a")


def test_faults_clock_ahead_touch_is_near_enough(tmp_path: Path, clock: ManualClock) -> None:
    """A touch that would lie before the last one is as near to it as can be: nothing is written."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with SessionManager(url, clock=clock, touch_resolution_seconds=5) as manager:
        manager.create("a")
        clock.set(NOON - DAY)
        assert manager.touch("a").revision == 2
        clock.set(NOON + timedelta(seconds=5))
        assert manager.touch("a").revision == 3
        check_order(manager, "a")
