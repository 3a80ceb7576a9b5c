"""What comes with a trigger in a test: a strategy for each argument of each row.

`Arguments` is what a user writes down: for a trigger, either its arguments by name, or a function
of the state that gives a strategy of all of them at once.

    {
        "pay": {"cents": st.integers(1, 900)},
        "answer": {"by": lambda state: st.sampled_from(asked_in(state)), "text": st.text()},
        "annotate": lambda state: st.just({"metadata": {**state.metadata, "seen": True}}),
    }
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hypothesis import strategies as st

from ..errors import LifecycleError
from ..lifecycle import Lifecycle, Row
from ..state import SessionConfig, SessionState
from .strategies import json_objects

Of = st.SearchStrategy[Any] | Callable[[SessionState], st.SearchStrategy[Any]]
"""A strategy, or a function of the state that gives one."""
Arguments = Mapping[str, Mapping[str, Of] | Callable[[SessionState], st.SearchStrategy[Any]]]
"""Strategies for the arguments of triggers."""
Draw = Callable[[st.SearchStrategy[Any]], Any]
"""Draws a value of a strategy."""

TASKS: Final = ("t", "u")
"""Ids of the tasks that are begun."""


def modest_configs(features: tuple[str, ...] = ()) -> st.SearchStrategy[SessionConfig]:
    """Generate configurations whose limits are met soon; where they are kept is left open.

    Args:
        features: Names of features that they may have.
    """
    chosen = st.lists(st.sampled_from(features), unique=True) if features else st.just([])
    return st.builds(
        SessionConfig,
        max_conversations=st.sampled_from((None, 1, 2)),
        timeout_minutes=st.sampled_from((None, 1, 30)),
        persistence_enabled=st.none(),
        features=chosen,
    )


_WORDS = st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=5)
_BY_NAME: Final[Mapping[str, Of]] = {
    "config": modest_configs(),
    "llm_config": json_objects(max_leaves=3),
    "metadata": json_objects(max_leaves=3),
    "error": st.none() | _WORDS,
    "task_id": lambda state: st.sampled_from((*state.active_tasks, *TASKS)),
    "timeout_seconds": st.sampled_from((0.5, 20, 90.0)),
}
"""What is drawn for an argument of this name where nothing else was said."""


class DrawnArguments:
    """Draws what comes with the triggers of a lifecycle.

    Args:
        lifecycle: Whose triggers.
        given: The strategies. An argument that is called as a field of data, or `task_id`, has one
            already; any other that may be left out is, if there is none for it.

    Raises:
        LifecycleError: A strategy is for a trigger or an argument that there is not, or a row
            needs an argument without a strategy. It is named.
    """

    def __init__(self, lifecycle: Lifecycle, given: Arguments) -> None:
        self._lifecycle = lifecycle
        self._given = given
        for trigger, each in given.items():
            rows = [row for row in lifecycle.rows if row.trigger == trigger]
            if not rows:
                raise self._error(f"arguments: there is no trigger {trigger!r}")
            taken = {name for row in rows for name in (*row.required, *row.optional)}
            if isinstance(each, Mapping) and (unknown := sorted(set(each) - taken)):
                names = ", ".join(map(repr, unknown))
                raise self._error(f"arguments: {trigger!r} takes no {names}")
        for row in lifecycle.rows:
            if missing := [name for name in row.required if not self._has(row, name)]:
                names = ", ".join(map(repr, missing))
                raise self._error(f"arguments: {row} needs {names}: give a strategy for it")

    def _error(self, problem: str) -> LifecycleError:
        return LifecycleError(problem=problem, lifecycle=self._lifecycle.name)

    def _has(self, row: Row, name: str) -> bool:
        of_trigger = self._given.get(row.trigger, {})
        return callable(of_trigger) or name in of_trigger or name in _BY_NAME

    def draw(self, draw: Draw, trigger: str, state: SessionState) -> dict[str, Any]:
        """Draw what comes with a trigger that is fired in a state.

        Args:
            draw: Draws a value of a strategy.
            trigger: Any word; one that has no row in the status of the state has the arguments of
                its first row.
            state: Handed to strategies that ask for it.

        Returns:
            Every argument that is required, and some of those that are not.
        """
        row = self._lifecycle.find(trigger, state.status)
        if row is None:
            row = next((row for row in self._lifecycle.rows if row.trigger == trigger), None)
        if row is None:
            return {}
        of_trigger = self._given.get(trigger, {})
        if callable(of_trigger):
            return dict(draw(of_trigger(state)))
        drawn = {}
        for name in (*row.required, *row.optional):
            of_name = of_trigger.get(name, _BY_NAME.get(name))
            if of_name is not None and (name in row.required or draw(st.booleans())):
                drawn[name] = draw(
                    of_name if isinstance(of_name, st.SearchStrategy) else of_name(state)
                )
        return drawn
