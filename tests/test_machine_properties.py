"""The machine against a plain model of the same life, and the laws that hold for every step."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import model
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from session_fsm.errors import GuardRejectedError, InvalidTransitionError, TransitionError
from session_fsm.explain import explain, is_valid, next_timed, permitted, validate
from session_fsm.lifecycle import LIVE, Lifecycle, Row
from session_fsm.machine import SessionMachine, step, transition
from session_fsm.state import SessionConfig, SessionState, fields_of
from session_fsm.table import SESSION_LIFECYCLE
from session_fsm.testing import instants, json_objects, session_ids, states

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

TRIGGERS = (*model.TRIGGERS, "explode")

ORDER = Lifecycle(
    statuses=("cart", "paid", "*", "done"),
    initial="cart",
    rows=[
        Row("pay", "cart", "paid", activity=True),
        Row("lose", "paid", "*", ending=True, effect=lambda _: {"active_tasks": ()}),
        Row("close", ("cart", "*"), "done", ending=True),
        Row("pack", "paid", None, required="task_id", activity=True),
        Row("unpack", "paid", None, required="task_id"),
        Row("note", LIVE, None, optional="error"),
    ],
    roles={"begin_task": "pack", "end_task": "unpack"},
    name="order",
)


# --- between the library and the model -------------------------------------------------------


def as_model(state: SessionState) -> model.Session:
    """A state as the plain model has it."""
    return {
        "status": str(state.status),
        "updated_at": state.updated_at,
        "status_since": state.status_since,
        "last_activity_at": state.last_activity_at,
        "timeout_minutes": state.config.timeout_minutes,
        "max_conversations": state.config.max_conversations,
        "active_tasks": state.active_tasks,
        "conversation_count": state.conversation_count,
        "error": state.error,
        "limits": dict(state.task_deadlines),
    }


def assert_same(state: SessionState, expected: model.Session) -> None:
    """A state is what the model says; of an error that was made, its parts are compared."""
    found = as_model(state)
    if isinstance(expected["error"], list):
        told = found.pop("error")
        assert told
        for part in expected["error"]:
            assert part in told
            told = told[told.index(part) + len(part) :]
        expected = {name: value for name, value in expected.items() if name != "error"}
    assert found == expected


def arguments_for(
    trigger: str, task_id: str, error: str | None, limit: float | None = None
) -> dict[str, Any]:
    """The arguments of a trigger, of those that may come with it."""
    if trigger == "begin_task" and limit is not None:
        return {"task_id": task_id, "timeout_seconds": limit}
    if trigger in ("begin_task", "end_task"):
        return {"task_id": task_id}
    if trigger in model.TAKES_ERROR and error is not None:
        return {"error": error}
    return {}


def outcome(
    move: Callable[[], SessionState],
) -> tuple[SessionState | None, type[TransitionError] | None]:
    """What a move leads to: a state, or the kind of its refusal."""
    try:
        return move(), None
    except TransitionError as error:
        return None, type(error)


def check_step(state: SessionState, trigger: str, at: datetime, arguments: dict[str, Any]) -> str:
    """Fire once, in each way there is, and compare all of them with the model.

    Returns:
        What became of it: `moved`, or the kind of the refusal.
    """
    before = fields_of(state)
    expected, kind, said_no = model.fire(as_model(state), trigger, at, **arguments)
    machine = SessionMachine(state, revision=5)
    reason = explain(state, trigger, at=at, **arguments)
    typed = SessionMachine(state, revision=5)
    ways: list[Callable[[], SessionState]] = [
        partial(machine.fire, trigger, at=at, **arguments),
        partial(step, state, trigger, at=at, **arguments),
        partial(getattr(typed, trigger, partial(typed.fire, trigger)), at=at, **arguments),
    ]
    if expected is not None:
        assert reason is None
        assert trigger in permitted(state, at=at, **arguments)
        results = [way() for way in ways]
        assert all(result == results[0] for result in results)
        assert_same(results[0], expected)
        assert machine.state == results[0]
        assert machine.revision == 6
        kept = {"session_id", "config", "llm_config", "metadata", "created_at"}
        assert all(getattr(results[0], name) == before[name] for name in kept)
        validate(results[0])
    else:
        assert reason is not None
        assert reason.kind == kind
        assert [failed.name for failed in reason.failed_guards] == said_no
        assert trigger not in permitted(state, at=at, **arguments)
        error = GuardRejectedError if kind == "guard" else InvalidTransitionError
        for way in ways:
            with pytest.raises(TransitionError) as caught:
                way()
            assert type(caught.value) is error
            assert caught.value.refusal == reason
            assert caught.value.session_id == state.session_id
        assert machine.state is state
        assert machine.revision == 5
        task_id = arguments.get("task_id")
        assert list(reason.permitted) == model.permitted(as_model(state), at, task_id)
        assert reason.next_timed == model.next_timed(as_model(state))
        assert reason.status == state.status
    assert fields_of(state) == before
    return kind


# --- every combination -----------------------------------------------------------------------


def situations() -> Iterator[SessionState]:
    """A state for each status, with and without tasks, time-out, and room for conversations."""
    for status in model.STATUSES:
        for tasks in [(), ("t",)] if status in model.TASK_STATUSES else [()]:
            for timeout in (None, 1):
                for count, limits in ((0, {}), (2, {"t": AT + timedelta(seconds=7)})):
                    yield SessionState(
                        session_id="s",
                        status=status,
                        config=SessionConfig(timeout_minutes=timeout, max_conversations=2),
                        created_at=AT,
                        updated_at=AT + timedelta(seconds=5),
                        status_since=AT,
                        # The time-out ends on another instant than the graces.
                        last_activity_at=AT + timedelta(seconds=3),
                        active_tasks=tasks,
                        conversation_count=count,
                        task_deadlines=limits if tasks else {},
                    )


def moments() -> Iterator[datetime]:
    """Before the last change, and just before, at and just after each deadline."""
    yield AT
    for seconds in (5, 7, 10, 60, 63):
        for nudge in (-MICROSECOND, timedelta(0), MICROSECOND):
            yield AT + timedelta(seconds=seconds) + nudge


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_machine_agrees_with_the_model_everywhere(trigger: str) -> None:
    """Every status, trigger and outcome of each guard is as the plain model has it."""
    outcomes = set()
    for state in situations():
        for at in moments():
            for task_id, limit in (("t", None), ("u", 2.5)):
                arguments = arguments_for(trigger, task_id, "it broke", limit)
                outcomes.add(check_step(state, trigger, at, arguments))
    if trigger == "explode":
        assert outcomes == {"unknown_trigger"}
    elif trigger in ("abort", "terminate", "update"):
        assert outcomes == {"moved", "wrong_status"}
    else:
        assert outcomes == {"moved", "wrong_status", "guard"}


def test_machine_permits_what_the_model_permits_everywhere() -> None:
    """What is permitted, and what fires next, is as the plain model has it."""
    for state in situations():
        assert next_timed(state) == model.next_timed(as_model(state))
        for at in moments():
            assert list(permitted(state, at=at)) == model.permitted(as_model(state), at)


# --- any state -------------------------------------------------------------------------------


@st.composite
def occasions(draw: Any) -> tuple[SessionState, datetime]:
    """A state and an instant, often one at which something is just due."""
    state = draw(states())
    marks = [state.created_at, state.updated_at, state.status_since, state.last_activity_at]
    waits = [model.START_GRACE, model.STOP_GRACE]
    if state.config.timeout_minutes is not None:
        waits.append(timedelta(minutes=state.config.timeout_minutes))
    ends = [end for mark in marks for wait in waits if (end := model.later(mark, wait))]
    found = model.next_timed(as_model(state))
    due = [] if found is None else [found[1]] * 10  # the instant that matters, not one of many
    mark = draw(st.sampled_from(marks + ends + due))
    nudge = draw(st.sampled_from((-MICROSECOND, timedelta(0), MICROSECOND)))
    inside = FIRST + MICROSECOND <= mark <= LAST - MICROSECOND
    near = st.just(mark + nudge if inside else mark)
    return state, draw(near | near | instants())


@given(occasions(), session_ids(), st.none() | st.just("it broke"))
def test_machine_agrees_with_the_model(
    occasion: tuple[SessionState, datetime], task_id: str, error: str | None
) -> None:
    """Any valid state is moved, or refused, by each trigger at any instant as the model has it."""
    state, at = occasion
    for task in (task_id, *state.active_tasks[-1:]):
        for trigger in TRIGGERS:
            kind = check_step(state, trigger, at, arguments_for(trigger, task, error))
            event(f"{state.status}, {trigger}: {kind}")


@given(occasions(), session_ids() | st.none())
def test_machine_permits_what_it_accepts(
    occasion: tuple[SessionState, datetime], task_id: str | None
) -> None:
    """What is permitted is what explains to nothing, which is what is accepted."""
    state, at = occasion
    arguments: dict[str, Any] = {} if task_id is None else {"task_id": task_id}
    accepted = []
    for trigger in SESSION_LIFECYCLE.triggers:
        row = SESSION_LIFECYCLE.find(trigger, state.status)
        taken = arguments if row is not None and row.required else {}
        if explain(state, trigger, at=at, **taken) is None:
            accepted.append(trigger)
    assert list(permitted(state, at=at, **arguments)) == accepted
    assert accepted == model.permitted(as_model(state), at, task_id)


@given(occasions(), json_objects())
def test_machine_updates_data_alone(
    occasion: tuple[SessionState, datetime], metadata: dict[str, Any]
) -> None:
    """An update changes its fields and `updated_at`, whether the session has expired or not."""
    state, at = occasion
    if state.status == "terminated":
        assert explain(state, "update", at=at) is not None
        return
    after = step(state, "update", at=at, metadata=metadata)
    updated_at = max(at, state.updated_at)
    assert fields_of(after) == fields_of(state) | {
        "metadata": metadata,
        "updated_at": updated_at,
    }
    assert step(state, "update", at=at).update(at=at, metadata=metadata) == after
    assert is_valid(after)


@given(occasions(), st.sampled_from(model.STATUSES))
def test_machine_transition_is_the_step_by_hand(
    occasion: tuple[SessionState, datetime], target: str
) -> None:
    """A transition to a status is the step of the one row that leads there by hand."""
    state, at = occasion
    row = SESSION_LIFECYCLE.by_hand(state.status, target)
    by_hand = row.trigger if row else "explode"
    moves: list[Callable[[], SessionState]] = [
        partial(transition, state, target, at=at),
        partial(step, state, by_hand, at=at),
    ]
    outcomes = [outcome(move) for move in moves]
    if row is None:
        assert outcomes == [(None, InvalidTransitionError)] * 2
    else:
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][1] in (None, GuardRejectedError)


@given(occasions())
def test_machine_next_timed_is_when_it_is_due(occasion: tuple[SessionState, datetime]) -> None:
    """What fires next is refused until its instant, and accepted from then on."""
    state, _ = occasion
    found = next_timed(state)
    if found is None:
        for row in SESSION_LIFECYCLE.timed(state.status):
            assert explain(state, row.trigger, at=LAST) is not None
        return
    trigger, due = found
    assert explain(state, trigger, at=max(due, state.updated_at)) is None
    if due > state.updated_at:
        assert explain(state, trigger, at=due - MICROSECOND) is not None


# --- whole lives -----------------------------------------------------------------------------

STEPS = st.tuples(
    # A number stands for one of the triggers that are permitted then: a walk is to get somewhere.
    st.integers(0, 11) | st.sampled_from(model.TRIGGERS),
    st.sampled_from((("t", None), ("u", None), ("u", 20), ("t", 0.5))),
    st.none() | st.just("it broke"),
    st.integers(-60, 90) | st.sampled_from((0, 10, 60)),
)


@settings(max_examples=300)
@given(st.lists(STEPS, min_size=10, max_size=40), st.sampled_from(list(situations())))
def test_machine_walks_with_the_model(
    steps: list[tuple[int | str, tuple[str, float | None], str | None, int]], state: SessionState
) -> None:
    """Over a whole life of steps, good and bad, machine and model stay together."""
    machine = SessionMachine(state)
    plain = as_model(machine.state)
    at = AT
    for choice, (task_id, limit), cause, seconds in steps:
        at += timedelta(seconds=seconds)
        if isinstance(choice, str):
            trigger = choice
        else:
            open_now = model.permitted(plain, at, task_id) or ["update"]
            trigger = open_now[choice % len(open_now)]
        arguments = arguments_for(trigger, task_id, cause, limit)
        before, revision = machine.state, machine.revision
        after, kind, _ = model.fire(plain, trigger, at, **arguments)
        moved, error = outcome(partial(machine.fire, trigger, at=at, **arguments))
        if after is None:
            assert error is (GuardRejectedError if kind == "guard" else InvalidTransitionError)
            assert machine.state is before
            assert machine.revision == revision
        else:
            assert moved is machine.state
            assert_same(machine.state, after)
            assert machine.revision == revision + 1
            plain = after | {"error": machine.state.error}
            event(f"{before.status} -> {machine.state.status}")
            assert machine.state.updated_at >= before.updated_at
            assert is_valid(machine.state)
            edge = (before.status, machine.state.status)
            assert edge[0] == edge[1] or edge in SESSION_LIFECYCLE.edges


@given(states(ORDER), instants())
def test_machine_keeps_its_laws_in_any_lifecycle(state: SessionState, at: datetime) -> None:
    """In a lifecycle of others a step is legal, valid and never earlier; a refusal is explained."""
    assert is_valid(state, ORDER)
    for trigger in (*ORDER.triggers, "explode"):
        machine = SessionMachine(state, ORDER)
        arguments: dict[str, Any] = {"task_id": "t"} if trigger in ("pack", "unpack") else {}
        row = ORDER.find(trigger, state.status)
        reason = explain(state, trigger, at=at, lifecycle=ORDER, **arguments)
        after, error = outcome(partial(machine.fire, trigger, at=at, **arguments))
        if row is None:
            assert reason is not None
            assert error is InvalidTransitionError
            assert machine.state is state
        else:
            assert reason is None
            assert after is not None
            assert after.status == (row.target or state.status)
            assert after.updated_at == max(at, state.updated_at)
            assert is_valid(after, ORDER)


@given(states(ORDER) | states(SESSION_LIFECYCLE))
def test_machine_strategy_makes_valid_states(state: SessionState) -> None:
    """The strategy for states keeps to the statuses of its lifecycle, and tasks to theirs."""
    lifecycle = ORDER if state.status in ORDER else SESSION_LIFECYCLE
    validate(state, lifecycle)
    assert not state.active_tasks or lifecycle.holds_tasks(state.status)


@given(
    st.sampled_from(model.STATUSES).flatmap(
        lambda word: st.tuples(st.just(word), states(status=word))
    )
)
def test_machine_strategy_makes_states_of_one_status(made: tuple[str, SessionState]) -> None:
    """The strategy for states gives one status alone where it is asked to."""
    status, state = made
    assert state.status == status
    validate(state)
