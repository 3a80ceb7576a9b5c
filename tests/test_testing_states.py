"""Strategies that are told what a user's guards understand: statuses, features, metadata."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from working import worked

from session_fsm import (
    SESSION_LIFECYCLE,
    Lifecycle,
    LifecycleError,
    SessionConfig,
    SessionState,
    explain,
)
from session_fsm.testing import configs, states

AGENT, ORDER = worked("agent"), worked("order")
FEW = settings(max_examples=100, database=None, suppress_health_check=[HealthCheck.too_slow])


def seen(strategy: st.SearchStrategy[Any], what: Callable[[Any], Hashable]) -> set[Hashable]:
    """What is told of the examples of a strategy."""
    found: set[Hashable] = set()

    @FEW
    @given(strategy)
    def look(example: Any) -> None:
        found.add(what(example))

    look()
    return found


@pytest.mark.parametrize("lifecycle", [SESSION_LIFECYCLE, AGENT, ORDER], ids=lambda it: it.name)
def test_testing_states_are_in_the_status_asked_for(lifecycle: Lifecycle) -> None:
    """Asked for by its word, a status is the lifecycle's own member in every state."""
    status = lifecycle.statuses[1]
    found = seen(states(lifecycle, status=str(status)), lambda state: id(state.status))
    assert found == {id(status)}


def test_testing_states_need_a_status_that_there_is() -> None:
    """A status of another lifecycle is named, instead of states that can't be."""
    with pytest.raises(LifecycleError, match="lifecycle 'order': there is no status 'active'"):
        find(states(ORDER, status="active"), lambda _: True)


def test_testing_states_know_what_they_are_given() -> None:
    """Configuration and metadata may be chosen, so that guards can read them."""
    config = SessionConfig(features=("code_analysis",), timeout_minutes=None)
    item = st.fixed_dictionaries({"sku": st.just("tea"), "cents": st.integers(1, 9)})
    metadata = st.fixed_dictionaries({"items": st.lists(item, max_size=3)})

    @FEW
    @given(states(ORDER, status="placed", config=st.just(config), metadata=metadata))
    def check(state: SessionState) -> None:
        assert state.config is config
        cost = sum(item["cents"] for item in state.metadata["items"])
        at = state.created_at
        assert explain(state, "pay", at=at, cents=cost, lifecycle=ORDER) is None
        refusal = explain(state, "pay", at=at, cents=cost + 1, lifecycle=ORDER)
        assert refusal is not None
        assert [failed.name for failed in refusal.failed_guards] == ["exact amount"]

    check()


def test_testing_states_have_features_of_a_lifecycle() -> None:
    """Configurations have features that are asked for, or lack them, and others beside."""
    asked = ["code_analysis", "search"]
    assert seen(configs(), lambda config: "search" in config.features) == {False}
    some = configs(features=iter(asked))
    found = seen(some, lambda config: tuple(each in config.features for each in asked))
    assert found == {(one, two) for one in (False, True) for two in (False, True)}
    others = seen(some, lambda config: bool(set(config.features).difference(asked)))
    assert others == {False, True}
