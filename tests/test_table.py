"""The one table: row by row what the lifecycle of a session is described to be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import model
import pytest

from session_fsm.errors import InvalidTransitionError, LifecycleError, StateInvalidError
from session_fsm.explain import is_valid_transition
from session_fsm.fields import MAX_ERROR_CHARACTERS
from session_fsm.lifecycle import LIVE, ROLES
from session_fsm.machine import step, transition
from session_fsm.state import SessionState, SessionStatus
from session_fsm.table import SESSION_LIFECYCLE, dropped_in_words, error_with, tasks_in_words

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)

# trigger | from | to | guards | fires by itself | activity | ending | arguments
DESCRIBED = """
activate           | initializing       | active      | start deadline not passed   |                      | activity |        |
abort              | initializing       | terminated  |                             |                      |          | ending | error
start_timeout      | initializing       | terminated  | deadline passed             | status_since + start grace | | | error
go_idle            | active             | idle        | no active task              |                      |          |        |
resume             | idle               | active      | not expired                 |                      | activity |        |
terminate          | active, idle       | terminating |                             |                      |          | ending | error
expire             | active, idle       | terminating | no active task; deadline passed | last_activity_at + timeout_minutes | | |
finish             | terminating        | terminated  | no active task              |                      |          | ending | error
stop_timeout       | terminating        | terminated  | deadline passed             | status_since + stop grace | | | error
begin_task         | active             |             | not already active; not expired |                  | activity |        | task_id!, timeout_seconds
end_task           | active, terminating |            | is active                   |                      | activity |        | task_id!
task_timeout       | active, terminating |            | deadline passed             | begin of a task + its limit | activity | | error
start_conversation | active             |             | below max_conversations; not expired |             | activity |        |
touch              | active, idle       |             | not expired                 |                      | activity |        |
update             | LIVE               |             |                             |                      |          |        | config, llm_config, metadata, error
""".strip()  # noqa: E501 - a table


@pytest.mark.parametrize("line", DESCRIBED.splitlines(), ids=lambda line: line.partition(" ")[0])
def test_table_row_is_as_described(line: str) -> None:
    """Each row has the sources, target, guards, deadline, marks and arguments described."""
    trigger, sources, target, guards, deadline, activity, ending, arguments = (
        cell.strip() for cell in line.split("|")
    )
    (row,) = (row for row in SESSION_LIFECYCLE.rows if row.trigger == trigger)
    assert ("LIVE" if row.sources is LIVE else ", ".join(row.sources)) == sources
    assert (row.target or "") == target
    assert "; ".join(guard.name for guard in row.conditions) == guards
    assert (row.deadline.name if row.deadline else "") == deadline
    assert (row.activity, row.ending) == (bool(activity), bool(ending))
    assert ", ".join((*(f"{name}!" for name in row.required), *row.optional)) == arguments
    assert row.why


def test_table_rows_are_those_described() -> None:
    """The rows stand in the order of the description, and no other row is there."""
    described = tuple(line.partition(" ")[0] for line in DESCRIBED.splitlines())
    assert tuple(row.trigger for row in SESSION_LIFECYCLE.rows) == described == model.TRIGGERS
    assert SESSION_LIFECYCLE.triggers == described
    assert SESSION_LIFECYCLE.statuses == model.STATUSES == tuple(SessionStatus)


def test_table_has_exactly_seven_edges() -> None:
    """The status graph has the seven edges, and active to terminated is none of them."""
    assert SESSION_LIFECYCLE.edges == (
        ("initializing", "active"),
        ("initializing", "terminated"),
        ("active", "idle"),
        ("active", "terminating"),
        ("idle", "active"),
        ("idle", "terminating"),
        ("terminating", "terminated"),
    )
    legal = {
        (source, target)
        for source in model.STATUSES
        for target in model.STATUSES
        if is_valid_transition(source, target)
    }
    assert legal == set(SESSION_LIFECYCLE.edges)
    assert ("active", "terminated") not in legal


def test_table_ends_where_it_must() -> None:
    """Terminated alone is final, a life begins with initializing, and none can be stuck."""
    assert SESSION_LIFECYCLE.initial is SessionStatus.INITIALIZING
    assert SESSION_LIFECYCLE.final == (SessionStatus.TERMINATED,)
    ways = {
        status: [row.trigger for row in SESSION_LIFECYCLE.way_out(status)]
        for status in SESSION_LIFECYCLE.statuses
    }
    assert ways == {
        "initializing": ["abort"],
        "active": ["terminate", "finish"],
        "idle": ["terminate", "finish"],
        "terminating": ["finish"],
        "terminated": [],
    }
    assert SESSION_LIFECYCLE.drains == {SessionStatus.TERMINATING}


def test_table_plays_every_role() -> None:
    """Each role that a manager may play has its trigger, and graces are those described."""
    assert tuple(SESSION_LIFECYCLE.roles) == ROLES
    assert tuple(SESSION_LIFECYCLE.roles.values()) == (
        *("activate", "go_idle", "resume", "begin_task", "end_task", "start_conversation"),
        *("touch", "update"),
    )
    assert SESSION_LIFECYCLE.graces == {"start": model.START_GRACE, "stop": model.STOP_GRACE}
    assert SESSION_LIFECYCLE.name == "session"


def test_table_lets_two_statuses_hold_tasks() -> None:
    """Tasks are in flight while a session is active, or is being ended."""
    holding = tuple(filter(SESSION_LIFECYCLE.holds_tasks, SESSION_LIFECYCLE.statuses))
    assert holding == model.TASK_STATUSES


def test_table_edges_have_one_hand_fired_row_each() -> None:
    """Between any two statuses lies at most one row that is fired by hand."""
    by_hand = {
        (source, target): row.trigger
        for source, target in SESSION_LIFECYCLE.edges
        if (row := SESSION_LIFECYCLE.by_hand(source, target))
    }
    assert list(by_hand.values()) == [
        *("activate", "abort", "go_idle", "terminate", "resume", "terminate", "finish"),
    ]


def test_table_crash_goes_through_terminating() -> None:
    """An active session can't be terminated in one step, only in two."""
    state = SessionState(session_id="s", status="active", created_at=AT, updated_at=AT)
    with pytest.raises(InvalidTransitionError, match=r"no row leads from 'active' to 'terminated'"):
        transition(state, "terminated", at=AT)
    ending = transition(state, "terminating", at=AT, error="it crashed")
    ended = transition(ending, "terminated", at=AT)
    assert (ending.error, ended.error, ended.status) == ("it crashed",) * 2 + ("terminated",)


# --- what is told ----------------------------------------------------------------------------


def test_table_tasks_are_told_in_words() -> None:
    """One task, several and many are told by number and name, ten names at most."""
    assert tasks_in_words(("build",)) == "1 task is active: build"
    assert tasks_in_words(("a", "b")) == "2 tasks are active: a, b"
    many = tuple(f"t{number}" for number in range(12))
    told = "12 tasks are active: t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 2 more"
    assert tasks_in_words(many) == told
    assert tasks_in_words(many[:10]).endswith(", t9")


def test_table_dropped_tasks_are_told_in_words() -> None:
    """Tasks that were dropped are told by number and name, a hundred names at most."""
    assert dropped_in_words(("build",)) == "1 task dropped: build"
    assert dropped_in_words(("a", "b")) == "2 tasks dropped: a, b"
    many = tuple(f"t{number}" for number in range(101))
    assert dropped_in_words(many).endswith(", t98, t99 and 1 more")


@pytest.mark.parametrize(
    ("trigger", "status", "error", "told"),
    [
        ("abort", "initializing", None, "the start failed"),
        ("abort", "initializing", "", "the start failed"),
        ("abort", "initializing", "no image", "no image"),
        ("start_timeout", "initializing", None, "the start did not end within 60 s"),
        ("start_timeout", "initializing", "slow disk", "slow disk"),
        ("terminate", "active", None, None),
        ("terminate", "idle", "bye", "bye"),
        ("finish", "terminating", None, None),
        ("finish", "terminating", "late news", "late news"),
        ("stop_timeout", "terminating", None, "the stop did not end within 10 s"),
        ("stop_timeout", "terminating", "hung", "hung"),
    ],
)
def test_table_moves_tell_their_error(
    trigger: str, status: str, error: str | None, told: str | None
) -> None:
    """A move keeps the error that it is given, or has words of its own where it must tell one."""
    late = AT + timedelta(hours=1)
    for before in (None, "what was known"):
        state = SessionState(
            session_id="s", status=status, created_at=AT, updated_at=AT, error=before
        )
        arguments: dict[str, Any] = {} if error is None else {"error": error}
        after = step(state, trigger, at=late, **arguments)
        assert after.error == ("; ".join(filter(None, (before, told))) or None)


def test_table_stop_timeout_names_what_it_drops() -> None:
    """The tasks that were waited for in vain are gone, and each is named in the error."""
    state = SessionState(
        session_id="s", status="terminating", created_at=AT, updated_at=AT, active_tasks=["a", "b"]
    )
    after = step(state, "stop_timeout", at=AT + timedelta(seconds=10))
    assert after.active_tasks == ()
    assert after.error == "the stop did not end within 10 s; 2 tasks dropped: a, b"


def test_table_derived_graces_are_told() -> None:
    """A lifecycle with other graces waits for those, and says so."""
    hasty = SESSION_LIFECYCLE.extend(graces={"start": 0.5, "stop": 1})
    state = SessionState.new("s", at=AT)
    after = step(state, "start_timeout", at=AT + timedelta(seconds=0.5), lifecycle=hasty)
    assert after.error == "the start did not end within 0.5 s"


@pytest.mark.parametrize("trigger", ["abort", "terminate", "finish", "start_timeout", "update"])
@pytest.mark.parametrize("error", [5, 0, b"x", ["x"], "a\x00", "\ud800"], ids=ascii)
def test_table_bad_errors_are_refused(trigger: str, error: Any) -> None:
    """An error that is no storable text is named as such, and nothing is moved."""
    (row,) = (row for row in SESSION_LIFECYCLE.rows if row.trigger == trigger)
    status = SESSION_LIFECYCLE.sources(row)[0]
    state = SessionState(session_id="s", status=status, created_at=AT, updated_at=AT)
    with pytest.raises(StateInvalidError, match=r"^error: "):
        step(state, trigger, at=AT + timedelta(hours=1), error=error)


def error_state(error: str | None) -> SessionState:
    """A state that has an error."""
    return SessionState.new("s", at=AT).update(error=error, at=AT)


def test_table_errors_add_up_within_their_limit() -> None:
    """Causes are joined, the first first; however long they are, the result can be kept."""
    assert error_with(error_state(None), None) is None
    assert error_with(error_state("a"), None) == "a"
    assert error_with(error_state("a"), "b") == "a; b"
    for before, cause, tasks in [
        ("x" * MAX_ERROR_CHARACTERS, "y" * 100, ()),
        ("x" * MAX_ERROR_CHARACTERS, "y" * MAX_ERROR_CHARACTERS, ("a", "b")),
        (None, "y" * MAX_ERROR_CHARACTERS, ("a", "b")),
        ("x", "y", tuple(f"{number:0>255}" for number in range(10_000))),
    ]:
        told = error_with(error_state(before), cause, tasks)
        assert told is not None
        assert told.startswith((before or cause)[:1000])
        for task in tasks[:100]:
            assert task in told
        assert error_state(told).error == told


def test_table_errors_that_fit_are_whole() -> None:
    """An error of just the longest length is kept whole; one character more is cut."""
    longest = "x" * MAX_ERROR_CHARACTERS
    assert error_with(error_state(None), longest) == longest
    assert error_with(error_state(None), f"{longest}y") == f"{longest[:-1]}…"
    tail = "1 task dropped: t"
    room = MAX_ERROR_CHARACTERS - len(f"; {tail}")
    assert error_with(error_state(None), longest[:room], ("t",)) == f"{longest[:room]}; {tail}"
    cut = error_with(error_state(None), longest[: room + 1], ("t",))
    assert cut == f"{longest[: room - 1]}…; {tail}"


def test_table_lacks_what_it_lacks() -> None:
    """A verb that a derived lifecycle has no role for is an error that names it."""
    with pytest.raises(LifecycleError, match=r"no trigger plays the role 'touch'"):
        SESSION_LIFECYCLE.without("touch").role("touch")
