"""Dry runs: what is valid, what is permitted, why not, and what fires by itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from session_fsm.clock import SYSTEM_CLOCK
from session_fsm.errors import (
    FailedGuard,
    GuardError,
    GuardRejectedError,
    Refusal,
    StateInvalidError,
)
from session_fsm.explain import (
    explain,
    is_valid,
    is_valid_transition,
    next_timed,
    permitted,
    problems,
    validate,
)
from session_fsm.guards import Attempt, Deadline, Guard, after_grace
from session_fsm.jsonvalue import JsonObject
from session_fsm.lifecycle import LIVE, Lifecycle, Row
from session_fsm.machine import step
from session_fsm.state import SessionConfig, SessionState, SessionStatus
from session_fsm.table import SESSION_LIFECYCLE

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)


def state_in(status: str, **fields: Any) -> SessionState:
    """A state in a status, made and last used at AT."""
    required: dict[str, Any] = {"session_id": "s", "created_at": AT, "updated_at": AT}
    return SessionState(status=status, **(required | fields))


def gate(check: Callable[[Attempt], bool], **row: Any) -> Lifecycle:
    """A lifecycle with one guarded row, `go`, and one that is always open."""
    guard = Guard("gate", check, "it is shut")
    rows = [Row("go", "a", "b", guards=[guard], **row), Row("leave", "a", "b")]
    return Lifecycle(statuses=["a", "b"], initial="a", rows=rows, graces={"some": 60})


# --- validity --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", SessionStatus)
def test_explain_states_without_tasks_are_valid_everywhere(status: SessionStatus) -> None:
    """A state of sound fields is valid in every status."""
    state = state_in(status)
    assert is_valid(state)
    assert problems(state) == ()
    validate(state)


@pytest.mark.parametrize("status", SessionStatus)
def test_explain_tasks_are_valid_where_they_can_end(status: SessionStatus) -> None:
    """Tasks are a fault in a status that no task can end in, and are named there."""
    state = state_in(status, active_tasks=["build", "test"])
    valid = status in {SessionStatus.ACTIVE, SessionStatus.TERMINATING}
    assert is_valid(state) is valid
    told = (
        f"active_tasks: status {status.value!r} can't hold tasks; 2 tasks are active: build, test"
    )
    assert problems(state) == (() if valid else (told,))


def test_explain_unknown_status_is_a_fault_of_the_lifecycle() -> None:
    """A status is judged by the lifecycle that is asked."""
    state = state_in("a")
    assert problems(state) == (
        "status: unknown status 'a'; known are initializing, active, idle, terminating, terminated",
    )
    assert is_valid(state, gate(lambda _: True))
    assert problems(state_in("idle"), gate(lambda _: True)) == (
        "status: unknown status 'idle'; known are a, b",
    )


def test_explain_validate_names_every_fault() -> None:
    """A state that was forged past the constructor is told with all its faults."""
    state = state_in("idle")
    for name, value in [
        ("session_id", ""),
        ("status", "lost"),
        ("last_activity_at", AT + MINUTE),
        ("metadata", {"a": {1}}),
        ("active_tasks", ["t"]),
        ("conversation_count", True),
    ]:
        object.__setattr__(state, name, value)
    with pytest.raises(StateInvalidError) as caught:
        validate(state)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        *("session_id", "metadata.a", "conversation_count", "last_activity_at", "status"),
    ]
    assert not is_valid(state)


@pytest.mark.parametrize("value", [None, {}, "idle", SessionConfig(), SessionState], ids=repr)
def test_explain_what_is_no_state_is_not_valid(value: Any) -> None:
    """Anything but a state is told as such, and nothing is raised but the one error."""
    assert not is_valid(value)
    with pytest.raises(StateInvalidError, match=r"^state: expected a SessionState, got"):
        validate(value)


@pytest.mark.parametrize(
    ("source", "target", "legal"),
    [
        ("idle", "active", True),
        (SessionStatus.IDLE, SessionStatus.ACTIVE, True),
        (SessionStatus.IDLE, "active", True),
        ("active", "terminated", False),
        ("idle", "idle", False),
        ("terminated", "active", False),
        ("lost", "active", False),
        ("idle", "lost", False),
        ("IDLE", "active", False),
        ("", "", False),
        (None, "active", False),
        ("idle", 5, False),
        (["idle"], {}, False),
    ],
)
def test_explain_graph_alone_is_asked(source: object, target: object, legal: bool) -> None:
    """An edge is legal or not, by member or by word; whatever is no status is not."""
    assert is_valid_transition(source, target) is legal


def test_explain_graph_has_timed_edges_too() -> None:
    """An edge that is only taken by itself is an edge."""
    lifecycle = Lifecycle(
        statuses=["a", "b"],
        initial="a",
        rows=[Row("end", "a", "b", deadline=after_grace("some"))],
        graces={"some": 1},
    )
    assert is_valid_transition("a", "b", lifecycle)
    assert not is_valid_transition("b", "a", lifecycle)


# --- refusals --------------------------------------------------------------------------------


def test_explain_accepts_what_would_be_accepted() -> None:
    """Where a trigger would be fired, there is nothing to explain."""
    assert explain(state_in("active"), "go_idle", at=AT) is None
    assert explain(state_in("active"), "begin_task", at=AT, task_id="t", reason="why not") is None


def test_explain_unknown_trigger() -> None:
    """A word that no row has is told as unknown, with what could be done instead."""
    assert explain(state_in("idle"), "explode", at=AT) == Refusal(
        kind="unknown_trigger",
        trigger="explode",
        target=None,
        status="idle",
        failed_guards=(),
        permitted=("resume", "terminate", "touch", "update"),
        next_timed=("expire", AT + 30 * MINUTE),
    )


def test_explain_wrong_status() -> None:
    """A trigger of another status is told as such."""
    assert explain(state_in("terminated"), "resume", at=AT) == Refusal(
        kind="wrong_status", trigger="resume", target=None, status="terminated"
    )


def test_explain_names_every_failed_guard() -> None:
    """All guards that say no are named with their reasons, in the row's order."""
    config = SessionConfig(max_conversations=2, timeout_minutes=5)
    state = state_in("active", config=config, conversation_count=2)
    assert explain(state, "start_conversation", at=AT + 5 * MINUTE) == Refusal(
        kind="guard",
        trigger="start_conversation",
        target=None,
        status="active",
        failed_guards=(
            FailedGuard("below max_conversations", "2 conversations were started, 2 are allowed"),
            FailedGuard("not expired", "expired at 2026-01-31T12:05:00+00:00"),
        ),
        permitted=("go_idle", "terminate", "expire", "end_task", "update"),
        next_timed=("expire", AT + 5 * MINUTE),
    )


def test_explain_tells_the_target_of_a_guarded_move() -> None:
    """A move that guards refuse is told with where it would have led."""
    busy = state_in("active", active_tasks=["build"])
    refusal = explain(busy, "go_idle", at=AT)
    assert refusal is not None
    assert refusal.target == "idle"
    assert refusal.failed_guards == (FailedGuard("no active task", "1 task is active: build"),)
    assert refusal.next_timed is None


@pytest.mark.parametrize(
    ("trigger", "task_id", "failed"),
    [
        (
            "begin_task",
            "build",
            FailedGuard("not already active", "task 'build' is active already"),
        ),
        ("begin_task", "test", None),
        ("end_task", "build", None),
        ("end_task", "test", FailedGuard("is active", "task 'test' is not active")),
    ],
)
def test_explain_asks_guards_of_arguments(
    trigger: str, task_id: str, failed: FailedGuard | None
) -> None:
    """A guard of an argument is asked where the argument is given, and left out otherwise."""
    busy = state_in("active", active_tasks=["build"])
    refusal = explain(busy, trigger, at=AT, task_id=task_id)
    assert (refusal and refusal.failed_guards) == (failed and (failed,))
    assert explain(busy, trigger, at=AT) is None


def test_explain_asks_every_other_guard_without_its_argument() -> None:
    """A guard that needs no argument is asked all the same."""
    refusal = explain(state_in("active"), "begin_task", at=AT + 30 * MINUTE)
    assert refusal is not None
    assert [failed.name for failed in refusal.failed_guards] == ["not expired"]


def test_explain_wrong_arguments_are_type_errors() -> None:
    """An argument that the row does not take is the caller's mistake, told with what it takes."""
    with pytest.raises(TypeError, match=r"'go_idle' takes no argument 'task_id'; it takes reason$"):
        explain(state_in("active"), "go_idle", at=AT, task_id="t")
    with pytest.raises(TypeError, match=r"'touch' takes no argument 'error'; it takes reason"):
        explain(state_in("active"), "touch", at=AT, error="x")
    with pytest.raises(TypeError, match=r"it takes task_id, timeout_seconds, reason"):
        explain(state_in("active"), "begin_task", at=AT, task="t")


@pytest.mark.parametrize("ask", [explain, lambda state, _, **asked: permitted(state, **asked)])
def test_explain_naive_instants_are_refused(ask: Callable[..., object]) -> None:
    """A question as of a naive instant, or of none, is a fault of the question."""
    for at in (datetime(2026, 1, 1), "now", 0):  # noqa: DTZ001 - naive
        with pytest.raises(StateInvalidError, match=r"^at: "):
            ask(state_in("active"), "touch", at=at)


def test_explain_instants_before_the_last_change_are_lifted() -> None:
    """A question as of an earlier instant is asked as of the last change."""
    seen: list[datetime] = []

    def check(shown: Attempt) -> bool:
        seen.append(shown.at)
        return True

    state = state_in("a", updated_at=AT + MINUTE)
    for at in (AT, AT + MINUTE, AT + 2 * MINUTE):
        assert explain(state, "go", at=at, lifecycle=gate(check)) is None
    assert seen == [AT + MINUTE, AT + MINUTE, AT + 2 * MINUTE]


def test_explain_without_an_instant_asks_as_of_now() -> None:
    """Without an instant the question is as of now, by the system's clock."""
    before = SYSTEM_CLOCK.now()
    assert explain(SessionState.new("s"), "activate") is None
    assert explain(state_in("active", updated_at=before, created_at=before), "touch") is None
    assert permitted(SessionState.new("s")) == ("activate", "abort", "update")
    old = state_in("active")
    assert explain(old, "touch") is not None


def test_explain_changes_nothing_and_runs_no_effect() -> None:
    """A dry run leaves the state as it is; effects are not run, guards may be asked again."""

    def effect(_: Attempt) -> dict[str, Any]:
        raise AssertionError("an effect was run")

    asked: list[Attempt] = []

    def check(shown: Attempt) -> bool:
        asked.append(shown)
        return True

    lifecycle = gate(check, effect=effect, optional="note")
    state = state_in("a")
    for _ in range(2):
        assert explain(state, "go", at=AT, lifecycle=lifecycle, note=5) is None
        assert permitted(state, at=AT, lifecycle=lifecycle) == ("go", "leave")
    assert state == state_in("a")
    assert asked[0].arguments == {"note": 5}
    assert asked[0].state is state
    assert asked[0].graces == {"some": timedelta(seconds=60)}


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda _: None, "returned NoneType, not a bool"),
        (lambda _: 1, "returned int, not a bool"),
        (lambda shown: shown.arguments["missing"], "raised KeyError: 'missing'"),
    ],
)
def test_explain_broken_guards_are_never_a_no(check: Callable[[Attempt], Any], told: str) -> None:
    """A guard that is broken is an error in every dry run that asks for its row."""
    lifecycle = gate(check)
    for ask in (
        lambda: explain(state_in("a"), "go", at=AT, lifecycle=lifecycle),
        lambda: permitted(state_in("a"), at=AT, lifecycle=lifecycle),
    ):
        with pytest.raises(GuardError) as caught:
            ask()
        assert (caught.value.guard, caught.value.trigger) == ("gate", "go")
        assert caught.value.problem == told


def test_explain_refusals_survive_faults_of_other_rows() -> None:
    """Why one row is refused is told whatever is wrong with others; those are named beside it."""
    broken = Guard("broken", lambda _: 1 / 0 > 0, "?")
    faulty = Deadline("some day", after_grace("day").find)
    lifecycle = Lifecycle(
        statuses=["a", "b"],
        initial="a",
        rows=[
            Row("go", "a", "b", guards=Guard("shut", lambda _: False, "it is shut")),
            Row("jump", "a", "b", guards=broken),
            Row("drift", "a", "b", deadline=faulty),
            Row("wait", "a", "b", deadline=after_grace("some")),
            Row("leave", "a", "b", ending=True),
        ],
        graces={"some": 60},
    )
    refusal = explain(state_in("a"), "go", at=AT, lifecycle=lifecycle)
    assert refusal is not None
    assert refusal.failed_guards == (FailedGuard("shut", "it is shut"),)
    assert refusal.permitted == ("leave",)
    assert refusal.next_timed == ("wait", AT + MINUTE)
    assert refusal.broken == (
        "guard 'broken' of 'jump' raised ZeroDivisionError: division by zero",
        "guard 'deadline passed' of 'drift' raised KeyError: 'day'",
    )
    assert str(refusal).endswith("; ".join(refusal.broken))
    with pytest.raises(GuardRejectedError) as caught:
        step(state_in("a"), "go", at=AT, lifecycle=lifecycle)
    assert caught.value.refusal == refusal
    for ask in (permitted, next_timed):
        with pytest.raises(GuardError):
            ask(state_in("a"), lifecycle=lifecycle)


def test_explain_faults_of_a_deadline_are_told_once() -> None:
    """A deadline that raises is one fault of its row, whether it is fired, explained or listed."""
    faulty = Deadline("some day", after_grace("day").find)
    lifecycle = gate(lambda _: True, deadline=faulty)
    for ask in (
        lambda: explain(state_in("a"), "go", at=AT, lifecycle=lifecycle),
        lambda: step(state_in("a"), "go", at=AT, lifecycle=lifecycle),
        lambda: permitted(state_in("a"), at=AT, lifecycle=lifecycle),
    ):
        with pytest.raises(GuardError) as caught:
            ask()
        assert (caught.value.guard, caught.value.trigger) == ("deadline passed", "go")
        assert caught.value.problem == "raised KeyError: 'day'"
        assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(GuardError, match=r"guard 'some day' of 'go' raised KeyError: 'day'$"):
        next_timed(state_in("a"), lifecycle)


@pytest.mark.parametrize("task_id", ["", 5, [], None, "a\nb", "\udcff"])
@pytest.mark.parametrize("trigger", ["begin_task", "end_task"])
def test_explain_bad_arguments_are_the_mistake_of_whoever_asks(trigger: str, task_id: Any) -> None:
    """An argument that no state could hold is told alike by a dry run and by the move itself."""
    told = []
    for ask in (explain, step):
        with pytest.raises(StateInvalidError) as caught:
            ask(state_in("active"), trigger, at=AT, task_id=task_id)
        told.append(caught.value.problems)
    assert told[0] == told[1]
    assert told[0][0].startswith("task_id: ")
    assert trigger not in permitted(state_in("active"), at=AT, task_id=task_id)


# --- what is permitted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "at", "expected"),
    [
        (state_in("initializing"), AT, "activate abort update"),
        (state_in("initializing"), AT + MINUTE, "abort start_timeout update"),
        (
            state_in("active"),
            AT,
            "go_idle terminate begin_task end_task start_conversation touch update",
        ),
        (state_in("active"), AT + 30 * MINUTE, "go_idle terminate expire end_task update"),
        (
            state_in("active", active_tasks=["t"]),
            AT + 30 * MINUTE,
            "terminate begin_task end_task start_conversation touch update",
        ),
        (state_in("idle"), AT, "resume terminate touch update"),
        (state_in("idle"), AT + 30 * MINUTE, "terminate expire update"),
        (state_in("terminating"), AT, "finish end_task update"),
        (state_in("terminating", active_tasks=["t"]), AT, "end_task update"),
        (
            state_in("terminating", active_tasks=["t"]),
            AT + MINUTE / 6,
            "stop_timeout end_task update",
        ),
        (state_in("terminated"), AT + MINUTE, ""),
    ],
)
def test_explain_permitted_triggers(state: SessionState, at: datetime, expected: str) -> None:
    """What is permitted is told in the table's order, timed rows that are due among it."""
    assert permitted(state, at=at) == tuple(expected.split())


def test_explain_permitted_asks_with_arguments() -> None:
    """With an argument given, the guards that need it are asked."""
    busy = state_in("active", active_tasks=["t"])
    assert "begin_task" in permitted(busy, at=AT)
    assert "begin_task" not in permitted(busy, at=AT, task_id="t")
    assert "end_task" in permitted(busy, at=AT, task_id="t")
    assert "end_task" not in permitted(busy, at=AT, task_id="u")


# --- what fires by itself --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (state_in("initializing"), ("start_timeout", AT + MINUTE)),
        (state_in("active"), ("expire", AT + 30 * MINUTE)),
        (state_in("idle", config={"timeout_minutes": 1}), ("expire", AT + MINUTE)),
        (state_in("idle", config={"timeout_minutes": None}), None),
        (state_in("active", active_tasks=["t"]), None),
        (state_in("terminating", active_tasks=["t"]), ("stop_timeout", AT + MINUTE / 6)),
        (state_in("terminated"), None),
        (state_in("lost"), None),
        # The clock runs from the last activity, not from the last change.
        (
            state_in("idle", updated_at=AT + 40 * MINUTE, last_activity_at=AT),
            ("expire", AT + 30 * MINUTE),
        ),
    ],
)
def test_explain_next_timed(state: SessionState, expected: tuple[str, datetime] | None) -> None:
    """The next row that fires by itself is told with its instant; tasks stop the idle clock."""
    assert next_timed(state) == expected


def two_clocks(first: timedelta, second: timedelta, *guards: Guard) -> Lifecycle:
    """A lifecycle in which two rows fire by themselves; the first one may have guards."""
    rows = [
        Row("one", "a", "b", deadline=after_grace("first"), guards=guards),
        Row("two", "a", "b", deadline=after_grace("second")),
        Row("never", "a", "b", deadline=Deadline("never", lambda _: None)),
    ]
    graces = {"first": first, "second": second}
    return Lifecycle(statuses=["a", "b"], initial="a", rows=rows, graces=graces)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (MINUTE, 2 * MINUTE, ("one", MINUTE)),
        (2 * MINUTE, MINUTE, ("two", MINUTE)),
        (MINUTE, MINUTE, ("one", MINUTE)),
    ],
)
def test_explain_next_timed_is_the_earliest(
    first: timedelta, second: timedelta, expected: tuple[str, timedelta]
) -> None:
    """Of several clocks the earliest is told; on a tie the first row of the table."""
    found = next_timed(state_in("a"), two_clocks(first, second))
    assert found == (expected[0], AT + expected[1])


def test_explain_next_timed_leaves_out_guarded_clocks() -> None:
    """A clock that a guard stops is no clock, also where it would be the first of a tie."""
    shut = Guard("shut", lambda _: False, "never")
    for second in (MINUTE, 2 * MINUTE):
        lifecycle = two_clocks(MINUTE, second, shut)
        assert next_timed(state_in("a"), lifecycle) == ("two", AT + second)


def test_explain_next_timed_asks_guards_as_of_the_deadline() -> None:
    """A guard is asked for the instant of the deadline, not for now."""
    seen: list[datetime] = []

    def check(shown: Attempt) -> bool:
        seen.append(shown.at)
        return True

    lifecycle = two_clocks(MINUTE, 2 * MINUTE, Guard("watch", check, "never"))
    assert next_timed(state_in("a"), lifecycle) == ("one", AT + MINUTE)
    assert seen == [AT + MINUTE]


def test_explain_deadlines_beyond_the_calendar_never_come() -> None:
    """A time-out that would end after the year 9999 never ends, and refuses nothing."""
    end = datetime.max.replace(tzinfo=UTC)
    fields: dict[str, Any] = {"session_id": "s", "created_at": end, "updated_at": end}
    for status in SessionStatus:
        state = SessionState(status=status, **fields)
        assert next_timed(state) is None
        assert not {"expire", "start_timeout", "stop_timeout"} & set(permitted(state, at=end))
    assert explain(SessionState(status="idle", **fields), "resume", at=end) is None
    refusal = explain(SessionState(status="idle", **fields), "expire", at=end)
    assert refusal is not None
    assert refusal.failed_guards == (
        FailedGuard("deadline passed", "no deadline runs (last_activity_at + timeout_minutes)"),
    )
    last = SessionState(status="idle", **fields | {"config": {"timeout_minutes": 527_040_000}})
    assert next_timed(last) is None


# --- exactly at the deadline -----------------------------------------------------------------

NUDGES = pytest.mark.parametrize(
    ("nudge", "due"),
    [(-MICROSECOND, False), (timedelta(0), True), (MICROSECOND, True)],
    ids=["before", "at", "after"],
)


@NUDGES
@pytest.mark.parametrize(
    ("status", "trigger"),
    [
        ("idle", "resume"),
        ("idle", "touch"),
        ("active", "touch"),
        ("active", "begin_task"),
        ("active", "start_conversation"),
    ],
)
def test_explain_expired_sessions_are_over(
    status: str, trigger: str, nudge: timedelta, due: bool
) -> None:
    """From its deadline on, to the microsecond, a session can't be used; expire is then due."""
    state = state_in(status)
    at = AT + 30 * MINUTE + nudge
    assert (explain(state, trigger, at=at) is not None) is due
    assert (explain(state, "expire", at=at) is None) is due
    for allowed in ("terminate", "update"):
        assert explain(state, allowed, at=at) is None
    assert explain(state_in(status, config={"timeout_minutes": None}), trigger, at=at) is None


@pytest.mark.parametrize("trigger", ["touch", "begin_task", "start_conversation"])
def test_explain_tasks_stop_the_idle_clock(trigger: str) -> None:
    """With a task in flight nothing expires, however long it takes."""
    busy = state_in("active", active_tasks=["t"])
    for at in (AT, AT + 30 * MINUTE, AT + timedelta(days=400)):
        assert explain(busy, trigger, at=at) is None
        assert explain(busy, "expire", at=at) is not None


@NUDGES
@pytest.mark.parametrize(
    ("status", "deadline", "opens", "closes"),
    [
        ("initializing", MINUTE, "start_timeout", "activate"),
        ("terminating", MINUTE / 6, "stop_timeout", None),
    ],
)
def test_explain_graces_end_exactly(
    status: str,
    deadline: timedelta,
    opens: str,
    closes: str | None,
    nudge: timedelta,
    due: bool,
) -> None:
    """From the end of a grace on the time-out is due, and starting is over; ending never is."""
    state = state_in(status)
    at = AT + deadline + nudge
    assert (explain(state, opens, at=at) is None) is due
    if closes is not None:
        assert (explain(state, closes, at=at) is not None) is due
    else:
        assert explain(state, "finish", at=at) is None


@NUDGES
def test_explain_graces_run_from_the_status(nudge: timedelta, due: bool) -> None:
    """A grace is counted from when the status began, whatever was changed since."""
    state = state_in("terminating", updated_at=AT + MINUTE / 7, status_since=AT)
    assert (explain(state, "stop_timeout", at=AT + MINUTE / 6 + nudge) is None) is due


def test_explain_live_rows_are_open_in_each_live_status() -> None:
    """Data may be changed in every status but the final one."""
    for status in SessionStatus:
        refusal = explain(state_in(status), "update", at=AT, metadata={"a": 1})
        assert (refusal is None) is (status in SESSION_LIFECYCLE.live)
    assert any(row.sources is LIVE for row in SESSION_LIFECYCLE.rows)
    assert isinstance(state_in("idle").metadata, JsonObject)
