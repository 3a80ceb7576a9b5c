"""Walks: each path of our lifecycles and of the worked ones can be gone, by machine and manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from managing import House
from working import worked

from session_fsm import (
    SESSION_LIFECYCLE,
    GuardRejectedError,
    LifecycleError,
    SessionConfig,
    SessionMachine,
    SessionManager,
    SessionState,
    is_valid,
)
from session_fsm.clock import ManualClock
from session_fsm.testing import LifecyclePath, Walk, paths, simple_paths, walk, walk_managed

pytest_plugins = ("manager_fixtures",)

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
AGENT, ORDER = worked("agent"), worked("order")


# --- what the walks of each lifecycle need ---------------------------------------------------


def task_at_end(walking: Walk) -> None:
    """Have a task in flight, if the path ends one on the way out."""
    to_end = {(step.trigger, step.source) for step in walking.ahead}
    if ("end_task", "terminating") in to_end and walking.state.status == "active":
        walking.fire("begin_task", task_id="t")
    if ("task_timeout", "terminating") in to_end and walking.state.status == "active":
        walking.fire("begin_task", task_id="late", timeout_seconds=1)


def task_that_hangs(walking: Walk) -> None:
    """Have a task with a limit, which nobody ends."""
    if not walking.state.task_deadlines:
        walking.fire("begin_task", task_id="late", timeout_seconds=1)


def task_to_wait_for(walking: Walk) -> None:
    """Have a task in flight while the agent asks."""
    if not walking.state.active_tasks and walking.ahead[1].trigger == "end_task":
        walking.fire("begin_task", task_id="t")


def filled(walking: Walk) -> None:
    """Have something to buy in the cart."""
    if "items" not in walking.state.metadata:
        walking.fire("put_in", sku="tea", cents=450)


def what_it_costs(state: SessionState) -> Mapping[str, Any]:
    """The right amount of money."""
    return {"cents": sum(item["cents"] for item in state.metadata["items"])}


TASK = {"task_id": "t"}
OF_SESSIONS: dict[str, Any] = {
    "arguments": {"begin_task": TASK, "end_task": TASK},
    "before": {"terminate": task_at_end, "task_timeout": task_that_hangs},
}
OF_AGENTS: dict[str, Any] = {
    "arguments": {
        "begin_task": TASK,
        "end_task": TASK,
        "ask": {"text": "May I?", "of": ["ana"]},
        "answer": {"text": "yes", "by": "ana"},
        "analyse_code": {"path": "src"},
    },
    "before": {
        "terminate": task_at_end,
        "task_timeout": task_that_hangs,
        "ask": task_to_wait_for,
    },
}
OF_ORDERS: dict[str, Any] = {
    "arguments": {
        "put_in": {"sku": "tea", "cents": 450},
        "pay": what_it_costs,
        "ship": {"parcel": "JD0146"},
        "annotate": lambda state: {"metadata": {**state.metadata, "seen": state.status}},
    },
    "before": {"check_out": filled},
}
NEEDS = {"session": OF_SESSIONS, "agent": OF_AGENTS, "order": OF_ORDERS}
LIFECYCLES = (SESSION_LIFECYCLE, AGENT, ORDER)
ALL_ROWS = [path for lifecycle in LIFECYCLES for path in paths(lifecycle)]
ALL_ENDS = [path for lifecycle in LIFECYCLES for path in simple_paths(lifecycle)]


def fresh(path: LifecyclePath) -> SessionState:
    """A new session that may do all that its lifecycle knows."""
    config = SessionConfig(features=("code_analysis",))
    return SessionState.new("walker", config=config, at=AT, status=path.lifecycle.initial)


# --- by a machine ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*ALL_ROWS, *ALL_ENDS])
def test_testing_walks_of_every_path(path: LifecyclePath) -> None:
    """Each path of each lifecycle leads where it says, and every state on it is valid."""
    seen: list[str] = []

    def look(walking: Walk) -> None:
        seen.append(walking.state.status)
        assert is_valid(walking.state, path.lifecycle)

    needs = NEEDS[path.lifecycle.name]

    def before(hook: Callable[[Walk], None] | None) -> Callable[[Walk], None]:
        def both(walking: Walk) -> None:
            look(walking)
            if hook is not None:
                hook(walking)

        return both

    hooks = {each: before(needs["before"].get(each)) for each in path.lifecycle.triggers}
    machine = walk(path, state=fresh(path), arguments=needs["arguments"], before=hooks)
    assert (*seen, machine.state.status) == path.statuses
    assert machine.revision >= len(path)
    assert is_valid(machine.state, path.lifecycle)


def test_testing_walks_wait_for_deadlines() -> None:
    """Time stands still, but for rows that fire by themselves: they fire at their deadline."""
    way = next(path for path in simple_paths() if path.id.endswith("idle-expire-stop_timeout"))
    begun = AT + timedelta(seconds=59)
    state = walk(way, state=fresh(way), at=begun).state
    assert state.status_since == begun + timedelta(minutes=30, seconds=10)
    assert state.created_at == AT
    [bare] = simple_paths(to="active")
    at = walk(bare, at=AT).state
    assert (at.created_at, at.updated_at, at.session_id) == (AT, AT, "walker")


def test_testing_walks_show_hooks_what_is_ahead() -> None:
    """A hook sees the state, the steps to come and how many were made, and may move the clock."""
    seen = []

    def late(walking: Walk) -> None:
        seen.append((walking.made, walking.state.status, [step.trigger for step in walking.ahead]))
        walking.clock.advance(7)

    way = next(path for path in simple_paths() if path.id == "activate-terminate-finish")
    state = walk(way, at=AT, before={"terminate": late}).state
    assert seen == [(1, "active", ["terminate", "finish"])]
    assert state.status_since == AT + timedelta(seconds=7)


def test_testing_walks_are_refused_with_the_step_named() -> None:
    """Where a guard says no, its refusal is raised, and a note tells the step and the path."""
    way = next(path for path in paths() if "end_task" in path.triggers and len(path) < 5)
    with pytest.raises(GuardRejectedError) as caught:
        walk(way, arguments={"end_task": TASK})
    assert caught.value.refusal.failed_guards[0].name == "is active"
    path = "activate -> terminate -> end_task -> task_timeout"
    [note] = caught.value.__notes__
    assert note == f"at step 3, 'end_task' from 'terminating', of the path {path}"


def test_testing_walks_tell_what_can_not_be_gone() -> None:
    """A deadline that never comes, and a hook that leads elsewhere, are told."""
    timed = next(path for path in simple_paths() if path.triggers[-2:] == ("expire", "finish"))
    never = SessionState.new("a", config=SessionConfig(timeout_minutes=None), at=AT)
    with pytest.raises(AssertionError, match=r"no clock runs for 'expire' \(last_activity_at"):
        walk(timed, state=never)
    [way] = simple_paths(to="idle")
    with pytest.raises(AssertionError, match="the session is 'terminating', not 'active'"):
        walk(way, before={"go_idle": lambda walking: walking.fire("terminate")})
    later = SessionState.new("a", at=AT, status="active")
    with pytest.raises(AssertionError, match="the session is 'active', not 'initializing'"):
        walk(way, state=later)


def test_testing_walks_never_turn_the_clock_back() -> None:
    """A row whose deadline has passed already is fired now."""
    [way] = (path for path in simple_paths(to="terminating") if path.id == "activate-expire")
    late = {"expire": lambda walking: walking.clock.advance(timedelta(days=2))}
    assert walk(way, at=AT, before=late).state.status_since == AT + timedelta(days=2)


def test_testing_walks_look_where_each_step_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not lead where the table says is found out."""
    [way] = simple_paths(to="active")
    monkeypatch.setattr(SessionMachine, "fire", lambda machine, *_, **__: machine.state)
    with pytest.raises(AssertionError, match="the session is 'initializing', not 'active'"):
        walk(way)


@pytest.mark.parametrize("given", ["arguments", "before"])
def test_testing_walks_need_triggers_that_there_are(given: str) -> None:
    """A misspelt trigger is named, for it would never be asked for."""
    [way] = simple_paths(to="idle")
    bad: dict[str, Any] = {given: {"go_idel": {}}}
    with pytest.raises(LifecycleError, match=f"{given}: there is no trigger 'go_idel'"):
        walk(way, **bad)


# --- by a manager ----------------------------------------------------------------------------


def finish_the_task(walking: Walk) -> None:
    """End what held the session back."""
    for task in walking.state.active_tasks:
        walking.fire("end_task", task_id=task)


def two_tasks(walking: Walk) -> None:
    """Have two tasks in flight on the way out: the end of the first is not that of all."""
    if walking.state.status == "active" and walking.ahead[1:]:
        for task in ("t", "u"):
            walking.fire("begin_task", task_id=task)


MANAGED: dict[str, Any] = {
    **NEEDS,
    "session": {
        "arguments": OF_SESSIONS["arguments"],
        "before": {"terminate": two_tasks, "finish": finish_the_task},
    },
    "agent": {
        "arguments": OF_AGENTS["arguments"],
        "before": {"terminate": two_tasks, "finish": finish_the_task},
    },
}


def waits_for_nothing(path: LifecyclePath) -> bool:
    """Whether a path waits in `terminating`, where no task can be, for a manager to give up."""
    if path.triggers[-1] != "stop_timeout":
        return False
    entry = path.steps[-2]
    return entry.source != "active" or entry.timed


@pytest.mark.parametrize("path", ALL_ENDS)
def test_testing_walks_by_a_manager(house: House, path: LifecyclePath) -> None:
    """A manager goes every way to an end, but where it would wait for nothing: that is told."""
    manager = house.open(lifecycle=path.lifecycle)
    needs = MANAGED[path.lifecycle.name]
    config = SessionConfig(features=("code_analysis",))
    if waits_for_nothing(path):
        with pytest.raises(AssertionError, match="itself fired 'finish' from 'terminating'"):
            walk_managed(path, manager, house.clock, config=config, **needs)
        return
    session = walk_managed(path, manager, house.clock, config=config, **needs)
    assert session.status == path.statuses[-1]
    fired = [event.trigger for event in manager.history("walker")]
    assert set(path.triggers) <= set(fired)
    assert manager.verify().ok


def test_testing_walks_by_a_manager_before_it_activates(house: House) -> None:
    """Steps of a session that is not activated yet are made while it starts."""
    manager = house.open()
    first = paths()[0]
    assert first.triggers[:2] == ("update", "activate")
    upto = attrs.evolve(first, steps=first.steps[:2])
    session = walk_managed(upto, manager, house.clock, metadata={"n": 1})
    assert (session.status, session.revision) == ("active", 3)
    assert session.state.metadata == {"n": 1}
    nothing = attrs.evolve(first, steps=())
    assert walk_managed(nothing, manager, house.clock, session_id="b").status == "active"


def test_testing_walks_by_a_manager_raise_what_went_wrong(house: House) -> None:
    """What goes wrong while a session starts is raised as it is, not as a start that failed."""
    manager = house.open()
    first = paths()[0]
    with pytest.raises(TypeError, match="takes no argument 'no'") as caught:
        walk_managed(first, manager, house.clock, arguments={"update": {"no": 1}})
    assert caught.value.__notes__[0].startswith("at step 1, 'update' from 'initializing'")


def test_testing_walks_by_a_manager_of_the_same_lifecycle(house: House) -> None:
    """A manager of another lifecycle is told apart before anything is created."""
    manager = house.open()
    with pytest.raises(LifecycleError, match="the manager has sessions of 'session'"):
        walk_managed(paths(ORDER)[0], manager, house.clock)
    assert manager.find("walker") is None


def test_testing_walks_by_a_manager_leave_timed_rows_to_a_sweep(
    house: House, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that fires by itself is fired by a sweep, at its deadline, and by nothing else."""
    [lapse] = (path for path in simple_paths(ORDER) if path.id == "check_out-lapse")
    manager, swept = house.open(lifecycle=ORDER), []

    def sweep(**given: Any) -> object:
        swept.append(clock.now())
        return SessionManager.sweep(manager, **given)

    monkeypatch.setattr(manager, "sweep", sweep)
    begun = clock.now()
    walk_managed(lapse, manager, clock, **OF_ORDERS)
    assert swept == [begun + timedelta(days=3)]
    assert manager.history("walker")[-1].at == swept[0]


def test_testing_walks_by_a_manager_tell_hooks_that_come_too_late(
    house: House, clock: ManualClock
) -> None:
    """A hook can't fire anything where the manager has gone on meanwhile."""
    [way] = (path for path in simple_paths(to="terminating") if path.id == "activate-expire")
    manager = house.open()

    def late(walking: Walk) -> None:
        walking.clock.advance(timedelta(hours=1))
        manager.sweep()
        walking.fire("update")

    with pytest.raises(AssertionError, match="itself fired 'expire' from 'active': nothing else"):
        walk_managed(way, manager, clock, before={"expire": late})
