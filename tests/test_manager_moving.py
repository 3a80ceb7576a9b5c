"""Moving and changing sessions: transition, fire, update, expected revisions, lost races."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

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
    once,
    triggers,
)

from session_fsm import (
    GuardRejectedError,
    InvalidTransitionError,
    RevisionConflictError,
    Session,
    SessionConfig,
    SessionFsmError,
    SessionManager,
    SessionNotFoundError,
    SessionStatus,
    StateInvalidError,
    TransitionError,
)
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)

# --- transition and fire ---------------------------------------------------------------------


def test_manager_moving_by_target(manager: SessionManager) -> None:
    """`transition` fires the one hand-fired row to a status, given as word or member."""
    manager.create("a")
    idle = manager.transition("a", "idle", reason="enough")
    assert (idle.status, idle.revision) == ("idle", 3)
    assert manager.history("a")[-1].reason == "enough"
    assert manager.transition("a", SessionStatus.ACTIVE).status == "active"
    assert triggers(manager, "a")[2:] == ["go_idle", "resume"]


def test_manager_moving_by_trigger(manager: SessionManager) -> None:
    """`fire` takes a trigger and what its row takes."""
    manager.create("a")
    manager.fire("a", "begin_task", task_id="t", reason="work")
    assert manager.get("a").state.active_tasks == ("t",)
    assert manager.history("a")[-1].reason == "work"
    assert manager.fire("a", "end_task", task_id="t").status == "idle"


def test_manager_moving_into_an_open_way_out(manager: SessionManager) -> None:
    """Whatever enters terminating with nothing to wait for goes on to its end in that commit."""
    recorder = Recorder()
    moves: dict[str, Callable[[], Session]] = {
        "a": lambda: manager.transition("a", "terminating"),
        "b": lambda: manager.fire("b", "terminate", error="why"),
    }
    for session_id, move in moves.items():
        manager.create(session_id)
        manager.subscribe(recorder, session_id)
        session = move()
        assert session.status == "terminated"
        assert triggers(manager, session_id)[2:] == ["terminate", "finish"]
    assert manager.get("b").state.error == "why"
    assert [event.trigger for event in recorder.events] == ["terminate", "finish"] * 2


@pytest.mark.parametrize(
    ("move", "kind"),
    [
        (lambda manager: manager.transition("a", "active"), "no_edge"),
        (lambda manager: manager.transition("a", "terminated"), "no_edge"),
        (lambda manager: manager.transition("a", "sleeping"), "unknown_status"),
        (lambda manager: manager.fire("a", "resume"), "wrong_status"),
        (lambda manager: manager.fire("a", "explode"), "unknown_trigger"),
        (lambda manager: manager.fire("a", "end_task", task_id="x"), "guard"),
        (lambda manager: manager.fire("a", "expire"), "guard"),
        (lambda manager: manager.transition("a", "idle"), "guard"),
    ],
)
def test_manager_moving_refused(
    manager: SessionManager, move: Callable[[SessionManager], Session], kind: str
) -> None:
    """A refusal says its kind and the session, and leaves everything as it was."""
    manager.create("a")
    manager.begin_task("a", "t")
    before, recorder = manager.get("a"), Recorder()
    manager.subscribe(recorder)
    with pytest.raises(TransitionError) as caught:
        move(manager)
    assert caught.value.refusal.kind == kind
    assert caught.value.session_id == "a"
    expected = GuardRejectedError if kind == "guard" else InvalidTransitionError
    assert type(caught.value) is expected
    assert manager.get("a") == before
    assert recorder.events == []
    manager.touch("a")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bogus": 1}, TypeError),
        ({}, TypeError),
        ({"task_id": ""}, StateInvalidError),
        ({"task_id": 5}, StateInvalidError),
        ({"task_id": "t", "reason": "x" * 70_000}, StateInvalidError),
        ({"task_id": "t", "reason": "nul \x00"}, StateInvalidError),
        ({"task_id": "t", "reason": 5}, StateInvalidError),
    ],
    ids=str,
)
def test_manager_moving_bad_arguments(
    manager: SessionManager, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """Bad arguments are named and change nothing, also where a step was decided before them."""
    before = manager.create("a")
    with pytest.raises(error):
        manager.fire("a", "begin_task", **arguments)
    assert manager.get("a") == before
    manager.begin_task("a", "t")


@pytest.mark.parametrize(
    "verb",
    [
        lambda manager: manager.transition("x", "idle"),
        lambda manager: manager.fire("x", "touch"),
        lambda manager: manager.update("x", metadata={}),
        lambda manager: manager.begin_task("x", "t"),
        lambda manager: manager.end_task("x", "t"),
        lambda manager: manager.start_conversation("x"),
        lambda manager: manager.touch("x"),
        lambda manager: manager.terminate("x"),
        lambda manager: manager.fail("x", "y"),
        lambda manager: manager.update("x", expected_revision=3, metadata={}),
    ],
)
def test_manager_moving_nobody(
    manager: SessionManager, verb: Callable[[SessionManager], Session]
) -> None:
    """Each verb names the session that is not there."""
    with pytest.raises(SessionNotFoundError) as caught:
        verb(manager)
    assert caught.value.session_id == "x"


# --- update ----------------------------------------------------------------------------------


def test_manager_moving_update_in_every_status(manager: SessionManager) -> None:
    """Data may be changed until the end, and not after it."""
    seen: list[str] = []

    def start(session: Session) -> None:
        seen.append(manager.update("a", metadata={"in": session.status}).status)

    manager.create("a", start=start)
    seen.append(manager.update("a", metadata={"in": "active"}).status)
    manager.transition("a", "idle")
    seen.append(manager.update("a", metadata={"in": "idle"}).status)
    manager.begin_task("a", "t")
    manager.terminate("a", wait=False)
    seen.append(manager.update("a", metadata={"in": "terminating"}, error="late").status)
    manager.end_task("a", "t")
    assert seen == ["initializing", "active", "idle", "terminating"]
    ended = manager.get("a")
    assert ended.state.metadata == {"in": "terminating"}
    with pytest.raises(InvalidTransitionError):
        manager.update("a", metadata={})
    assert manager.get("a") == ended


def test_manager_moving_update_moves_no_clock(manager: SessionManager, clock: ManualClock) -> None:
    """An update is no activity: the idle deadline stays, and an expired session takes one still."""
    manager.create("a", config={"timeout_minutes": 10})
    clock.advance(minutes(9))
    manager.update("a", metadata={"n": 1})
    assert manager.next_deadline() == START + minutes(10)
    clock.advance(minutes(2))
    assert manager.update("a", metadata={"n": 2}).state.metadata == {"n": 2}
    assert manager.sweep().fired[0].trigger == "expire"


def test_manager_moving_update_of_the_timeout(manager: SessionManager, clock: ManualClock) -> None:
    """A new time-out counts from the last activity, for the sweep too."""
    manager.create("a", config=SessionConfig(timeout_minutes=30))
    clock.advance(minutes(5))
    manager.update("a", config=SessionConfig(timeout_minutes=10))
    assert manager.next_deadline() == START + minutes(10)
    manager.update("a", config=SessionConfig(timeout_minutes=None))
    assert manager.next_deadline() is None
    clock.advance(minutes(1000))
    assert manager.sweep().fired == ()
    assert manager.touch("a").status == "active"


def test_manager_moving_update_by_function(manager: SessionManager) -> None:
    """A function gets the present value, of each field its own; what it raises passes through."""
    manager.create("a", metadata={"n": 1}, llm_config={"t": 0})
    manager.update(
        "a",
        metadata=lambda old: {**old, "n": old["n"] + 1},
        llm_config=lambda old: {**old, "t": 1},
        config=lambda old: {"timeout_minutes": old.timeout_minutes + 1},
    )
    state = manager.get("a").state
    assert (state.metadata, state.llm_config) == ({"n": 2}, {"t": 1})
    assert state.config.timeout_minutes == 31
    before = manager.get("a")
    with pytest.raises(ZeroDivisionError):
        manager.update("a", metadata=lambda _: 1 / 0)
    with pytest.raises(StateInvalidError):
        manager.update("a", metadata=lambda _: {"x": object()})
    assert manager.get("a") == before
    assert manager.update("a", metadata={"n": 3}).revision == before.revision + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "idle"},
        {"active_tasks": ()},
        {"created_at": START},
        {"conversation_count": 5},
        {"bogus": 1},
        {"bogus": lambda value: value},
        {"metadata": {"x": 2**64}},
        {"config": {"timeout_minutes": -1}},
        {"error": 5},
        {"metadata": {}, "status": "idle"},
    ],
    ids=",".join,
)
def test_manager_moving_update_refuses(manager: SessionManager, changes: dict[str, Any]) -> None:
    """What is no data of a session, or bad data, is named and changes nothing."""
    before = manager.create("a", metadata={"n": 1})
    with pytest.raises(StateInvalidError):
        manager.update("a", **changes)
    assert manager.get("a") == before


def test_manager_moving_update_of_the_ended_asks_nobody(manager: SessionManager) -> None:
    """An ended session refuses an update, whatever is in it, and runs no function for it."""
    manager.create("a")
    manager.terminate("a")
    asked: list[object] = []

    def change(value: object) -> object:
        asked.append(value)
        return value

    for name in ("metadata", "bogus"):
        with pytest.raises(InvalidTransitionError):
            changes: dict[str, Any] = {name: change}
            manager.update("a", **changes)
    assert asked == []


def test_manager_moving_update_of_nothing(manager: SessionManager) -> None:
    """An update without changes is a step like any other."""
    manager.create("a")
    assert manager.update("a").revision == 3
    assert manager.history("a")[-1].changes == {}


# --- the revision that is expected -----------------------------------------------------------


def test_manager_moving_expected_revision(manager: SessionManager) -> None:
    """With the right revision a change is made; with another one nothing is."""
    manager.create("a")
    assert manager.update("a", expected_revision=2, metadata={"n": 1}).revision == 3
    assert manager.transition("a", "idle", expected_revision=3).revision == 4
    assert manager.fire("a", "resume", expected_revision=4).revision == 5
    before = manager.get("a")
    for wrong in (4, 6, 0, -1):
        with pytest.raises(RevisionConflictError) as caught:
            manager.update("a", expected_revision=wrong, metadata={"n": 2})
        fault = caught.value
        assert (fault.session_id, fault.expected, fault.found) == ("a", wrong, 5)
    assert manager.get("a") == before


def test_manager_moving_mismatch_comes_before_refusal(
    house: House, manager: SessionManager
) -> None:
    """Who expects another revision hears of that, not of a refusal on a state it did not mean."""
    other = house.open()
    manager.create("a")
    other.begin_task("a", "t")
    with pytest.raises(RevisionConflictError) as caught:
        manager.transition("a", "idle", expected_revision=2)
    assert caught.value.found == 3
    moves: list[Callable[[], object]] = [
        lambda: manager.transition("a", "sleeping", expected_revision=2),
        lambda: manager.fire("a", "bogus", expected_revision=2),
        lambda: manager.update("a", expected_revision=2, bogus=1),
    ]
    for move in moves:
        with pytest.raises(RevisionConflictError):
            move()
    with pytest.raises(GuardRejectedError):
        manager.transition("a", "idle", expected_revision=3)


def test_manager_moving_expected_revision_seen_elsewhere(
    house: House, manager: SessionManager
) -> None:
    """A revision that only the store knows of is accepted by a manager that was behind."""
    other = house.open()
    manager.create("a")
    revision = other.update("a", metadata={"n": 1}).revision
    assert manager.update("a", expected_revision=revision, metadata={"n": 2}).revision == 4


def test_manager_moving_expected_revision_loses_a_race(house: House) -> None:
    """Whoever expects a revision and is overtaken between decision and commit is told so."""
    store = house.store()
    first, second = house.open(store=store), house.open()
    first.create("a")
    store.before["commit"] = once(lambda _: second.update("a", metadata={"by": "second"}))
    with pytest.raises(RevisionConflictError) as caught:
        first.update("a", expected_revision=2, metadata={"by": "first"})
    assert (caught.value.expected, caught.value.found) == (2, 3)
    assert first.get("a").state.metadata == {"by": "second"}
    assert first.update("a", expected_revision=3, metadata={"by": "first"}).revision == 4


# --- lost races ------------------------------------------------------------------------------


def test_manager_moving_lost_race_is_decided_afresh(house: House) -> None:
    """Overtaken between decision and commit, a function is run again on what is there now."""
    store = house.store()
    first, second = house.open(store=store), house.open()
    first.create("a", metadata={"n": 0})
    seen: list[int] = []

    def add(old: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(old["n"])
        return {"n": old["n"] + 1}

    recorder = Recorder()
    first.subscribe(recorder)
    store.before["commit"] = once(lambda _: second.update("a", metadata={"n": 10}))
    session = first.update("a", metadata=add)
    assert seen == [0, 10]
    assert (session.state.metadata, session.revision) == ({"n": 11}, 4)
    assert recorder.told == [("a", 4)]
    assert first.verify().ok


def test_manager_moving_lost_race_may_end_in_a_refusal(house: House) -> None:
    """What was permitted when it was decided may be refused after all, on the newer state."""
    store = house.store()
    first, second = house.open(store=store), house.open()
    first.create("a")
    store.before["commit"] = once(lambda _: second.begin_task("a", "t"))
    with pytest.raises(GuardRejectedError) as caught:
        first.transition("a", "idle")
    assert caught.value.refusal.failed_guards[0].reason == "1 task is active: t"
    assert first.get("a").revision == 3


def test_manager_moving_lost_again_and_again(house: House) -> None:
    """However often a race is lost, the change is made in the end, once."""
    store = house.store()
    first, second = house.open(store=store), house.open()
    first.create("a", metadata={"n": 0})
    mine = first._core.owner_id
    left = [5]

    def overtake(commit: Any) -> None:
        if commit.owner_id == mine and left[0]:
            left[0] -= 1
            second.update("a", metadata=lambda old: {"n": old["n"] + 1})

    store.before["commit"] = overtake
    assert first.update("a", metadata=lambda old: {"n": old["n"] + 1}).state.metadata == {"n": 6}


def test_manager_moving_at_one_barrier(house: House) -> None:
    """Two managers that have both decided before either commits: both changes are in the end."""
    first, second = house.open(), house.open()
    first.create("a", metadata={"n": 0})
    barrier = threading.Barrier(2)

    def add(old: Mapping[str, Any]) -> dict[str, Any]:
        if old["n"] == 0:
            barrier.wait(PATIENCE_SECONDS)
        return {"n": old["n"] + 1}

    end(begin(first.update, "a", metadata=add), begin(second.update, "a", metadata=add))
    session = second.get("a")
    assert (session.state.metadata, session.revision) == ({"n": 2}, 4)
    assert first.verify().ok


# --- refusals on what was read after the call began ------------------------------------------


def behind(house: House) -> tuple[SessionManager, SessionManager]:
    """Return a manager that has a session in mind, and another one that may change it."""
    first, second = house.open(), house.open()
    first.create("a")
    return first, second


def test_manager_moving_no_refusal_on_old_news(house: House) -> None:
    """What another manager has made possible is not refused, whatever this one remembers."""
    first, second = behind(house)
    second.transition("a", "idle")
    assert first.fire("a", "resume").status == "active"
    first.begin_task("a", "t")
    second.end_task("a", "t")
    second.begin_task("a", "u")
    second.end_task("a", "u")
    assert first.transition("a", "active").status == "active"
    second.begin_task("a", "v")
    assert first.end_task("a", "v").status == "idle"


def test_manager_moving_no_acceptance_on_old_news(house: House) -> None:
    """What another manager has made impossible is refused, with the state as it is now."""
    first, second = behind(house)
    second.begin_task("a", "t")
    with pytest.raises(GuardRejectedError):
        first.transition("a", "idle")
    with pytest.raises(GuardRejectedError):
        first.begin_task("a", "t")
    second.end_task("a", "t")
    second.terminate("a")
    with pytest.raises(InvalidTransitionError) as caught:
        first.touch("a")
    assert caught.value.refusal.status == "terminated"


def test_manager_moving_no_answer_of_nothing_to_do_on_old_news(house: House) -> None:
    """That there is nothing to do is said only of the state that is stored."""
    first, second = house.open(touch_resolution_seconds=60.0), house.open()
    first.create("a")
    house.clock.advance(30)
    before = second.update("a", metadata={"n": 1})
    assert first.touch("a") == before
    second.terminate("a")
    with pytest.raises(InvalidTransitionError):
        first.touch("a")
    assert first.terminate("a").status == "terminated"


def test_manager_moving_no_error_of_a_function_on_old_news(house: House) -> None:
    """A function that fails on what this manager remembers is run on what is stored."""
    first, second = behind(house)
    second.update("a", metadata={"n": 1})
    session = first.update("a", metadata=lambda old: {"n": old["n"] + 1})
    assert session.state.metadata == {"n": 2}


@pytest.mark.parametrize("verb", ["fire", "update"])
def test_manager_moving_no_fault_of_arguments_on_old_news(house: House, verb: str) -> None:
    """Arguments that don't fit what this manager remembers may fit what is stored."""
    first, second = behind(house)
    if verb == "update":
        second.update("a", metadata={"n": 1})
        first.update("a", metadata=lambda old: {"n": old["n"]})
        return
    second.begin_task("a", "t")
    second.terminate("a", wait=False)
    # In `terminating`, `finish` takes an error; in `active` there is no such row.
    with pytest.raises(GuardRejectedError):
        first.fire("a", "finish", error="x")


def test_manager_moving_session_gone_since(house: House) -> None:
    """A session that another manager has purged is not there, whatever this one remembers."""
    first, second = behind(house)
    second.terminate("a")
    second.purge(ended_before=START + minutes(1))
    verbs: list[Callable[[], object]] = [
        lambda: first.update("a", metadata={}),
        lambda: first.touch("a"),
        lambda: first.terminate("a"),
        lambda: first.fire("a", "bogus"),
    ]
    for verb in verbs:
        with pytest.raises(SessionNotFoundError):
            verb()


def test_manager_moving_session_another_one_since(house: House) -> None:
    """A session that was purged and made anew elsewhere is changed as the new one that it is."""
    first, second = behind(house)
    second.terminate("a")
    second.purge(ended_before=START + minutes(1))
    second.create("a", metadata={"life": 2})
    session = first.update("a", metadata=lambda old: {**old, "n": 1})
    assert session.state.metadata == {"life": 2, "n": 1}
    assert first.verify().ok


def test_manager_moving_time_never_runs_backwards(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A clock that is set back does not set back a session, and a touch is noted all the same."""
    manager.create("a")
    clock.set(START - minutes(60))
    session = manager.touch("a")
    assert (session.state.updated_at, session.revision) == (START, 3)
    assert manager.begin_task("a", "t").state.updated_at == START
    assert manager.end_task("a", "t").state.status_since == START
    assert manager.verify().ok


def test_manager_moving_waits_for_its_turn(manager: SessionManager) -> None:
    """Two verbs on one session take turns: the second decides on what the first has made."""
    manager.create("a", metadata={"n": 0})
    deciding, go_on = threading.Event(), threading.Event()

    def slow(old: Mapping[str, Any]) -> dict[str, Any]:
        deciding.set()
        await_event(go_on)
        return {"n": old["n"] + 1}

    seen: list[int] = []

    def quick(old: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(old["n"])
        return {"n": old["n"] + 1}

    first = begin(manager.update, "a", metadata=slow)
    await_event(deciding)
    second = begin(manager.update, "a", metadata=quick)
    go_on.set()
    end(first, second)
    assert seen == [1]
    assert manager.get("a").state.metadata == {"n": 2}


def test_manager_moving_decision_that_calls_back(manager: SessionManager) -> None:
    """A function that changes its own session is refused at once instead of waiting for ever."""
    manager.create("a", metadata={"n": 0})

    def change(_: object) -> dict[str, Any]:
        manager.touch("a")
        return {}

    [raised] = [
        future.exception(PATIENCE_SECONDS)
        for future in [begin(manager.update, "a", metadata=change)]
    ]
    assert isinstance(raised, SessionFsmError | RuntimeError)
    assert manager.get("a").revision == 2
    assert manager.touch("a").revision == 3
