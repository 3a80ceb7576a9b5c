"""One session and the machine that moves it.

`SessionMachine` is what the machine of a lifecycle moves: the current frozen state and its
revision. Models are handed to events instead of being added to the machine: adding one costs tens
of microseconds and kilobytes a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ..clock import utc_now
from ..errors import (
    GuardRejectedError,
    InvalidTransitionError,
    LifecycleError,
    Refusal,
    SessionFsmError,
    StateInvalidError,
    refused,
)
from ..explain import check_arguments, guard_refusal, misfits, no_row_refusal, permitted
from ..guards import Attempt, AttemptDraft
from ..lifecycle import Lifecycle, Row
from ..state import DATA_FIELDS, SessionState, StateDraft, utc_of
from ..table import SESSION_LIFECYCLE
from .build import MachineError, bind

_new = object.__new__
_NO_CHANGES: Final[Mapping[str, Any]] = {}


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

    __slots__ = ("_bound", "_state", "_status", "revision")

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
        self._bound = bind(lifecycle)
        self._status = str(state.status)
        self.revision = revision

    @property
    def state(self) -> SessionState:
        """The state that the session is in; only `fire` replaces it."""
        return self._state

    @property
    def lifecycle(self) -> Lifecycle:
        """The table that the session obeys."""
        return self._bound.lifecycle

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
            LifecycleError: The row's effect raised, or sets what is no data; nothing changed.
            StateInvalidError: An argument would make a state that can't be; nothing changed.
            TypeError: An argument is missing or unknown; nothing changed.
        """
        state = self._state
        bound = self._bound
        if arguments:
            arguments.pop("reason", None)  # goes with the event, not with the decision
        instant = utc_now() if at is None else utc_of(at)
        if instant < state.updated_at:
            instant = state.updated_at
        shown = _new(AttemptDraft)
        shown.state = state
        shown.at = instant
        shown.arguments = arguments
        shown.graces = bound.graces
        shown.__class__ = Attempt
        try:
            move = bound.moves[trigger][state.status]
        except KeyError:
            raise self._refused(no_row_refusal(shown, bound.lifecycle, trigger)) from None
        row = move.row
        if arguments or row.required:
            check_arguments(row, arguments)
        try:
            if not move.make(self, (shown, trigger), _NO_CHANGES):
                raise self._refused(guard_refusal(shown, bound.lifecycle, row))
            if row.effect is None and type(state) is SessionState:
                # `derive` without its call: every step of most rows comes by here.
                draft = _new(StateDraft)
                draft.session_id = state.session_id
                draft.status = bound.members[self._status]
                draft.config = state.config
                draft.llm_config = state.llm_config
                draft.metadata = state.metadata
                draft.created_at = state.created_at
                draft.updated_at = instant
                draft.status_since = instant if move.moves else state.status_since
                draft.last_activity_at = instant if row.activity else state.last_activity_at
                draft.active_tasks = state.active_tasks
                draft.conversation_count = state.conversation_count
                draft.error = state.error
                draft.task_deadlines = state.task_deadlines
                draft.__class__ = SessionState
                after: SessionState = draft
            else:
                after = state.derive(
                    self._changes(row, shown),
                    at=instant,
                    status=bound.members[self._status],
                    status_since=instant if move.moves else None,
                    last_activity_at=instant if row.activity else None,
                )
            if after.active_tasks:
                self._check_tasks(after)
        except BaseException as fault:
            self._status = str(state.status)
            if isinstance(fault, MachineError):
                raise self._fault(f"{row}: {fault}") from fault
            raise
        self._state = after
        self.revision += 1
        return after

    def _changes(self, row: Row, shown: Attempt) -> Mapping[str, Any]:
        """Return what the effect of a row changes."""
        assert row.effect is not None
        try:
            changes: Any = row.effect(shown)
        except SessionFsmError:
            raise
        except Exception as cause:
            told = f"{type(cause).__name__}: {cause}".removesuffix(": ")
            raise self._fault(f"{row}: its effect raised {told}") from cause
        if not isinstance(changes, Mapping):
            kind = type(changes).__name__
            raise self._fault(f"{row}: its effect returned {kind}, not a mapping")
        if unknown := changes.keys() - set(DATA_FIELDS):
            names = ", ".join(sorted(map(str, unknown)))
            raise self._fault(f"{row}: its effect sets {names}, which is no data of a state")
        return changes

    def _check_tasks(self, after: SessionState) -> None:
        if found := misfits(after.status, after.active_tasks, self.lifecycle):
            raise StateInvalidError(problems=found)

    def _refused(self, reason: Refusal | None) -> InvalidTransitionError | GuardRejectedError:
        if reason is None:
            raise self._fault("the machine refused a move that its table permits")
        return refused(reason, self._state.session_id)

    def _fault(self, problem: str) -> LifecycleError:
        return LifecycleError(problem=problem, lifecycle=self.lifecycle.name)

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

    def task_timeout(self, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire `task_timeout`: the tasks that are past their time limit are dropped and named."""
        return self.fire("task_timeout", at=at, **arguments)

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
