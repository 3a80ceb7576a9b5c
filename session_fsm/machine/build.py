"""The machine of a lifecycle: its rows as transitions, built once, shared by all its sessions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import cast

import attrs
from transitions import MachineError

from ..lifecycle import Lifecycle, Row
from .fast import Event, FastMachine

__all__ = ["Bound", "MachineError", "Move", "bind", "build_machine"]


@attrs.frozen(eq=False)
class Move:
    """A row in one of its sources, with all that a step needs resolved.

    Attributes:
        row: The row.
        make: Makes the step with a model that is in the source, given the attempt and the trigger
            for its guards; tells whether they passed. See `Resolved.make`.
        moves: Whether the status changes.
    """

    row: Row
    make: Callable[..., bool]
    moves: bool


@attrs.frozen(eq=False)
class Bound:
    """A lifecycle and its machine.

    Attributes:
        lifecycle: The table.
        machine: Its rows as transitions; holds no session.
        moves: Each row by trigger and source.
        graces: The durations of the lifecycle.
        members: The lifecycle's own member for each status that the machine may lead to.
    """

    lifecycle: Lifecycle
    machine: FastMachine
    moves: Mapping[str, Mapping[str, Move]]
    members: Mapping[str, str]
    graces: Mapping[str, timedelta]

    def __deepcopy__(self, _: object) -> Bound:
        return self  # a copy of a session is a session of the same lifecycle


@functools.lru_cache(maxsize=64)
def bind(lifecycle: Lifecycle) -> Bound:
    """Return a lifecycle with its machine; built once, then shared.

    Threads: safe; a built machine holds no session and is only read.
    """
    machine = FastMachine(
        model=None,
        states=[str(status) for status in lifecycle.statuses],
        initial=None,
        auto_transitions=False,
        model_attribute="_status",
        name=lifecycle.name,
    )
    # "*" and "=" may be statuses; to `add_transition` they would mean every one and the same one.
    machine.wildcard_all = machine.wildcard_same = ""
    for row, source in lifecycle.moves():
        machine.add_transition(
            row.trigger,
            str(source),
            None if row.target is None else str(row.target),
            conditions=[guard.passes for guard in row.conditions],
        )
    moves: dict[str, dict[str, Move]] = {trigger: {} for trigger in lifecycle.triggers}
    for row, source in lifecycle.moves():
        event = cast(Event, machine.events[row.trigger])
        resolved = event.resolve(str(source))
        assert resolved is not None
        moves[row.trigger][source] = Move(row, resolved.make, row.target is not None)
    members = {str(status): status for status in lifecycle.statuses}
    return Bound(lifecycle, machine, moves, members, lifecycle.graces)


def build_machine(lifecycle: Lifecycle) -> FastMachine:
    """Return the machine of a lifecycle, the same for all its sessions."""
    return bind(lifecycle).machine
