"""`LifecycleRules` finds nothing wrong with our own lifecycles, and takes what users say."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from managing import START
from rule_cases import AgentRules, Counted, OnSqlite, OrderRules, run, with_row

from session_fsm import (
    SESSION_LIFECYCLE,
    Attempt,
    LifecycleError,
    Row,
    SessionManager,
)
from session_fsm.clock import ManualClock
from session_fsm.testing import LifecycleRules
from session_fsm.testing.arguments import Arguments
from session_fsm.testing.rules_oracle import Oracle

# --- our own lifecycles ----------------------------------------------------------------------


class SessionsInMemory(Counted):
    fired: ClassVar[Counter[tuple[str, str]]] = Counter()


class AgentsInMemory(Counted, AgentRules):
    fired: ClassVar[Counter[tuple[str, str]]] = Counter()


class OrdersInMemory(Counted, OrderRules):
    fired: ClassVar[Counter[tuple[str, str]]] = Counter()


class SessionsOnSqlite(OnSqlite):
    """Sessions in a file."""


class AgentsOnSqlite(OnSqlite, AgentRules):
    """Agents in a file."""


class OrdersOnSqlite(OnSqlite, OrderRules):
    """Orders in a file."""


@pytest.mark.parametrize("rules", [SessionsInMemory, AgentsInMemory, OrdersInMemory])
def test_rules_lead_through_the_rows(rules: type[Counted]) -> None:
    """The rules find nothing wrong with our lifecycles, and fire four rows of five at least."""
    run(rules, examples=120, steps=40)
    rows = [(row.trigger, str(source)) for row, source in rules.lifecycle.moves()]
    fired = {(trigger, str(source)) for trigger, source in rules.fired}
    missing = [row for row in rows if row not in fired]
    assert len(missing) <= len(rows) / 5, missing


def test_rules_foresee_no_timed_row_of_a_session_that_has_ended() -> None:
    """Where the last task is dropped late enough for two timed rows, the way out ends with one."""
    clock = ManualClock(START)
    with SessionManager(clock=clock) as manager:
        manager.create("s")
        manager.begin_task("s", "hangs", timeout_seconds=1)
        ending = manager.terminate("s", wait=False).state
        clock.advance(timedelta(minutes=1))
        oracle = Oracle(SESSION_LIFECYCLE, clock.now())
        foreseen = oracle.foresee(ending, oracle.sweep)
        manager.sweep()
        fired = [event.trigger for event in manager.history("s")]
        assert manager.get("s").state == foreseen.state
    assert [move.trigger for move in foreseen.moves] == fired[-2:] == ["task_timeout", "finish"]
    assert foreseen.fault is None


TestSessionsOnSqlite = SessionsOnSqlite.TestCase
TestAgentsOnSqlite = AgentsOnSqlite.TestCase
TestOrdersOnSqlite = OrdersOnSqlite.TestCase
_FEW = settings(max_examples=12, stateful_step_count=30)
TestSessionsOnSqlite.settings = TestAgentsOnSqlite.settings = TestOrdersOnSqlite.settings = _FEW


# --- what a user may say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "needs 'by', 'note': give a strategy for it"),
        ({"sign": {"by": st.text()}}, "needs 'note': give a strategy for it"),
        ({"sign": {"by": st.text(), "note": st.text(), "no": st.text()}}, "'sign' takes no 'no'"),
        ({"sing": {}}, "there is no trigger 'sing'"),
    ],
)
def test_rules_name_what_arguments_lack(arguments: Any, problem: str) -> None:
    """An argument without a strategy, and a strategy for nothing, are named before anything."""
    given = arguments

    class Rules(LifecycleRules):
        lifecycle = with_row(Row("sign", "active", None, required=("by", "note")))
        arguments = given

    with pytest.raises(LifecycleError) as caught:
        Rules()
    assert problem in str(caught.value)


def test_rules_take_functions_of_the_state() -> None:
    """Strategies may depend on the state: for one argument, or for all of a trigger."""
    seen: list[tuple[object, object]] = []

    def noted(attempt: Attempt) -> dict[str, Any]:
        seen.append((attempt.arguments["by"], attempt.arguments["note"]))
        return {}

    row = Row("sign", "active", None, required=("by", "note"), effect=noted)

    class OneByOne(LifecycleRules):
        lifecycle = with_row(row)
        arguments: ClassVar[Arguments] = {
            "sign": {"by": lambda state: st.just(state.session_id), "note": st.just(1)}
        }

    class AllAtOnce(LifecycleRules):
        lifecycle = with_row(row)
        arguments: ClassVar[Arguments] = {
            "sign": lambda state: st.just({"by": state.session_id, "note": 1})
        }

    for rules in (OneByOne, AllAtOnce):
        seen.clear()
        run(rules, examples=20)
        assert {by for by, _ in seen} <= {"a", "b", "c", "d"}
        assert seen
