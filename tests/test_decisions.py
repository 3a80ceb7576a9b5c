"""Decisions on their own: pure functions of a draft, with no store and nobody to tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managing import START

from session_fsm import (
    SESSION_LIFECYCLE,
    InvalidTransitionError,
    Lifecycle,
    LifecycleError,
    Row,
    SessionMachine,
    SessionState,
    StateInvalidError,
    is_valid_transition,
    validate,
)
from session_fsm.decisions import (
    BeginTask,
    Decision,
    Draft,
    Fire,
    MoveTo,
    Touch,
    Update,
    cause_in_words,
    rest,
    settle,
)
from session_fsm.endings import Fail, FireDue, Recover, StopDone, Terminate, drop_tasks
from session_fsm.explain import next_timed
from session_fsm.stores import MemoryStore
from session_fsm.stores.records import Work
from session_fsm.testing import states
from session_fsm.work import work_of

WORKER = Work("worker")


def state(status: str, *, tasks: Iterable[str] = (), **fields: Any) -> SessionState:
    """Return a state of a session."""
    return SessionState(
        session_id="a",
        status=SESSION_LIFECYCLE.status(status),
        created_at=START,
        updated_at=START,
        active_tasks=tuple(tasks),
        **fields,
    )


def draft(
    session: SessionState,
    *,
    at: datetime = START,
    work: Iterable[Work] = (),
    auto_idle: bool = True,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
) -> Draft:
    """Return a draft of a session."""
    return Draft(SessionMachine(session, lifecycle), at, WorkIn(work), auto_idle, "owner")


class WorkIn(MemoryStore):
    """A store that tells of some work, and counts how often it was asked."""

    def __init__(self, work: Iterable[Work]) -> None:
        super().__init__()
        self.work = tuple(work)
        self.asked = 0

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        self.asked += 1
        return self.work


def decided(decision: Decision, session: SessionState, **options: Any) -> list[str | None]:
    """Return what a decision fires."""
    made = draft(session, **options)
    decision(made)
    return [step.trigger for step in made.steps]


# --- drafts ----------------------------------------------------------------------------------


def test_decisions_draft_collects_steps() -> None:
    """Each step has the state before and after, at the draft's instant, and its reason."""
    at = START + timedelta(seconds=5)
    made = draft(state("active"), at=at)
    made.fire("begin_task", task_id="t", reason="why")
    made.fire("end_task", task_id="t")
    made.fire("go_idle")
    first, second, third = made.steps
    assert (first.trigger, first.moves, first.reason) == ("begin_task", False, "why")
    assert (third.trigger, third.moves, third.reason) == ("go_idle", True, None)
    assert first.after is second.before
    assert second.after is third.before
    assert third.after is made.state
    assert made.state.updated_at == at


def test_decisions_draft_that_is_refused_collects_nothing() -> None:
    """A refused step is none."""
    made = draft(state("idle"))
    with pytest.raises(InvalidTransitionError):
        made.fire("go_idle")
    with pytest.raises(StateInvalidError, match="reason"):
        made.fire("resume", reason="x" * 70_000)
    assert made.steps == []
    assert made.state == state("idle")


def test_decisions_draft_asks_for_work_when_it_is_needed() -> None:
    """Whether a worker runs is asked at the time of the decision, less what was let go of."""
    store = WorkIn([WORKER])
    made = Draft(SessionMachine(state("terminating")), START, store, True, "owner")
    assert store.asked == 0
    assert made.has_worker()
    assert store.asked == 1
    made.let_go.add(WORKER)
    assert not made.has_worker()


# --- what follows by itself ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "work", "fired"),
    [
        (state("terminating"), (), ["finish"]),
        (state("terminating", tasks="t"), (), []),
        (state("terminating"), (WORKER,), []),
        (state("active"), (), []),
        (state("idle"), (), []),
        (state("initializing"), (), []),
        (state("terminated"), (), []),
    ],
)
def test_decisions_settle(session: SessionState, work: tuple[Work, ...], fired: list[str]) -> None:
    """Only a session midway out, with nothing to wait for, goes on."""
    assert decided(settle, session, work=work) == fired


def test_decisions_settle_goes_all_the_way() -> None:
    """A way out with several stations is gone in one go."""
    long_way = Lifecycle(
        statuses=("up", "closing", "cleaning", "gone"),
        initial="up",
        rows=(
            Row("close", "up", "closing", ending=True),
            Row("clean", "closing", "cleaning", ending=True),
            Row("go", "cleaning", "gone", ending=True),
        ),
        name="long way",
    )
    session = SessionState(session_id="a", status="up", created_at=START, updated_at=START)
    assert decided(Terminate(), session, lifecycle=long_way) == ["close", "clean", "go"]
    assert decided(Terminate(), session, lifecycle=long_way, work=(WORKER,)) == ["close"]
    assert decided(Fail("x"), session, lifecycle=long_way, work=(WORKER,)) == [
        "close",
        "clean",
        "go",
    ]


@pytest.mark.parametrize(
    ("session", "fired"),
    [
        (state("active"), ["go_idle"]),
        (state("active", tasks="t"), []),
        (state("idle"), []),
        (state("terminating"), []),
    ],
)
def test_decisions_rest(session: SessionState, fired: list[str]) -> None:
    """Only an active session without tasks is put to rest."""
    assert decided(rest, session) == fired


# --- verbs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "auto_idle", "fired"),
    [
        (state("active", tasks="t"), True, ["end_task", "go_idle"]),
        (state("active", tasks="t"), False, ["end_task"]),
        (state("active", tasks="tu"), True, ["end_task"]),
        (state("terminating", tasks="t"), True, ["end_task", "finish"]),
        (state("terminating", tasks="t"), False, ["end_task", "finish"]),
        (state("terminating", tasks="tu"), True, ["end_task"]),
    ],
)
def test_decisions_end_of_a_task(session: SessionState, auto_idle: bool, fired: list[str]) -> None:
    """What follows from the end of a task depends on whether it was the last one."""
    decision = Fire("end_task", arguments={"task_id": "t"})
    assert decided(decision, session, auto_idle=auto_idle) == fired


def test_decisions_other_triggers_put_nobody_to_rest() -> None:
    """Only the end of a task lets a session rest by itself."""
    assert decided(Fire("touch"), state("active")) == ["touch"]
    assert decided(Fire("resume"), state("idle")) == ["resume"]
    assert decided(Update({"metadata": {}}), state("active")) == ["update"]


def test_decisions_move_to() -> None:
    """A target is reached by its one row; what follows, follows."""
    assert decided(MoveTo("idle"), state("active")) == ["go_idle"]
    assert decided(MoveTo("terminating"), state("active")) == ["terminate", "finish"]
    assert decided(MoveTo("terminating"), state("idle"), work=(WORKER,)) == ["terminate"]
    with pytest.raises(InvalidTransitionError):
        decided(MoveTo("idle"), state("idle"))


def test_decisions_begin_task() -> None:
    """An idle session is woken first; another one is asked directly."""
    assert decided(BeginTask("t"), state("active")) == ["begin_task"]
    assert decided(BeginTask("t"), state("idle")) == ["resume", "begin_task"]
    for status in ("initializing", "terminating", "terminated"):
        with pytest.raises(InvalidTransitionError):
            decided(BeginTask("t"), state(status))


@pytest.mark.parametrize(
    ("after_seconds", "resolution", "fired"),
    [
        (0, 0, ["touch"]),
        (-5, 0, ["touch"]),
        (0, 1, []),
        (-5, 1, []),
        (1, 2, []),
        (2, 2, ["touch"]),
        (3, 2, ["touch"]),
    ],
)
def test_decisions_touch(after_seconds: float, resolution: float, fired: list[str]) -> None:
    """A touch is skipped if it is nearer to the last activity than the resolution."""
    at = START + timedelta(seconds=after_seconds)
    assert decided(Touch(timedelta(seconds=resolution)), state("idle"), at=at) == fired


def test_decisions_update_calls_functions_once() -> None:
    """Each function is called with the present value of its field, once for a decision."""
    calls: list[object] = []

    def change(value: Any) -> Any:
        calls.append(value)
        return {**value, "n": 2}

    made = draft(state("active", metadata={"n": 1}, llm_config={"m": 1}))
    Update({"metadata": change, "error": "x"})(made)
    assert calls == [{"n": 1}]
    assert made.state.metadata == {"n": 2}
    assert made.state.llm_config == {"m": 1}
    assert made.state.error == "x"


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "work", "fired"),
    [
        (state("initializing"), (), ["abort"]),
        (state("initializing"), (WORKER,), ["abort"]),
        (state("active"), (), ["terminate", "finish"]),
        (state("active"), (WORKER,), ["terminate"]),
        (state("active", tasks="t"), (), ["terminate"]),
        (state("idle"), (), ["terminate", "finish"]),
        (state("terminating"), (), ["finish"]),
        (state("terminating", tasks="t"), (), []),
        (state("terminated"), (), []),
    ],
)
def test_decisions_terminate(
    session: SessionState, work: tuple[Work, ...], fired: list[str]
) -> None:
    """The way out is begun, and gone as far as it is open."""
    assert decided(Terminate("why"), session, work=work) == fired


@given(states(), st.text(max_size=200) | st.text("x\x00\ud800", max_size=50), st.booleans())
def test_decisions_fail_ends_any_session(
    session: SessionState, cause: str, has_worker: bool
) -> None:
    """From any state, by legal edges alone, to the end, with the cause and what was dropped."""
    made = draft(session, at=session.updated_at, work=(WORKER,) if has_worker else ())
    Fail(cause_in_words(cause))(made)
    assert made.state.status == "terminated"
    validate(made.state)
    assert made.state.active_tasks == ()
    statuses = [session.status, *(step.after.status for step in made.steps)]
    for before, after in itertools.pairwise(statuses):
        assert before == after or is_valid_transition(before, after)
    if made.steps and session.active_tasks:
        assert made.state.error is not None
        assert f"{len(session.active_tasks)} task" in made.state.error
    if not made.steps:
        assert session.status == "terminated"


@given(states())
def test_decisions_due_rows_fire_at_their_deadline(session: SessionState) -> None:
    """Whatever is due fires at its deadline, and not a microsecond before."""
    timed = next_timed(session)
    if timed is None:
        fired = decided(FireDue(), session, at=session.updated_at + timedelta(days=10))
        assert fired in ([], ["finish"])
        return
    trigger, due = timed
    if due > session.updated_at:
        early = decided(FireDue(), session, at=due - timedelta(microseconds=1))
        assert trigger not in early
    if session.status != "terminating" or session.active_tasks:
        assert decided(FireDue(), session, at=max(due, session.updated_at))[0] == trigger


def test_decisions_stop_done() -> None:
    """When the worker has stopped the way out is gone on with; until then it waits for it."""
    assert decided(settle, state("terminating"), work=(WORKER,)) == []
    assert decided(StopDone(), state("terminating"), work=(WORKER,)) == ["finish"]
    assert decided(StopDone(), state("terminating", tasks="t"), work=(WORKER,)) == []
    assert decided(StopDone(), state("active"), work=(WORKER,)) == []


def test_decisions_drop_tasks_names_each() -> None:
    """Each dropped task is a step with the reason."""
    made = draft(state("active", tasks="xyz"))
    drop_tasks(made, ("x", "z"), reason="gone")
    assert [step.reason for step in made.steps] == ["dropped: gone"] * 2
    assert made.state.active_tasks == ("y",)


@pytest.mark.parametrize(
    ("session", "left", "work", "fired"),
    [
        (state("active", tasks="t"), (Work("task", "t"),), (), ["end_task", "go_idle"]),
        (state("active", tasks="tu"), (Work("task", "t"),), (), ["end_task"]),
        (state("active", tasks="t"), (Work("task", "x"),), (), []),
        (state("active"), (WORKER,), (WORKER,), ["go_idle"]),
        (state("initializing"), (Work("start"),), (), ["abort"]),
        (state("initializing"), (), (), []),
        (state("active"), (Work("start"),), (), []),
        (state("terminating"), (Work("stop"), WORKER), (WORKER,), ["finish"]),
        (state("terminating"), (Work("stop"),), (WORKER,), []),
        (state("terminating", tasks="t"), (Work("stop"),), (), []),
        (state("terminating", tasks="t"), (Work("task", "t"),), (), ["end_task", "finish"]),
        (state("terminated"), (WORKER,), (WORKER,), []),
    ],
)
def test_decisions_recover(
    session: SessionState, left: tuple[Work, ...], work: tuple[Work, ...], fired: list[str]
) -> None:
    """Only what the dead have left is cleared away, and what follows from that."""
    assert decided(Recover(lambda: left, "dead"), session, work=work, auto_idle=False) == fired


def test_decisions_work_of() -> None:
    """Tasks, a start and a stop show in the state itself; a worker does not."""
    assert work_of(None, SESSION_LIFECYCLE) == frozenset()
    assert work_of(state("initializing"), SESSION_LIFECYCLE) == {Work("start")}
    assert work_of(state("active", tasks="tu"), SESSION_LIFECYCLE) == {
        Work("task", "t"),
        Work("task", "u"),
    }
    assert work_of(state("terminating", tasks="t"), SESSION_LIFECYCLE) == {
        Work("stop"),
        Work("task", "t"),
    }
    for status in ("idle", "terminated"):
        assert work_of(state(status), SESSION_LIFECYCLE) == frozenset()
    started = SESSION_LIFECYCLE.extend(name="started")
    object.__setattr__(started, "roles", {})
    assert work_of(state("initializing"), started) == frozenset()


@pytest.mark.parametrize(
    "decision",
    [BeginTask("t"), Touch(timedelta(0)), Update({}), Fire("end_task", arguments={"task_id": "t"})],
)
def test_decisions_need_their_role(decision: Decision) -> None:
    """Without its role a verb is a fault; a trigger that is fired by name is merely unknown."""
    bare = SESSION_LIFECYCLE.without("begin_task", "end_task", "touch", "update", name="bare")
    error = InvalidTransitionError if isinstance(decision, Fire) else LifecycleError
    with pytest.raises(error):
        decided(decision, state("active"), lifecycle=bare)


@given(st.text(st.characters(), max_size=100) | st.just("x" * 200_000))
def test_decisions_cause_in_words_can_be_kept(text: str) -> None:
    """Whatever a cause is made of, its words are an error and a reason that can be stored."""
    for cause in (text, ValueError(text), KeyError(text)):
        words = cause_in_words(cause)
        made = draft(state("active"))
        made.fire("update", error=words, reason=f"dropped: {words}")
        assert made.state.error == words
