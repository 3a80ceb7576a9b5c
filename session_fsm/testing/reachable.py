"""A strategy for states that a lifecycle leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from ..errors import StateInvalidError, TransitionError
from ..explain import next_timed, permitted
from ..lifecycle import Lifecycle
from ..machine import SessionMachine
from ..state import SessionConfig, SessionState
from ..table import SESSION_LIFECYCLE
from .arguments import Arguments, DrawnArguments, modest_configs
from .strategies import session_ids

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When what is made for a test begins."""
TICK: Final = timedelta(microseconds=1)
"""The shortest time there is."""


@st.composite
def reachable_states(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    *,
    arguments: Arguments | None = None,
    config: st.SearchStrategy[SessionConfig] | None = None,
    max_steps: int = 12,
) -> SessionState:
    """Generate states that random walks through the machine of a lifecycle lead to.

    Every move is made by the machine, at an instant of the walk: soon after the one before, or just
    before, at or after a deadline.

    Args:
        draw: Given by Hypothesis.
        lifecycle: Whose machine is walked through.
        arguments: Strategies for what comes with triggers, as `LifecycleRules` has them; None:
            none is needed.
        config: How the sessions may be used; None: limits that are met soon.
        max_steps: Longest walk; at least 0.

    Raises:
        LifecycleError: An argument that a row needs has no strategy, or there is one for nothing.

    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=20, derandomize=True, database=None)
        ... @given(reachable_states())
        ... def test_no_session_rests_with_tasks(state):
        ...     assert not (state.status == "idle" and state.active_tasks)
        >>> test_no_session_rests_with_tasks()
    """
    drawn = DrawnArguments(lifecycle, {} if arguments is None else arguments)
    first = SessionState.new(
        draw(session_ids()),
        config=draw(modest_configs() if config is None else config),
        at=BEGINNING,
        status=lifecycle.initial,
    )
    machine = SessionMachine(first, lifecycle)
    at = BEGINNING
    for _ in range(draw(st.integers(0, max_steps))):
        timed = next_timed(machine.state, lifecycle)
        soon = [at, at + TICK, at + timedelta(seconds=1)]
        if timed is not None and timed[1] > at:
            soon += [timed[1] - TICK, timed[1], timed[1] + TICK]
        at = draw(st.sampled_from(soon))
        may_fire = permitted(machine.state, at=at, lifecycle=lifecycle)
        if not may_fire:
            continue
        rows = [row for row in lifecycle.leaving(machine.state.status) if row.trigger in may_fire]
        # Or most walks would end early, or stay where they are.
        onward = tuple(row.trigger for row in rows if row.target is not None and not row.ending)
        trigger = draw(st.sampled_from((*onward, *onward, *onward, *may_fire)))
        told: Mapping[str, Any] = drawn.draw(draw, trigger, machine.state)
        # Guards that need an argument have been asked only now.
        with suppress(TransitionError, StateInvalidError):
            machine.fire(trigger, at=at, **told)
    return machine.state
