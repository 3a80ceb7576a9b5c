"""Single steps as functions: a state and a trigger, or a target, give a new state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..errors import InvalidTransitionError, RefusalKind
from ..explain import attempt, refusal
from ..lifecycle import Lifecycle
from ..state import SessionState
from ..table import SESSION_LIFECYCLE
from .session import SessionMachine


def step(
    state: SessionState,
    trigger: str,
    *,
    at: datetime | None = None,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    **arguments: Any,
) -> SessionState:
    """Return the state that a trigger leads to; see `SessionMachine.fire` for errors.

    Args:
        state: Where the session stands; it is not changed.
        trigger: A trigger of the lifecycle.
        at: The instant, aware; None: now, by the system's clock. With it given, the step is pure.
        lifecycle: The table that is asked.
        **arguments: What the row takes; `reason` goes with any.

    Example:
        >>> from datetime import UTC, datetime
        >>> noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
        >>> state = SessionState.new("a", at=noon)
        >>> step(state, "activate", at=noon).status
        <SessionStatus.ACTIVE: 'active'>
        >>> state.status
        <SessionStatus.INITIALIZING: 'initializing'>
    """
    return SessionMachine(state, lifecycle).fire(trigger, at=at, **arguments)


def transition(
    state: SessionState,
    to: str,
    *,
    at: datetime | None = None,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    **arguments: Any,
) -> SessionState:
    """Return the state after the one hand-fired row to a target status.

    Args:
        state: Where the session stands; it is not changed.
        to: The target: a status or its word.
        at: The instant, aware; None: now, by the system's clock.
        lifecycle: The table that is asked.
        **arguments: What the row takes; `reason` goes with any.

    Raises:
        InvalidTransitionError: There is no such status, or no hand-fired row leads there.
        GuardRejectedError: A guard said no.
        LifecycleError: Two hand-fired rows lead there; fire one by its trigger.
    """
    trigger = trigger_to(state, to, at=at, lifecycle=lifecycle)
    return step(state, trigger, at=at, lifecycle=lifecycle, **arguments)


def trigger_to(state: SessionState, to: str, *, at: datetime | None, lifecycle: Lifecycle) -> str:
    """Return the trigger of the one hand-fired row to a target status; errors as `transition`."""
    row = lifecycle.by_hand(state.status, to) if to in lifecycle else None
    if row is not None:
        return row.trigger
    kind: RefusalKind = "no_edge" if to in lifecycle else "unknown_status"
    shown = attempt(state, at, {}, lifecycle)
    target = to if isinstance(to, str) else repr(to)
    reason = refusal(shown, lifecycle, kind, None, target=target)
    raise InvalidTransitionError(refusal=reason, session_id=state.session_id)
