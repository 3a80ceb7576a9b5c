"""Strategies for states and configurations: valid in any lifecycle, and wide enough."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_cases import AGENT, AGENT_ARGUMENTS, ORDER, ORDER_ARGUMENTS

from session_fsm import (
    SESSION_LIFECYCLE,
    Lifecycle,
    LifecycleError,
    Row,
    SessionConfig,
    SessionState,
    deserialize,
    serialize,
    validate,
)
from session_fsm.testing import configs, reachable_states, states
from session_fsm.testing.arguments import Arguments, modest_configs

LIFECYCLES = (SESSION_LIFECYCLE, AGENT, ORDER)
ARGUMENTS: dict[str, Arguments] = {
    "session": {},
    "agent": AGENT_ARGUMENTS,
    "order": ORDER_ARGUMENTS,
}
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
each_lifecycle = pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=lambda it: it.name)


@each_lifecycle
def test_strategies_give_valid_states(lifecycle: Lifecycle) -> None:
    """Every state is valid in its lifecycle, and comes back from its serialized form."""

    @FEW
    @given(states(lifecycle))
    def check(state: SessionState) -> None:
        validate(state, lifecycle)
        assert deserialize(serialize(state, lifecycle), lifecycle) == state

    check()


def test_strategies_give_every_format() -> None:
    """A state is found in each format, the newest one with limits of tasks and without."""
    seen: set[tuple[int, bool]] = set()

    @settings(max_examples=500, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(states(status="active"))
    def look(state: SessionState) -> None:
        seen.add((serialize(state)["format"], bool(state.task_deadlines)))

    look()
    assert seen == {(1, False), (2, True), (3, False), (3, True)}


@each_lifecycle
def test_strategies_give_every_status(lifecycle: Lifecycle) -> None:
    """A state is found in each status, with tasks exactly where there may be some."""
    seen: set[tuple[str, bool]] = set()

    @settings(max_examples=500, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(states(lifecycle))
    def look(state: SessionState) -> None:
        seen.add((str(state.status), bool(state.active_tasks)))

    look()
    every = {(str(status), False) for status in lifecycle.statuses}
    held = {(str(each), True) for each in lifecycle.statuses if lifecycle.holds_tasks(each)}
    assert seen == every | held


def test_strategies_give_no_task_where_none_may_be() -> None:
    """In a status without a row that ends a task, no state has one."""

    @FEW
    @given(st.sampled_from(LIFECYCLES).flatmap(lambda it: st.tuples(st.just(it), states(it))))
    def check(drawn: tuple[Lifecycle, SessionState]) -> None:
        lifecycle, state = drawn
        assert lifecycle.holds_tasks(state.status) or not state.active_tasks

    check()


@FEW
@given(configs())
def test_strategies_give_configurations(config: SessionConfig) -> None:
    """Every configuration is one that a session may be created with, in any lifecycle."""
    for lifecycle in LIFECYCLES:
        state = SessionState.new("a", config=config, status=lifecycle.initial)
        validate(state, lifecycle)


@each_lifecycle
def test_reachable_states_are_valid(lifecycle: Lifecycle) -> None:
    """A state that a walk leads to is valid, and no time in it is out of order."""

    @FEW
    @given(reachable_states(lifecycle, arguments=ARGUMENTS[lifecycle.name]))
    def check(state: SessionState) -> None:
        validate(state, lifecycle)

    check()


@each_lifecycle
def test_reachable_states_reach_every_status(lifecycle: Lifecycle) -> None:
    """Walks lead to each status, those behind guards, arguments and deadlines among them."""
    walks = reachable_states(
        lifecycle,
        arguments=ARGUMENTS[lifecycle.name],
        config=modest_configs(features=("code_analysis",)),
    )
    seen: set[str] = set()

    @settings(max_examples=600, database=None, suppress_health_check=list(HealthCheck))
    @given(walks)
    def walk(state: SessionState) -> None:
        seen.add(str(state.status))

    walk()
    assert seen == set(map(str, lifecycle.statuses))


def test_reachable_states_are_no_others() -> None:
    """What no row leads to is not given: no more conversations than are allowed."""

    @FEW
    @given(reachable_states())
    def check(state: SessionState) -> None:
        assert state.created_at <= state.status_since <= state.updated_at
        assert state.conversation_count <= (state.config.max_conversations or 12)

    check()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({}, "needs 'by'"), ({"sign": {"by": st.text()}, "sing": {}}, "no trigger 'sing'")],
)
def test_reachable_states_name_what_arguments_lack(arguments: Any, problem: str) -> None:
    """An argument without a strategy, and a strategy for nothing, are errors that name it."""
    row = Row("sign", "active", None, required="by")
    lifecycle = SESSION_LIFECYCLE.extend(name="signed", rows=(row,))

    @settings(max_examples=1)
    @given(reachable_states(lifecycle, arguments=arguments))
    def walk(state: SessionState) -> None:
        raise AssertionError(state)

    with pytest.raises(LifecycleError, match=problem):
        walk()
