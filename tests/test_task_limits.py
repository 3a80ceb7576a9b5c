"""Tasks with a time limit: one that hangs is dropped and named, whether or not anybody looks on."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managing import START, House, RemoteManager, minutes, seconds, triggers, work_left
from supervised import Watch, opened, simulated

from session_fsm import (
    SESSION_LIFECYCLE,
    DeserializationError,
    LifecycleError,
    SessionManager,
    SessionState,
    StateInvalidError,
    TaskDroppedError,
    TransitionError,
    deserialize,
    dumps,
    json_schema,
    loads,
    serialize,
    step,
    validate,
)
from session_fsm.clock import ManualClock
from session_fsm.stores import SqliteStore, upgrade_store
from session_fsm.testing import states

pytest_plugins = ("manager_fixtures",)


def limited(**limits: float) -> SessionState:
    """A state in which tasks with these limits were begun at `START`."""
    state = SessionState.new("s", at=START, status="active")
    for task, limit in limits.items():
        state = step(state, "begin_task", at=START, task_id=task, timeout_seconds=limit)
    return state


# --- the state and its row ------------------------------------------------------------------


def test_task_limits_are_in_the_state_earliest_first() -> None:
    """A begun task has its deadline in the state; one that ended has none."""
    state = limited(slow=60, quick=5)
    assert state.task_deadlines == (("quick", START + seconds(5)), ("slow", START + seconds(60)))
    assert pickle.loads(pickle.dumps(state)) == state
    assert hash(state) == hash(limited(slow=60, quick=5))
    after = step(state, "end_task", at=START, task_id="quick")
    assert after.task_deadlines == (("slow", START + seconds(60)),)
    assert state.update(active_tasks=("quick",)).task_deadlines == state.task_deadlines[:1]
    assert state.update(active_tasks=()).task_deadlines == ()


def test_task_limits_row_drops_all_that_are_due_and_names_them() -> None:
    """At its instant a limit is passed; every task past its own is dropped, and no other."""
    state = step(limited(a=5, b=7, c=60), "begin_task", at=START, task_id="free")
    with pytest.raises(TransitionError, match="not due before"):
        step(state, "task_timeout", at=START + seconds(5) - timedelta.resolution)
    after = step(state, "task_timeout", at=START + seconds(7))
    assert after.active_tasks == ("c", "free")
    assert after.error == "a time limit was passed; 2 tasks dropped: a, b"
    assert (after.status, after.last_activity_at) == ("active", START + seconds(7))
    validate(after)


@pytest.mark.parametrize(
    "limit", [0, -1, float("nan"), float("inf"), "5", True, 1e300, [], timedelta(seconds=1)]
)
def test_task_limits_refuse_what_is_no_time(limit: object) -> None:
    """A limit is a positive number of seconds that a calendar can tell; else nothing begins."""
    state = SessionState.new("s", at=START, status="active")
    with pytest.raises(StateInvalidError, match="timeout_seconds"):
        step(state, "begin_task", at=START, task_id="t", timeout_seconds=limit)
    with SessionManager(clock=ManualClock(START)) as manager:
        before = manager.create("s")
        with pytest.raises(StateInvalidError, match="timeout_seconds"):
            manager.begin_task("s", "t", timeout_seconds=limit)  # type: ignore[arg-type]
        assert manager.get("s") == before


@pytest.mark.parametrize(
    ("deadlines", "problem"),
    [
        ({"gone": START}, "'gone'|\"gone\" is no active task"),
        ({"t": "2026"}, r"task_deadlines\[.*expected an instant"),
        ({"t": START.replace(tzinfo=None)}, "needs a time zone"),
        ({5: START}, "task_deadlines, a task: expected a string"),
        ("text", "expected instants by task"),
        (7, "expected instants by task"),
        ((("t", START), ("t", START)), "stands twice"),
        (("t",), "expected pairs"),
    ],
)
def test_task_limits_faults_are_named(deadlines: Any, problem: str) -> None:
    """What can't be a deadline, or is of no active task, is named by its path."""
    fields: dict[str, Any] = {
        "session_id": "s",
        "status": "active",
        "created_at": START,
        "updated_at": START,
        "active_tasks": ("t",),
    }
    with pytest.raises(StateInvalidError, match=problem):
        SessionState(**fields, task_deadlines=deadlines)
    with pytest.raises(StateInvalidError, match=problem):
        SessionState(**fields).update(task_deadlines=deadlines)


# --- as text --------------------------------------------------------------------------------


@given(states(status="active"))
def test_task_limits_survive_text(state: SessionState) -> None:
    """A state reads back as it was; one with limits is of format 2 at least."""
    written = serialize(state)
    assert loads(dumps(state)) == deserialize(written) == state
    assert not state.task_deadlines or written["format"] >= 2
    assert ("task_deadlines" in written) == bool(state.task_deadlines)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": 1}, "task_deadlines: unknown field in format 1"),
        ({"task_deadlines": {"u": "2026-03-01T12:00:05Z"}}, "no active task"),
        ({"task_deadlines": [["t", "2026-03-01T12:00:05Z"]]}, "expected"),
        ({"task_deadlines": {"t": "2026-03-01"}}, "expected an instant"),
        ({"task_deadlines": {"t": 5}}, "expected an instant"),
        ({"task_deadlines": {"t": START}}, "expected an instant"),
    ],
)
def test_task_limits_are_read_strictly(change: dict[str, Any], problem: str) -> None:
    """Other formats, other shapes and other tasks are refused, each named."""
    document = serialize(limited(t=5))
    assert deserialize(document).task_deadlines
    with pytest.raises(DeserializationError, match=problem):
        deserialize(document | change)
    assert "task_deadlines" in json_schema()["properties"]


# --- the manager ----------------------------------------------------------------------------


def test_task_limits_are_kept_by_a_sweep(manager: SessionManager, clock: ManualClock) -> None:
    """Without anybody who could cancel it, a task that hangs is dropped, and the session rests."""
    manager.create("s")
    manager.begin_task("s", "hangs", timeout_seconds=90)
    manager.begin_task("s", "works")
    assert manager.next_deadline() == START + seconds(90)
    clock.advance(minutes(60))
    assert [event.trigger for event in manager.sweep().fired] == ["task_timeout"]
    session = manager.get("s")
    assert (session.status, session.state.active_tasks) == ("active", ("works",))
    manager.begin_task("s", "hangs again", timeout_seconds=5)
    manager.end_task("s", "works")
    clock.advance(5)
    assert [event.trigger for event in manager.sweep().fired] == ["task_timeout", "go_idle"]
    session = manager.get("s")
    assert session.status == "idle"
    assert session.state.error == (
        "a time limit was passed; 1 task dropped: hangs;"
        " a time limit was passed; 1 task dropped: hangs again"
    )
    assert work_left(manager, "s") == set()
    assert manager.verify().ok


def test_task_limits_start_the_idle_clock_anew(manager: SessionManager, clock: ManualClock) -> None:
    """A session whose work has hung for longer than its time-out rests, and is not gone at once."""
    manager.create("s", config={"timeout_minutes": 5})
    manager.begin_task("s", "t", timeout_seconds=3600)
    clock.advance(minutes(60))
    manager.sweep()
    assert manager.get("s").status == "idle"
    assert manager.next_deadline() == clock.now() + minutes(5)


def test_task_limits_hold_while_a_session_ends(house: House) -> None:
    """A session on its way out waits for a limited task no longer than its limit."""
    manager = house.open(stop_grace_seconds=600)
    manager.create("s")
    manager.begin_task("s", "hangs", timeout_seconds=20)
    manager.terminate("s", wait=False)
    house.clock.advance(20)
    manager.sweep()
    session = manager.get("s")
    assert session.status == "terminated"
    assert triggers(manager, "s")[-2:] == ["task_timeout", "finish"]
    assert "hangs" in str(session.state.error)


def test_task_limits_that_are_kept_leave_no_trace(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A task that ends in time is no fault, and its deadline goes with it."""
    manager.create("s")
    with manager.task("s", "t", timeout_seconds=10):
        clock.advance(9)
    session = manager.get("s")
    assert (session.state.task_deadlines, session.state.error) == ((), None)
    with pytest.raises(TransitionError), manager.task("s", "late", timeout_seconds=10):
        clock.advance(10)
        manager.sweep()


def test_task_limits_of_a_dead_owner_are_dropped_with_its_tasks(
    file_house: House, remote: Any
) -> None:
    """What a killed process had begun with a limit is recovered like any other task."""
    manager = file_house.open()
    manager.create("s")
    other: RemoteManager = remote()
    other.call("begin_task", "s", "t", timeout_seconds=1000)
    assert manager.get("s").state.task_deadlines
    other.kill()
    assert manager.recover().dropped_tasks == ("t",)
    assert manager.get("s").state.task_deadlines == ()
    assert manager.verify().ok


def test_task_limits_need_a_row_that_takes_them(tmp_path: Any) -> None:
    """A lifecycle whose tasks have no limits says so; a file that knew none is upgraded."""
    without = SESSION_LIFECYCLE.without("task_timeout")
    path = tmp_path / "old.db"
    with SessionManager(f"sqlite:///{path}", lifecycle=without) as manager:
        manager.create("s")
        manager.begin_task("s", "t")
    with pytest.raises(LifecycleError, match="session-fsm upgrade"):
        SqliteStore(path)
    assert upgrade_store(f"sqlite:///{path}").renewed
    assert not upgrade_store(f"sqlite:///{path}").renewed
    with SessionManager(f"sqlite:///{path}") as manager:
        manager.begin_task("s", "u", timeout_seconds=5)
        assert manager.verify().ok
    other = SESSION_LIFECYCLE.without("expire", "go_idle", "resume", statuses="idle")
    with pytest.raises(LifecycleError, match="other moves"):
        upgrade_store(f"sqlite:///{path}", other)


# --- on a loop ------------------------------------------------------------------------------


@simulated
async def test_task_limits_cancel_the_work(clock: ManualClock) -> None:
    """On a loop, work that is past its limit is cancelled, told why, and dropped by the row."""
    async with opened(clock) as manager:
        watch = Watch(manager)
        await manager.create("s")
        cancelled: list[str] = []

        async def work() -> None:
            async with manager.task("s", "hangs", timeout_seconds=30):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append("work")
                    raise

        with pytest.raises(TaskDroppedError, match="task_timeout"):
            await work()
        assert cancelled == ["work"]
        assert seconds(30) <= clock.now() - START < seconds(31)
        await watch.until(lambda: watch.status("s") == "idle")
        assert watch.triggers("s")[2:] == ["begin_task", "task_timeout", "go_idle"]


@simulated
async def test_task_limits_cancel_the_work_if_another_sweeps(
    clock: ManualClock, file_house: House
) -> None:
    """Work is cancelled at its limit also if another manager has dropped the task before."""
    async with opened(clock, store=file_house.url, sweep_poll_seconds=1e6) as manager:
        await manager.create("s")
        other = file_house.open(clock=clock)

        async def work() -> None:
            async with manager.task("s", "hangs", timeout_seconds=30):
                await asyncio.Event().wait()

        working = asyncio.ensure_future(work())
        await asyncio.sleep(29)
        other.sweep(at=START + seconds(30))
        assert other.get("s").status == "idle"
        with pytest.raises(TaskDroppedError):
            await working
        assert clock.now() - START < seconds(32)


@given(st.lists(st.tuples(st.floats(0.001, 1000), st.floats(0, 500)), min_size=1, max_size=8))
def test_task_limits_are_dropped_each_at_its_own(plan: list[tuple[float, float]]) -> None:
    """Whenever tasks begin and whenever somebody sweeps, what is past its limit is gone after."""
    clock = ManualClock(START)
    with SessionManager(clock=clock) as manager:
        manager.create("s", config={"timeout_minutes": None})
        due = {}
        for number, (limit, pause) in zip(itertools.count(), plan, strict=False):
            state = manager.begin_task("s", f"t{number}", timeout_seconds=limit).state
            due[f"t{number}"] = dict(state.task_deadlines)[f"t{number}"]
            clock.advance(pause)
            while (next_one := manager.next_deadline()) and next_one <= clock.now():
                manager.sweep()
            left = [task for task, at in due.items() if at > clock.now()]
            assert list(manager.get("s").state.active_tasks) == left
        assert manager.verify().ok
