"""The machine: each kind of step and of refusal, whatever lifecycle it runs."""

import copy
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from transitions import Machine

from session_fsm.clock import SYSTEM_CLOCK
from session_fsm.errors import (
    GuardError,
    GuardRejectedError,
    InvalidTransitionError,
    LifecycleError,
    StateInvalidError,
    TransitionError,
)
from session_fsm.explain import explain, permitted
from session_fsm.guards import Attempt, Guard, after_grace
from session_fsm.lifecycle import LIVE, Lifecycle, Row
from session_fsm.machine import SessionMachine, build_machine, step, transition
from session_fsm.state import SessionState, SessionStatus, fields_of
from session_fsm.table import NO_ACTIVE_TASK, SESSION_LIFECYCLE

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def state_in(status: str, **fields: Any) -> SessionState:
    """A state in a status, made and last used at AT."""
    required: dict[str, Any] = {"session_id": "s", "created_at": AT, "updated_at": AT}
    return SessionState(status=status, **(required | fields))


def refused(machine: SessionMachine, fire: Callable[[], object]) -> Exception:
    """The error of a step that must fail; the machine has to be as it was before."""
    before = (machine.state, machine.revision, machine.lifecycle)
    fields = fields_of(machine.state)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        fire()
    assert machine.state is before[0]
    assert (machine.state, machine.revision, machine.lifecycle) == before
    assert fields_of(machine.state) == fields
    return caught.value


class OrderStatus(StrEnum):
    CART = "cart"
    PAID = "paid"
    SENT = "sent"
    DONE = "done"
    LOST = "*"


def _enough(shown: Attempt) -> bool:
    return bool(shown.arguments["amount"] >= 10)


def order(**go: Any) -> Lifecycle:
    """The life of an order, with nothing of a session's; `go` says more about its row `pay`."""
    paying: dict[str, Any] = {
        "guards": [Guard("enough", _enough, "too little money", needs=("amount",))],
        "required": "amount",
        "effect": lambda shown: {"metadata": {"amount": shown.arguments["amount"]}},
    }
    return Lifecycle(
        statuses=OrderStatus,
        initial="cart",
        rows=[
            Row("pay", "cart", "paid", **(paying | go)),
            Row("send", "paid", "sent", activity=True),
            Row("arrive", "sent", "done", ending=True),
            Row("lose", "sent", "*"),
            Row("find", "*", "sent"),
            Row("forget", (OrderStatus.CART, "*"), "done", deadline=after_grace("patience")),
            Row("cancel", ("cart", "paid"), "done", ending=True),
            Row("again", "sent", "sent", optional="error"),
            Row("note", LIVE, None, optional=("metadata", "error"), effect=lambda a: a.arguments),
        ],
        graces={"patience": 3600},
        name="order",
    )


ORDER = order()


# --- every move ------------------------------------------------------------------------------


def test_machine_lives_a_whole_life() -> None:
    """A session is started, works, rests, is woken, ended, and stays ended."""
    machine = SessionMachine(SessionState.new("s", at=AT))
    steps: list[tuple[Callable[[], SessionState], str]] = [
        (lambda: machine.activate(at=AT + SECOND), "active"),
        (lambda: machine.begin_task("t", at=AT + 2 * SECOND), "active"),
        (lambda: machine.start_conversation(at=AT + 3 * SECOND), "active"),
        (lambda: machine.end_task("t", at=AT + 4 * SECOND), "active"),
        (lambda: machine.go_idle(at=AT + 5 * SECOND), "idle"),
        (lambda: machine.touch(at=AT + 6 * SECOND), "idle"),
        (lambda: machine.update(at=AT + 7 * SECOND, metadata={"a": 1}), "idle"),
        (lambda: machine.resume(at=AT + 8 * SECOND), "active"),
        (lambda: machine.terminate(at=AT + 9 * SECOND, error="asked for"), "terminating"),
        (lambda: machine.finish(at=AT + 10 * SECOND, reason="drained"), "terminated"),
    ]
    after = machine.state
    for revision, (move, status) in enumerate(steps, 1):
        after = move()
        assert after is machine.state
        assert after.status is SessionStatus(status)
        assert machine.revision == revision
        assert after.updated_at == AT + revision * SECOND
    assert after.status_since == AT + 10 * SECOND
    assert after.last_activity_at == AT + 8 * SECOND
    assert (after.conversation_count, after.active_tasks, after.error) == (1, (), "asked for")
    assert after.metadata == {"a": 1}
    assert permitted(after, at=AT + MINUTE) == ()


def test_machine_typed_methods_are_the_triggers() -> None:
    """The machine has one method for each trigger of the session lifecycle, and no other verb."""
    methods = {
        name
        for name, value in vars(SessionMachine).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert methods - {"fire", "permitted"} == set(SESSION_LIFECYCLE.triggers)


def test_machine_typed_methods_take_what_their_rows_take() -> None:
    """A required argument of a row is a parameter of its method; `at` and `reason` always fit."""
    for row in SESSION_LIFECYCLE.rows:
        parameters = inspect.signature(getattr(SessionMachine, row.trigger)).parameters
        assert tuple(parameters)[1:-2] == row.required
        assert parameters["at"].kind is inspect.Parameter.KEYWORD_ONLY


def test_machine_activity_moves_with_activity_rows_alone() -> None:
    """Rows that count as work move the last activity; others leave it."""
    late = AT + MINUTE / 2
    arguments: dict[str, dict[str, Any]] = {
        "begin_task": {"task_id": "new"},
        "end_task": {"task_id": "t"},
        "update": {"metadata": {"a": 1}, "error": "x"},
    }
    for row, source in SESSION_LIFECYCLE.moves():
        tasks = ["t"] if row.trigger in ("end_task", "task_timeout") else []
        limits = {"t": AT + MINUTE} if row.trigger == "task_timeout" else {}
        state = state_in(source, active_tasks=tasks, task_deadlines=limits)
        at = AT + 60 * MINUTE if row.deadline else late
        after = step(state, row.trigger, at=at, **arguments.get(row.trigger, {}))
        assert after.last_activity_at == (at if row.activity else AT)
        assert after.status_since == (AT if row.target is None else at)
        assert after.status == (row.target or source)
        assert after.updated_at == at


def test_machine_update_revives_nothing() -> None:
    """A session that has expired can be updated, and is no less expired."""
    state = state_in("idle")
    late = AT + 40 * MINUTE
    after = step(state, "update", at=late, metadata={"a": 1})
    assert after.last_activity_at == AT
    assert explain(after, "resume", at=late) is not None
    assert explain(after, "expire", at=late) is None


def test_machine_reads_the_system_clock() -> None:
    """Without an instant a step is made now."""
    before = SYSTEM_CLOCK.now()
    machine = SessionMachine(SessionState.new("s"))
    assert before <= machine.activate().updated_at <= SYSTEM_CLOCK.now()


@pytest.mark.parametrize("back", [timedelta(0), SECOND, timedelta(days=1000)])
def test_machine_never_runs_backwards(back: timedelta) -> None:
    """A step at an earlier instant is made at that of the last change."""
    machine = SessionMachine(state_in("active", updated_at=AT + MINUTE))
    after = machine.go_idle(at=AT + MINUTE - back)
    assert after.updated_at == after.status_since == AT + MINUTE


def test_machine_starts_where_it_is_told() -> None:
    """A machine goes on from a state and a revision, and shows both."""
    machine = SessionMachine(state_in("idle"), revision=7)
    machine.resume(at=AT)
    assert machine.revision == 8
    assert machine.permitted(at=AT, task_id="t") == permitted(machine.state, at=AT, task_id="t")
    assert machine.permitted(at=AT) == permitted(machine.state, at=AT)
    assert repr(machine).startswith("SessionMachine(SessionState(session_id='s', status=<Session")
    assert repr(machine).endswith(", 'session', revision=8)")


def test_machine_repr_hides_secrets() -> None:
    """The text of a machine shows no secret of its state."""
    machine = SessionMachine(state_in("idle", llm_config={"api_key": "hunter2"}))
    assert "hunter2" not in repr(machine)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (state_in("lost"), "status: unknown status 'lost'; known are initializing"),
        (state_in("idle", active_tasks=["t"]), "active_tasks: status 'idle' can't hold tasks; 1"),
    ],
)
def test_machine_refuses_states_of_other_lives(state: SessionState, problem: str) -> None:
    """A state that the lifecycle can't be in has no machine."""
    for make in (lambda: SessionMachine(state), lambda: step(state, "update", at=AT)):
        with pytest.raises(StateInvalidError) as caught:
            make()
        assert caught.value.problems[0].startswith(problem)


# --- by target -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, SessionStatus], ids=["word", "member"])
def test_machine_transition_leads_to_a_status(kind: Callable[[str], str]) -> None:
    """The one hand-fired row to a status is taken, named by its word or its member."""
    for source, target in SESSION_LIFECYCLE.edges:
        state = state_in(kind(source))
        row = SESSION_LIFECYCLE.by_hand(source, target)
        assert row is not None
        after = transition(state, kind(target), at=AT, reason="by hand")
        assert after == step(state, row.trigger, at=AT)
        assert after.status is SessionStatus(target)


def test_machine_transition_takes_the_arguments_of_its_row() -> None:
    """Arguments go to the row that is found; those that it does not take are a mistake."""
    assert transition(state_in("active"), "terminating", at=AT, error="bye").error == "bye"
    with pytest.raises(TypeError, match=r"'go_idle' takes no argument 'error'"):
        transition(state_in("active"), "idle", at=AT, error="bye")


@pytest.mark.parametrize(
    ("source", "target", "headline"),
    [
        ("active", "terminated", "no row leads from 'active' to 'terminated'"),
        ("active", "active", "no row leads from 'active' to 'active'"),
        ("terminated", "active", "no row leads from 'terminated' to 'active'"),
        ("active", "lost", "there is no status 'lost'"),
        ("active", "", "there is no status ''"),
        ("active", "ACTIVE", "there is no status 'ACTIVE'"),
        ("active", None, "there is no status 'None'"),
        ("active", 5, "there is no status '5'"),
    ],
)
def test_machine_transition_without_a_row_is_refused(
    source: str, target: Any, headline: str
) -> None:
    """Where no row leads, or nothing is, the refusal says so and what is permitted instead."""
    state = state_in(source)
    with pytest.raises(InvalidTransitionError) as caught:
        transition(state, target, at=AT)
    refusal = caught.value.refusal
    assert refusal.headline == headline
    assert refusal.kind == ("no_edge" if target in SESSION_LIFECYCLE else "unknown_status")
    assert (refusal.trigger, refusal.target, refusal.status) == (None, str(target), source)
    assert refusal.permitted == permitted(state, at=AT)
    assert caught.value.session_id == "s"


def test_machine_transition_asks_guards() -> None:
    """A row that is found is guarded as ever."""
    with pytest.raises(GuardRejectedError, match=r"'go_idle' is refused .* 1 task is active: t"):
        transition(state_in("active", active_tasks=["t"]), "idle", at=AT)


def test_machine_transition_with_two_rows_names_both() -> None:
    """Where two rows lead to a status by hand, neither is chosen."""
    two = SESSION_LIFECYCLE.extend(rows=[Row("nap", "active", "idle", guards=NO_ACTIVE_TASK)])
    with pytest.raises(LifecycleError, match=r"'go_idle' and 'nap' both lead from 'active' to"):
        transition(state_in("active"), "idle", at=AT, lifecycle=two)
    assert step(state_in("active"), "nap", at=AT, lifecycle=two).status == "idle"


# --- refusals --------------------------------------------------------------------------------


ENDING = state_in("terminating", active_tasks=["t"])


@pytest.mark.parametrize(
    ("state", "trigger", "arguments", "kind"),
    [
        (state_in("idle"), "explode", {}, InvalidTransitionError),
        (state_in("idle"), "explode", {"size": 5}, InvalidTransitionError),
        (state_in("idle"), "activate", {}, InvalidTransitionError),
        (state_in("terminated"), "update", {"error": "x"}, InvalidTransitionError),
        (state_in("active", active_tasks=["t"]), "go_idle", {}, GuardRejectedError),
        (state_in("active"), "expire", {}, GuardRejectedError),
        (state_in("active"), "end_task", {"task_id": "t"}, GuardRejectedError),
        # What is permitted is told for the arguments that came.
        (ENDING, "begin_task", {"task_id": "t"}, InvalidTransitionError),
        (ENDING, "begin_task", {"task_id": "u"}, InvalidTransitionError),
    ],
)
def test_machine_refusals_are_told_and_change_nothing(
    state: SessionState, trigger: str, arguments: dict[str, Any], kind: type[TransitionError]
) -> None:
    """Each kind of refusal has its error, with the refusal of a dry run and the session's id."""
    machine = SessionMachine(state, revision=3)
    error = refused(machine, lambda: machine.fire(trigger, at=AT, **arguments))
    assert type(error) is kind
    assert error.refusal == explain(state, trigger, at=AT, **arguments)
    assert error.session_id == "s"
    assert str(error) == str(error.refusal)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.refusal, again.session_id) == (kind, error.refusal, "s")


def test_machine_names_all_guards_that_fail() -> None:
    """A refusal names every guard that says no, though the first would do."""
    state = state_in("active", config={"max_conversations": 1}, conversation_count=1)
    with pytest.raises(GuardRejectedError) as caught:
        step(state, "start_conversation", at=AT + 30 * MINUTE)
    assert [failed.name for failed in caught.value.refusal.failed_guards] == [
        *("below max_conversations", "not expired"),
    ]


@pytest.mark.parametrize(
    ("trigger", "arguments", "message"),
    [
        ("begin_task", {}, "'begin_task' needs the argument 'task_id'"),
        ("end_task", {"reason": "x"}, "'end_task' needs the argument 'task_id'"),
        ("begin_task", {"task": "t", "task_id": "t"}, "'begin_task' takes no argument 'task'"),
        ("go_idle", {"error": "x"}, "'go_idle' takes no argument 'error'; it takes reason"),
        ("touch", {"task_id": "t"}, "'touch' takes no argument 'task_id'"),
        ("update", {"status": "idle"}, "'update' takes no argument 'status'; it takes config, llm"),
        ("update", {"active_tasks": ()}, "'update' takes no argument 'active_tasks'"),
        ("update", {"updated_at": AT}, "'update' takes no argument 'updated_at'"),
    ],
)
def test_machine_wrong_arguments_are_type_errors(
    trigger: str, arguments: dict[str, Any], message: str
) -> None:
    """An argument that is missing or unknown is a mistake of the caller, and changes nothing."""
    machine = SessionMachine(state_in("active"))
    error = refused(machine, lambda: machine.fire(trigger, at=AT, **arguments))
    assert isinstance(error, TypeError)
    assert str(error).startswith(message)


def test_machine_typed_methods_miss_arguments_too() -> None:
    """A typed method without its argument is a mistake of the caller."""
    machine = SessionMachine(state_in("active"))
    with pytest.raises(TypeError, match="task_id"):
        machine.begin_task()  # type: ignore[call-arg]  # what is tested


@pytest.mark.parametrize(
    ("trigger", "arguments", "problem"),
    [
        ("begin_task", {"task_id": ""}, "task_id: 0 characters"),
        ("begin_task", {"task_id": 5}, "task_id: expected a string, got 5"),
        ("begin_task", {"task_id": ["t"]}, "task_id: expected a string"),
        ("update", {"metadata": {"a": {1}}, "error": 5}, "metadata.a: set is no JSON value"),
        ("update", {"config": {"timeout_minutes": 0}}, "config.timeout_minutes: expected"),
        ("terminate", {"error": 5}, "error: expected a string or null, got 5"),
        ("go_idle", {"at": datetime(2026, 1, 1)}, "at: an instant needs a time zone"),  # noqa: DTZ001 - naive
        ("go_idle", {"at": "now"}, "at: expected an instant"),
    ],
)
def test_machine_bad_values_change_nothing(
    trigger: str, arguments: dict[str, Any], problem: str
) -> None:
    """A value that no state may hold is named, and the machine stays as it is."""
    machine = SessionMachine(state_in("active"))
    error = refused(machine, lambda: machine.fire(trigger, **({"at": AT} | arguments)))
    assert isinstance(error, StateInvalidError)
    assert error.problems[0].startswith(problem)
    assert len(error.problems) == (2 if len(arguments) == 2 else 1)


# --- the lifecycles of others ----------------------------------------------------------------


def test_machine_runs_any_lifecycle() -> None:
    """An order goes its own way, through statuses and by triggers that no session has."""
    machine = SessionMachine(SessionState.new("o-1", status="cart", at=AT), ORDER)
    steps: list[tuple[str, dict[str, Any], OrderStatus]] = [
        ("pay", {"amount": 12}, OrderStatus.PAID),
        ("send", {}, OrderStatus.SENT),
        ("lose", {}, OrderStatus.LOST),
        ("find", {}, OrderStatus.SENT),
        ("again", {"reason": "as asked"}, OrderStatus.SENT),
        ("note", {"error": "late"}, OrderStatus.SENT),
        ("arrive", {}, OrderStatus.DONE),
    ]
    for trigger, arguments, status in steps:
        after = machine.fire(trigger, at=AT, **arguments)
        assert after.status is status
    assert machine.revision == 7
    assert machine.state.metadata == {"amount": 12}
    assert machine.state.error == "late"


def test_machine_takes_no_status_for_a_wildcard() -> None:
    """A status called `*` or `=` is a word like any other: its rows are its own."""
    odd = Lifecycle(
        statuses=["=", "*", "end"],
        initial="=",
        rows=[Row("go", "*", "="), Row("on", "=", "*"), Row("stop", "*", "end")],
    )
    machine = SessionMachine(SessionState.new("s", status="=", at=AT), odd)
    error = refused(machine, lambda: machine.fire("go", at=AT))
    assert isinstance(error, InvalidTransitionError)
    assert error.refusal.kind == "wrong_status"
    walk = [machine.fire(trigger, at=AT).status for trigger in ("on", "go", "on", "stop")]
    assert walk == ["*", "=", "*", "end"]


def test_machine_guards_of_others_are_asked() -> None:
    """The guards of any lifecycle refuse in their own words, by hand and by time."""
    cart = SessionState.new("o-1", status="cart", at=AT)
    with pytest.raises(
        GuardRejectedError, match=r"'pay' is refused .*: too little money; permitted"
    ):
        step(cart, "pay", at=AT, lifecycle=ORDER, amount=9)
    with pytest.raises(GuardRejectedError, match="not due before 2026-01-31T13:00:00"):
        step(cart, "forget", at=AT + 59 * MINUTE, lifecycle=ORDER)
    assert step(cart, "forget", at=AT + 60 * MINUTE, lifecycle=ORDER).status == "done"
    assert transition(cart, "paid", at=AT, lifecycle=ORDER, amount=10).status == "paid"
    with pytest.raises(InvalidTransitionError, match="there is no status 'idle'"):
        transition(cart, "idle", at=AT, lifecycle=ORDER)


def test_machine_row_to_its_own_status_begins_it_anew() -> None:
    """A row from a status to itself is a move: the status begins again."""
    sent = SessionState.new("o-1", status="sent", at=AT)
    after = step(sent, "again", at=AT + MINUTE, lifecycle=ORDER)
    assert (after.status, after.status_since) == ("sent", AT + MINUTE)
    assert step(sent, "note", at=AT + MINUTE, lifecycle=ORDER).status_since == AT


@pytest.mark.parametrize(
    ("go", "told"),
    [
        ({"guards": [Guard("g", lambda _: 1, "no")]}, "returned int, not a bool"),  # type: ignore[arg-type, return-value]  # what is tested
        ({"guards": [Guard("g", lambda _: None, "no")]}, "returned NoneType, not a bool"),  # type: ignore[arg-type, return-value]  # what is tested
        ({"guards": [Guard("g", lambda a: a.arguments["b"], "no")]}, "raised KeyError: 'b'"),
        (
            {"guards": [Guard("g", lambda _: False, lambda a: a.arguments["b"])]},
            "raised KeyError: 'b' for its reason",
        ),
        ({"guards": [Guard("g", lambda _: False, lambda _: 5)]}, "gave int for its reason"),  # type: ignore[arg-type, return-value]  # what is tested
    ],
)
def test_machine_broken_guards_are_never_a_no(go: dict[str, Any], told: str) -> None:
    """A guard that is broken is an error that names it, and changes nothing."""
    state = SessionState.new("o-1", status="cart", at=AT)
    machine = SessionMachine(state, order(**go))
    error = refused(machine, lambda: machine.fire("pay", at=AT, amount=12))
    assert isinstance(error, GuardError)
    assert (error.guard, error.trigger) == ("g", "pay")
    assert error.problem.startswith(told)
    assert machine.fire("note", at=AT, error="still usable").error == "still usable"


@pytest.mark.parametrize(
    ("effect", "problem"),
    [
        (lambda _: {"status": "done"}, "its effect sets status, which is no data of a state"),
        (lambda _: {"updated_at": AT, "error": "x"}, "its effect sets updated_at, which is no"),
        (lambda _: {"colour": 1, "status": 2}, "its effect sets colour, status, which is no"),
        (lambda _: {5: 1}, "its effect sets 5, which is no data"),
        (lambda _: None, "its effect returned NoneType, not a mapping"),
        (lambda _: [("error", "x")], "its effect returned list, not a mapping"),
    ],
)
def test_machine_effects_change_data_alone(effect: Any, problem: str) -> None:
    """An effect that sets anything but data is a fault of the lifecycle, told with the row."""
    machine = SessionMachine(SessionState.new("o-1", status="cart", at=AT), order(effect=effect))
    error = refused(machine, lambda: machine.fire("pay", at=AT, amount=12))
    assert isinstance(error, LifecycleError)
    assert error.problem.startswith(f"row 'pay' (cart -> paid): {problem}")
    assert error.lifecycle == "order"


def test_machine_effects_may_change_all_data() -> None:
    """An effect may set every field of data at once."""
    data: dict[str, Any] = {
        "config": {"timeout_minutes": 1},
        "llm_config": {"a": 1},
        "metadata": {"b": 2},
        "active_tasks": ["t"],
        "conversation_count": 3,
        "error": "it broke",
    }
    unpack = Row("unpack", "paid", None, required="task_id")
    leaving = (
        Row("send", "paid", "sent", effect=lambda _: {"active_tasks": ()}),
        Row("cancel", "paid", "done", effect=lambda _: {"active_tasks": ()}, ending=True),
    )
    lifecycle = order(effect=lambda _: data).extend(
        rows=(unpack, *leaving), roles={"end_task": "unpack"}
    )
    cart = SessionState.new("o-1", status="cart", at=AT)
    after = step(cart, "pay", at=AT, lifecycle=lifecycle, amount=12)
    paid = SessionState.new("o-1", status="paid", at=AT)
    assert after == paid.update(at=AT, **data)


def test_machine_effects_that_raise_change_nothing() -> None:
    """What an effect raises is told with its row, and the machine goes on from where it was."""

    def effect(shown: Attempt) -> dict[str, Any]:
        return {"error": f"{1 / (shown.arguments['amount'] - 12)}"}

    machine = SessionMachine(SessionState.new("o-1", status="cart", at=AT), order(effect=effect))
    error = refused(machine, lambda: machine.fire("pay", at=AT, amount=12))
    assert isinstance(error, LifecycleError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert error.problem == (
        "row 'pay' (cart -> paid): its effect raised ZeroDivisionError: division by zero"
    )
    assert machine.fire("pay", at=AT, amount=13).status == "paid"


def test_machine_effects_with_bad_values_change_nothing() -> None:
    """An effect that makes a value no state may hold is told with the field."""
    lifecycle = order(effect=lambda _: {"conversation_count": -1, "metadata": []})
    machine = SessionMachine(SessionState.new("o-1", status="cart", at=AT), lifecycle)
    error = refused(machine, lambda: machine.fire("pay", at=AT, amount=12))
    assert isinstance(error, StateInvalidError)
    assert len(error.problems) == 2


def test_machine_tasks_cannot_get_where_none_may_be() -> None:
    """A move that would bring tasks to a status that can't hold them is refused."""
    careless = SESSION_LIFECYCLE.extend(
        rows=[Row("nap", "active", "idle", effect=lambda _: {"error": "dozed off"})]
    )
    machine = SessionMachine(state_in("active", active_tasks=["t"]), careless)
    error = refused(machine, lambda: machine.fire("nap", at=AT))
    assert isinstance(error, StateInvalidError)
    assert str(error) == "active_tasks: status 'idle' can't hold tasks; 1 task is active: t"
    giving = order(effect=lambda _: {"active_tasks": ["t"]})
    machine = SessionMachine(SessionState.new("o-1", status="cart", at=AT), giving)
    assert isinstance(
        refused(machine, lambda: machine.fire("pay", at=AT, amount=12)), StateInvalidError
    )


def test_machine_guard_that_changes_its_mind_is_a_fault() -> None:
    """A guard that says no, and then not, is told as a fault, not as a refusal without reason."""
    answers: Iterator[bool] = iter([False, True])
    fickle = Guard("fickle", lambda _: next(answers), "now and then")
    machine = SessionMachine(SessionState.new("o-1", status="cart", at=AT), order(guards=[fickle]))
    error = refused(machine, lambda: machine.fire("pay", at=AT, amount=12))
    assert isinstance(error, LifecycleError)
    assert "the machine refused a move that its table permits" in str(error)


# --- the machine beneath ---------------------------------------------------------------------


@pytest.mark.parametrize("lifecycle", [SESSION_LIFECYCLE, ORDER], ids=["session", "order"])
def test_machine_beneath_agrees_with_the_table(lifecycle: Lifecycle) -> None:
    """The machine has the statuses, triggers and moves of the table, and nothing of its own."""
    beneath = build_machine(lifecycle)
    assert list(beneath.states) == [str(status) for status in lifecycle.statuses]
    assert tuple(beneath.events) == lifecycle.triggers
    assert beneath.models == []
    for trigger, event in beneath.events.items():
        for status in lifecycle.statuses:
            row = lifecycle.find(trigger, status)
            found = event.transitions.get(str(status), [])
            assert [(move.source, move.dest) for move in found] == (
                [] if row is None else [(status, row.target)]
            )
            if row is not None:
                assert len(found[0].conditions) == len(row.conditions)
                assert found[0].before == found[0].after == found[0].prepare == []
        assert set(event.transitions) <= set(lifecycle.statuses)


def test_machine_beneath_has_nothing_that_transitions_adds() -> None:
    """No status `initial` that nobody named, and no trigger that leads anywhere from anywhere."""
    plain = Machine(model=None, states=["a"], send_event=True)
    assert "initial" in plain.states
    assert "to_a" in plain.events
    beneath = build_machine(SESSION_LIFECYCLE)
    assert "initial" not in beneath.states
    assert not [trigger for trigger in beneath.events if trigger.startswith("to_")]
    machine = SessionMachine(state_in("active"))
    for trigger in ("to_terminated", "to_idle", "initial", "may_go_idle", "is_active", "trigger"):
        error = refused(machine, lambda trigger=trigger: machine.fire(trigger, at=AT))  # type: ignore[misc]  # bound at once
        assert isinstance(error, InvalidTransitionError)
        assert error.refusal.kind == "unknown_trigger"


def test_machine_beneath_is_built_once() -> None:
    """All sessions of a lifecycle share one machine, which holds none of them."""
    assert build_machine(ORDER) is build_machine(ORDER)
    other = order()
    assert build_machine(other) is not build_machine(ORDER)
    for _ in range(3):
        SessionMachine(SessionState.new("o", status="paid", at=AT), ORDER).fire("send", at=AT)
    assert build_machine(ORDER).models == []


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_machine_copies_go_their_own_ways(
    copied: Callable[[SessionMachine], SessionMachine],
) -> None:
    """A copy of a session machine is another session of the same lifecycle, with the same past."""
    machine = SessionMachine(state_in("active"), revision=3)
    twin = copied(machine)
    assert (twin.state, twin.revision) == (machine.state, 3)
    assert twin.lifecycle is machine.lifecycle
    twin.go_idle(at=AT)
    assert (machine.state.status, machine.revision) == ("active", 3)
    assert (twin.state.status, twin.revision) == ("idle", 4)


def test_machine_that_lost_a_row_says_so() -> None:
    """Where the machine beneath lacks what its table has, that is a fault, not a refusal."""
    lifecycle = order()
    build_machine(lifecycle).events["send"].transitions.clear()
    machine = SessionMachine(SessionState.new("o", status="paid", at=AT), lifecycle)
    error = refused(machine, lambda: machine.fire("send", at=AT))
    assert isinstance(error, LifecycleError)
    assert error.problem.startswith("row 'send' (paid -> sent): ")


# --- threads ---------------------------------------------------------------------------------


def test_machine_threads_with_their_own_machines_do_not_meet() -> None:
    """Threads that step their own sessions of one lifecycle at once go the way one alone goes."""
    lifecycle = SESSION_LIFECYCLE.extend(name="shared")  # new, so that its machine is built at once
    rounds = 200
    start = threading.Barrier(4)

    def live(name: str, went: list[SessionState]) -> None:
        machine = SessionMachine(SessionState.new(name, at=AT), lifecycle)
        start.wait(10)
        machine.activate(at=AT)
        for _ in range(rounds):
            machine.begin_task(name, at=AT)
            with pytest.raises(GuardRejectedError, match=f"1 task is active: {name}"):
                machine.go_idle(at=AT)
            machine.end_task(name, at=AT)
            machine.go_idle(at=AT)
            with pytest.raises(InvalidTransitionError):
                machine.begin_task(name, at=AT)
            machine.resume(at=AT)
            went.append(machine.state)
        assert machine.revision == 1 + 4 * rounds

    ways: dict[str, list[SessionState]] = {f"s{number}": [] for number in range(4)}
    threads = [threading.Thread(target=live, args=item, daemon=True) for item in ways.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, went in ways.items():
        assert len(went) == rounds
        assert {state.session_id for state in went} == {name}
        assert {state.status for state in went} == {"active"}
