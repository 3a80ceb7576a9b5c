"""The machine: a lifecycle's rows as a `transitions.Machine`, and the small thing that it moves.

One `Machine` serves every session of a lifecycle. `SessionMachine` is what it moves: the current
frozen state and its revision. The functions `step` and `transition` are the same, for one step.

Source: `Machine` of the package `transitions` decides whether a move is made. Models are handed to
its events instead of being added to it: adding one costs tens of microseconds and kilobytes a
session.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from transitions import EventData, Machine, MachineError

from .errors import (
    GuardRejectedError,
    InvalidTransitionError,
    LifecycleError,
    Refusal,
    RefusalKind,
    StateInvalidError,
)
from .explain import (
    attempt,
    check_arguments,
    guard_refusal,
    misfits,
    no_row_refusal,
    permitted,
    refusal,
)
from .guards import Attempt, Guard
from .lifecycle import Lifecycle, Row
from .state import DATA_FIELDS, SessionState
from .table import SESSION_LIFECYCLE


def _condition(guard: Guard, trigger: str) -> Callable[[EventData], bool]:
    def condition(event: EventData) -> bool:
        shown: Attempt = event.kwargs["attempt"]
        return guard.passes(shown, trigger)

    return condition


@functools.lru_cache(maxsize=64)
def build_machine(lifecycle: Lifecycle) -> Machine:
    """Return the machine of a lifecycle; built once, then shared.

    Threads: safe; a built machine holds no session and is only read.
    """
    machine = Machine(
        model=None,
        states=[str(status) for status in lifecycle.statuses],
        initial=None,
        auto_transitions=False,
        send_event=True,
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
            conditions=[_condition(guard, row.trigger) for guard in row.conditions],
        )
    return machine


class SessionMachine:
    """One session and the machine that moves it.

    Args:
        state: Where the session stands; valid in the lifecycle.
        lifecycle: The table that it obeys.
        revision: How many steps it has behind it.

    Raises:
        StateInvalidError: The status is unknown to the lifecycle, or can't hold the state's tasks.

    Threads: not safe; whoever shares one holds a lock.
    """

    __slots__ = ("_state", "_status", "lifecycle", "revision")

    def __init__(
        self,
        state: SessionState,
        lifecycle: Lifecycle = SESSION_LIFECYCLE,
        *,
        revision: int = 0,
    ) -> None:
        if found := misfits(state.status, state.active_tasks, lifecycle):
            raise StateInvalidError(problems=found)
        self._state = state
        self.lifecycle = lifecycle
        self.revision = revision
        self._status: str = state.status

    @property
    def state(self) -> SessionState:
        """The state that the session is in; only `fire` replaces it."""
        return self._state

    def fire(self, trigger: str, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Make one step; the machine holds the new state, one revision higher.

        Args:
            trigger: A trigger of the lifecycle.
            at: The instant, aware; lifted to the state's `updated_at`; None: now, by the system's
                clock.
            **arguments: What the row takes; `reason` goes with any.

        Returns:
            The new state.

        Raises:
            InvalidTransitionError: No row for the trigger in this status; nothing changed.
            GuardRejectedError: A guard said no; nothing changed.
            GuardError: A guard raised, or returned no bool; nothing changed.
            LifecycleError: The row's effect sets what is no data; nothing changed.
            StateInvalidError: An argument would make a state that can't be; nothing changed.
            TypeError: An argument is missing or unknown; nothing changed.
        """
        state = self.state
        lifecycle = self.lifecycle
        shown = attempt(state, at, arguments, lifecycle)
        row = lifecycle.find(trigger, state.status)
        if row is None:
            raise self._refused(no_row_refusal(shown, lifecycle, trigger))
        check_arguments(row, arguments)
        self._status = str(state.status)
        try:
            moved = build_machine(lifecycle).events[trigger].trigger(self, attempt=shown)
            if not moved:
                raise self._refused(guard_refusal(shown, lifecycle, row))
            state = self._after(row, shown, lifecycle)
        except MachineError as fault:
            raise LifecycleError(problem=f"{row}: {fault}", lifecycle=lifecycle.name) from fault
        finally:
            self._status = self._state.status
        self._state = state
        self._status = state.status
        self.revision += 1
        return state

    def _after(self, row: Row, shown: Attempt, lifecycle: Lifecycle) -> SessionState:
        """Return the state that the machine has moved to, with the row's own changes."""
        changes: Any = {} if row.effect is None else row.effect(shown)
        if not isinstance(changes, Mapping):
            problem = f"{row}: its effect returned {type(changes).__name__}, not a mapping"
            raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
        if not changes.keys() <= set(DATA_FIELDS):
            names = ", ".join(sorted(map(str, changes.keys() - set(DATA_FIELDS))))
            problem = f"{row}: its effect sets {names}, which is no data of a state"
            raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
        moved: dict[str, Any] = {}
        if row.target is not None:
            moved = {"status": lifecycle.status(self._status), "status_since": shown.at}
        if row.activity:
            moved["last_activity_at"] = shown.at
        state = shown.state.derive(changes, at=shown.at, **moved)
        if state.active_tasks and (found := misfits(state.status, state.active_tasks, lifecycle)):
            raise StateInvalidError(problems=found)
        return state

    def _refused(self, reason: Refusal | None) -> InvalidTransitionError | GuardRejectedError:
        if reason is None:
            problem = "the machine refused a move that its table permits"
            raise LifecycleError(problem=problem, lifecycle=self.lifecycle.name)
        error = GuardRejectedError if reason.kind == "guard" else InvalidTransitionError
        return error(refusal=reason, session_id=self.state.session_id)

    def permitted(self, *, at: datetime | None = None, **arguments: Any) -> tuple[str, ...]:
        """List the triggers that would be accepted now; see `permitted`."""
        return permitted(self.state, at=at, lifecycle=self.lifecycle, **arguments)

    def __repr__(self) -> str:
        return f"SessionMachine({self.state!r}, {self.lifecycle.name!r}, revision={self.revision})"

    # --- the session lifecycle's triggers, as methods ----------------------------------------

    def activate(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `activate`: the worker is up."""
        return self.fire("activate", at=at, **arguments)

    def abort(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `abort`: start-up failed; `error` says why."""
        return self.fire("abort", at=at, **arguments)

    def start_timeout(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `start_timeout`: start-up never ended."""
        return self.fire("start_timeout", at=at, **arguments)

    def go_idle(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `go_idle`: the last task ended."""
        return self.fire("go_idle", at=at, **arguments)

    def resume(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `resume`: new work came."""
        return self.fire("resume", at=at, **arguments)

    def terminate(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `terminate`: asked for, or the worker died."""
        return self.fire("terminate", at=at, **arguments)

    def expire(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `expire`: nobody came back."""
        return self.fire("expire", at=at, **arguments)

    def finish(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `finish`: drained."""
        return self.fire("finish", at=at, **arguments)

    def stop_timeout(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `stop_timeout`: gave up waiting; the tasks left are dropped and named."""
        return self.fire("stop_timeout", at=at, **arguments)

    def begin_task(
        self, task_id: str, *, at: datetime | None = None, **arguments: Any
    ) -> SessionState:
        """Fire `begin_task`: work in flight."""
        return self.fire("begin_task", at=at, task_id=task_id, **arguments)

    def end_task(
        self, task_id: str, *, at: datetime | None = None, **arguments: Any
    ) -> SessionState:
        """Fire `end_task`: work done."""
        return self.fire("end_task", at=at, task_id=task_id, **arguments)

    def start_conversation(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `start_conversation`: one more conversation begins."""
        return self.fire("start_conversation", at=at, **arguments)

    def touch(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `touch`: the person is still there."""
        return self.fire("touch", at=at, **arguments)

    def update(self, *, at: datetime | None = None, **changes: Any) -> SessionState:
        """Fire `update`: new `config`, `llm_config`, `metadata` or `error`."""
        return self.fire("update", at=at, **changes)


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
