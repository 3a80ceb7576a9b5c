"""Answers about a state that change nothing: is it valid, what is permitted, why not.

Guards are asked, effects are not. Every refusal of the library is made here, so that a dry run, an
error and a command line say the same.

A guard or deadline that is at fault is a `GuardError` to whoever asks for it: who fires or explains
its row, or wants to know what is permitted. It does not hide why *another* row is refused: there it
is left out of what is permitted, and named in the refusal's `broken`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from .errors import FailedGuard, GuardError, Refusal, RefusalKind, StateInvalidError
from .fields import MAX_ID_CHARACTERS
from .guards import Attempt, attempt_at
from .lifecycle import Lifecycle, Row
from .state import SessionState, faults, fields_of, lifted
from .table import SESSION_LIFECYCLE, tasks_in_words


def problems(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> tuple[str, ...]:
    """Name every fault of a state in a lifecycle.

    Returns:
        Each fault as `path: what is wrong`; empty if the state is valid.
    """
    if not isinstance(state, SessionState):
        return (f"state: expected a SessionState, got {type(state).__name__}",)
    return (*faults(fields_of(state)), *misfits(state.status, state.active_tasks, lifecycle))


def misfits(status: object, tasks: object, lifecycle: Lifecycle) -> tuple[str, ...]:
    """Name what a lifecycle says against a status, and against tasks in it."""
    if not isinstance(status, str):
        return ()
    if status not in lifecycle:
        known = ", ".join(lifecycle.statuses)
        return (f"status: unknown status {str(status)!r}; known are {known}",)
    if tasks and isinstance(tasks, _LISTS) and not lifecycle.holds_tasks(status):
        words = tasks_in_words(tuple(map(_task_name, tasks)))
        return (f"active_tasks: status {str(status)!r} can't hold tasks; {words}",)
    return ()


_LISTS = (tuple, list)


def _task_name(task: object) -> str:
    # What is no id is named as a fault of its own; here it must not fill the message.
    return task[:MAX_ID_CHARACTERS] if isinstance(task, str) else "?"


def validate(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> None:
    """Accept a valid state.

    Raises:
        StateInvalidError: Every fault of the state, by its path.
    """
    if found := problems(state, lifecycle):
        raise StateInvalidError(problems=found)


def is_valid(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> bool:
    """Tell whether a state is one that its lifecycle can be in."""
    return not problems(state, lifecycle)


def is_valid_transition(
    source: object, target: object, lifecycle: Lifecycle = SESSION_LIFECYCLE
) -> bool:
    """Tell whether the status graph has an edge; guards are not asked, unknown words are False.

    Example:
        >>> is_valid_transition("active", "idle"), is_valid_transition("active", "terminated")
        (True, False)
    """
    return any(
        isinstance(source, str) and isinstance(target, str) and edge == (source, target)
        for edge in lifecycle.edges
    )


def attempt(
    state: SessionState, at: datetime | None, arguments: Mapping[str, Any], lifecycle: Lifecycle
) -> Attempt:
    """Put together what guards are shown; `at` is lifted to the state's last change."""
    if "reason" in arguments:  # goes with the event, not with the decision
        arguments = {name: value for name, value in arguments.items() if name != "reason"}
    return attempt_at(state, lifted(state, at), arguments, lifecycle.graces)


def explain(
    state: SessionState,
    trigger: str,
    *,
    at: datetime | None = None,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    **arguments: Any,
) -> Refusal | None:
    """Tell why a trigger would be refused, without firing it.

    Args:
        state: The session.
        trigger: What would be fired.
        at: The instant, aware; None: now, by the system's clock.
        lifecycle: The table that is asked.
        **arguments: What would come with the trigger. Guards that need one which is not given are
            left out.

    Returns:
        The refusal with every guard that says no, or None if no guard speaks against it.

    Raises:
        GuardError: A guard of the row raised, or returned no bool.
        StateInvalidError: A guard says of an argument that it is no good.
        TypeError: The row takes no such argument.

    Example:
        >>> from datetime import UTC, datetime
        >>> noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
        >>> print(explain(SessionState.new("a", at=noon), "touch", at=noon).headline)
        'touch' can't be fired in status 'initializing'
    """
    shown = attempt(state, at, arguments, lifecycle)
    row = lifecycle.find(trigger, state.status)
    if row is None:
        return no_row_refusal(shown, lifecycle, trigger)
    check_arguments(row, arguments, complete=False)
    return guard_refusal(shown, lifecycle, row)


def no_row_refusal(shown: Attempt, lifecycle: Lifecycle, trigger: str) -> Refusal:
    """Return the refusal of a trigger that has no row in the session's status."""
    known = trigger in lifecycle.triggers
    return refusal(shown, lifecycle, "wrong_status" if known else "unknown_trigger", trigger)


def guard_refusal(
    shown: Attempt, lifecycle: Lifecycle, row: Row, *, for_one_more: bool = True
) -> Refusal | None:
    """Return the refusal by a row's guards, or None if all pass.

    Args:
        shown: What the guards are shown.
        lifecycle: Whose row.
        row: The row, all of whose guards are asked.
        for_one_more: False: but for those that ask for room.
    """
    failed = tuple(
        guard.failure(shown, row.trigger)
        for guard in row.conditions
        if (for_one_more or not guard.asks_for_room)
        and _askable(guard.needs, shown)
        and not guard.passes(shown, row.trigger)
    )
    if not failed:
        return None
    return refusal(shown, lifecycle, "guard", row.trigger, target=row.target, failed=failed)


def refusal(
    shown: Attempt,
    lifecycle: Lifecycle,
    kind: RefusalKind,
    trigger: str | None,
    *,
    target: str | None = None,
    failed: tuple[FailedGuard, ...] = (),
) -> Refusal:
    """Complete a refusal with what is permitted now and what fires by itself."""
    broken: dict[str, str] = {}

    def note(fault: GuardError) -> None:
        broken.setdefault(fault.trigger, str(fault))

    return Refusal(
        kind=kind,
        trigger=trigger,
        target=target,
        status=shown.state.status,
        failed_guards=failed,
        permitted=_permitted(shown, lifecycle, note),
        next_timed=_next_timed(shown.state, lifecycle, note),
        broken=tuple(broken.values()),
    )


def _raise(fault: GuardError) -> None:
    raise fault


def permitted(
    state: SessionState,
    *,
    at: datetime | None = None,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    **arguments: Any,
) -> tuple[str, ...]:
    """List the triggers that would be accepted now.

    Args:
        state: The session.
        at: The instant, aware; None: now, by the system's clock.
        lifecycle: The table that is asked.
        **arguments: Arguments to show to the guards; one that needs another is left out.

    Returns:
        The triggers in the table's order, timed rows that are due among them; may be empty.

    Raises:
        GuardError: A guard raised, or returned no bool.
    """
    return _permitted(attempt(state, at, arguments, lifecycle), lifecycle)


def _permitted(
    shown: Attempt, lifecycle: Lifecycle, on_fault: Callable[[GuardError], None] = _raise
) -> tuple[str, ...]:
    found = []
    for row in lifecycle.leaving(shown.state.status):
        try:
            if _passes(row, shown):
                found.append(row.trigger)
        except StateInvalidError:
            continue  # with another argument, perhaps
        except GuardError as fault:
            on_fault(fault)
    return tuple(found)


def _passes(row: Row, shown: Attempt) -> bool:
    return all(
        guard.passes(shown, row.trigger) for guard in row.conditions if _askable(guard.needs, shown)
    )


def _askable(needs: tuple[str, ...], shown: Attempt) -> bool:
    return all(name in shown.arguments for name in needs)


def next_timed(
    state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE
) -> tuple[str, datetime] | None:
    """Tell which row fires by itself next, and when.

    A row's clock runs while its other guards hold, asked as of the deadline itself.

    Returns:
        The trigger and the instant of the earliest deadline, the first in the table on a tie; None
        if no clock runs.

    Raises:
        GuardError: A deadline can't be found, or a guard of its row raised or returned no bool.
    """
    return _next_timed(state, lifecycle, _raise)


def _next_timed(
    state: SessionState, lifecycle: Lifecycle, on_fault: Callable[[GuardError], None]
) -> tuple[str, datetime] | None:
    earliest: tuple[str, datetime] | None = None
    rows = lifecycle.timed(state.status)
    if not rows:
        return None
    shown = attempt_at(state, state.updated_at, _NOTHING, lifecycle.graces)
    for row in rows:
        try:
            due = _due(row, shown)
        except GuardError as fault:
            on_fault(fault)
            continue
        if due is not None and (earliest is None or due < earliest[1]):
            earliest = (row.trigger, due)
    return earliest


def _due(row: Row, shown: Attempt) -> datetime | None:
    """Return when a timed row fires by itself; None if its clock does not run."""
    assert row.deadline is not None
    due = row.deadline.at(shown, row.trigger)
    if due is None or not row.guards:
        return due
    if due > shown.at:
        shown = attempt_at(shown.state, due, _NOTHING, shown.graces)
    for guard in row.guards:
        if not guard.passes(shown, row.trigger):
            return None
    return due


_NOTHING: Final[Mapping[str, Any]] = {}


def check_arguments(row: Row, arguments: Mapping[str, Any], *, complete: bool = True) -> None:
    """Accept the arguments of a trigger.

    Raises:
        TypeError: One is missing (where they must be complete), or the row takes no such argument.
    """
    if not arguments and not row.required:
        return
    for name in arguments:
        if name not in row.required and name not in row.optional and name != "reason":
            takes = ", ".join((*row.required, *row.optional, "reason"))
            raise TypeError(f"{row.trigger!r} takes no argument {name!r}; it takes {takes}")
    for name in row.required:
        if complete and name not in arguments:
            raise TypeError(f"{row.trigger!r} needs the argument {name!r}")
