"""What a manager decides: one or more steps of one session, made together or not at all.

Each decision is a function of a draft, which holds the session and collects its steps; nothing is
written and nobody is told. The same decision may be made again on a newer state.

No trigger and no status is named here: roles, ending rows and deadlines of the lifecycle say what
to fire.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from .errors import SessionSupervisedError, StateInvalidError, refused
from .explain import attempt, explain, guard_refusal
from .fields import MAX_ERROR_CHARACTERS
from .history import Step, step_of
from .items import ItemWrites, Write
from .jsonvalue import plain_text
from .lifecycle import Lifecycle, Row
from .machine import SessionMachine, trigger_to
from .state import SessionState
from .stores.abc import SessionStore
from .stores.records import Work

logger = logging.getLogger(__name__)


class WouldReadError(Exception):
    """A decision would have to ask the store, and has none."""


class Draft:
    """A session on its way to a new state.

    Args:
        machine: Holds the session; moved by the steps. Of no use once a draft is thrown away.
        at: The instant of every step.
        store: Asked for the work in progress in the session, whoever answers for it; None: it is
            not to be waited for, and `WouldReadError` is raised where it would have to be asked.
        auto_idle: Whether the end of the last task puts the session to rest.
        owner_id: In whose name it is decided.

    Attributes:
        steps: What was decided, in order.
        let_go: Work that is to be let go of beyond what the steps end.
        holder_id: In whose name that work stands, where no step is made.
        writes: What is written to tables of the session before the first step, or without any.
    """

    __slots__ = (
        "_machine",
        "_store",
        "at",
        "auto_idle",
        "holder_id",
        "let_go",
        "owner_id",
        "steps",
        "writes",
    )

    def __init__(
        self,
        machine: SessionMachine,
        at: datetime,
        store: SessionStore | None,
        auto_idle: bool,
        owner_id: str,
    ) -> None:
        self._machine = machine
        self._store = store
        self.at = at
        self.auto_idle = auto_idle
        self.owner_id = owner_id
        self.steps: list[Step] = []
        self.let_go: set[Work] = set()
        self.holder_id = owner_id
        self.writes: ItemWrites | None = None

    @property
    def state(self) -> SessionState:
        """The state after the steps so far."""
        return self._machine.state

    @property
    def lifecycle(self) -> Lifecycle:
        """The table that is obeyed."""
        return self._machine.lifecycle

    def fire(self, trigger: str, *, reason: str | None = None, **arguments: Any) -> None:
        """Make one step; errors as `SessionMachine.fire`."""
        if arguments:
            check_names(arguments)
        if reason is not None:
            _check_reason(reason)
        machine = self._machine
        before = machine.state
        after = machine.fire(trigger, at=self.at, **arguments)
        if after.config.persistence_enabled is not before.config.persistence_enabled:
            problem = "config.persistence_enabled: is chosen at creation and can't be changed"
            raise StateInvalidError(problems=(problem,))
        row = machine.lifecycle.find(trigger, before.status)
        moves = row is not None and row.target is not None
        self.steps.append(step_of(before, after, trigger, moves, reason))

    def row(self, role: str) -> Row | None:
        """Return the row that plays a role in the present status, or None."""
        return self.lifecycle.find(self.lifecycle.roles.get(role, ""), self.state.status)

    def accepts(self, trigger: str, **arguments: Any) -> bool:
        """Tell whether a trigger would be accepted now."""
        refusal = explain(self.state, trigger, at=self.at, lifecycle=self.lifecycle, **arguments)
        return refusal is None

    def has_worker(self) -> bool:
        """Tell whether anybody runs a worker for the session."""
        worker = Work("worker")
        if worker in self.let_go:
            return False
        if self._store is None:
            raise WouldReadError
        return worker in self._store.work_in(self.state.session_id)


Decision = Callable[[Draft], None]


def check_names(arguments: Mapping[str, Any]) -> None:
    """Accept arguments that a row may have, as far as their names tell.

    Raises:
        TypeError: One is what a manager asks its own clock, store and lifecycle for.
    """
    for name in ("at", "state", "lifecycle"):
        if name in arguments:
            raise TypeError(f"no row takes an argument {name!r}: the manager has its own")


def _check_reason(reason: object) -> None:
    problems = [] if isinstance(reason, str) else ["reason: expected a string"]
    if isinstance(reason, str):
        plain_text(reason, "reason", problems)
        if len(reason) > MAX_ERROR_CHARACTERS:
            problems.append(f"reason: {len(reason)} characters; at most {MAX_ERROR_CHARACTERS}")
    if problems:
        raise StateInvalidError(problems=tuple(problems))


def cause_in_words(cause: BaseException | str) -> str:
    """Return a cause as text that can be kept, whatever it holds: a failure must not fail."""
    if isinstance(cause, str):
        text = cause
    else:
        name = type(cause).__name__
        try:
            told = str(cause)
        except Exception:
            logger.exception("a %s can't be put in words", name)
            told = ""
        text = f"{name}: {told}" if told else name
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    most = MAX_ERROR_CHARACTERS // 2
    return text if len(text) <= most else f"{text[:most]}…"


# --- what follows by itself ------------------------------------------------------------------


def settle(draft: Draft) -> None:
    """Fire the next ending rows while the way out is open: no task and no worker is waited for."""
    drains = draft.lifecycle.drains
    while draft.state.status in drains:
        [ending, *_] = draft.lifecycle.way_out(draft.state.status)
        if draft.state.active_tasks or draft.has_worker() or not draft.accepts(ending.trigger):
            return
        draft.fire(ending.trigger)


def rest(draft: Draft) -> None:
    """Put the session to rest if it has no task left and may rest."""
    row = draft.row("rest")
    if row is not None and not draft.state.active_tasks and draft.accepts(row.trigger):
        draft.fire(row.trigger)


def _follow(draft: Draft, trigger: str) -> None:
    lifecycle = draft.lifecycle
    if draft.auto_idle and trigger == lifecycle.roles.get("end_task"):
        rest(draft)
    if draft.state.status in lifecycle.drains:
        settle(draft)


# --- verbs -----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Fire:
    """Fire one trigger, and what follows from it."""

    trigger: str
    reason: str | None = None
    arguments: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        draft.fire(self.trigger, reason=self.reason, **self.arguments)
        _follow(draft, self.trigger)


@attrs.frozen
class MoveTo:
    """Fire the one hand-fired row to a target status."""

    target: str
    reason: str | None = None
    arguments: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        trigger = trigger_to(draft.state, self.target, at=draft.at, lifecycle=draft.lifecycle)
        Fire(trigger, self.reason, self.arguments)(draft)


@attrs.frozen
class BeginTask:
    """Begin a task; a session at rest wakes for it."""

    task_id: str
    timeout_seconds: float | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        trigger = draft.lifecycle.role("begin_task")
        if draft.row("begin_task") is None and (wake := draft.row("wake")) is not None:
            draft.fire(wake.trigger)
        limit = self.timeout_seconds
        told: dict[str, Any] = {} if limit is None else {"timeout_seconds": limit}
        draft.fire(trigger, task_id=self.task_id, **told)


@attrs.frozen
class Touch:
    """Note that somebody is there, unless that was noted a moment ago."""

    resolution: timedelta

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        trigger = draft.lifecycle.role("touch")
        at = max(draft.at, draft.state.updated_at)
        recent = at - draft.state.last_activity_at < self.resolution
        if not (recent and draft.accepts(trigger)):
            draft.fire(trigger)


@attrs.frozen
class Say:
    """Note that something is said in the session; one at rest wakes for it.

    It is refused where no conversation could begin, by the guards of that too. Those that ask for
    room are passed over: what is said belongs to a conversation that was counted. A lifecycle in
    which nobody is noted to be there has no step for it.
    """

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        if draft.row("count") is None and (wake := draft.row("wake")) is not None:
            draft.fire(wake.trigger)
        lifecycle = draft.lifecycle
        row = draft.row("count")
        if row is None:
            draft.fire(lifecycle.role("count"))  # refused, with its reason
            return
        shown = attempt(draft.state, draft.at, {}, lifecycle)
        refusal = guard_refusal(shown, lifecycle, row, for_one_more=False)
        if refusal is not None:
            raise refused(refusal, draft.state.session_id)
        if (touch := lifecycle.roles.get("touch")) is not None:
            draft.fire(touch)


@attrs.frozen
class Adopt:
    """Note that somebody is there, who is about to run a worker for the session.

    Attributes:
        takes_over: Tells whether the worker that the session has is a dead owner's, which this one
            has taken upon itself; None: it has to have none.
    """

    takes_over: Callable[[], bool] | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        free = not draft.has_worker() if self.takes_over is None else self.takes_over()
        if not free:
            raise SessionSupervisedError(session_id=draft.state.session_id)
        reason = "supervised" if self.takes_over is None else "taken over"
        draft.fire(draft.lifecycle.role("touch"), reason=reason)


@attrs.frozen
class Update:
    """Change data; a change may be a function of the present value."""

    changes: Mapping[str, Any]
    reason: str | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        trigger = draft.lifecycle.role("update")
        row = draft.row("update")
        if row is None:
            draft.fire(trigger)  # refused, before any function is asked
            return
        known = (*row.required, *row.optional)
        if unknown := [name for name in self.changes if name not in known]:
            takes = f"an update takes {', '.join(known)}"
            raise StateInvalidError(problems=tuple(f"{name}: {takes}" for name in unknown))
        values = {
            name: change(getattr(draft.state, name)) if callable(change) else change
            for name, change in self.changes.items()
        }
        for name, value in values.items():
            if value is None and callable(self.changes[name]) and name != "error":
                raise StateInvalidError(problems=(f"{name}: the function returned nothing",))
        before = draft.state.config.persistence_enabled
        config = values.get("config")
        if isinstance(config, Mapping):
            # Not said, so not changed: no mapping has to repeat what can't be changed anyway.
            values["config"] = {"persistence_enabled": before, **config}
        draft.fire(trigger, reason=self.reason, **values)


@attrs.frozen
class WriteItems:
    """Write to tables of the session where its data may be changed, with a decision or alone.

    What is written belongs to the moment before the decision: a session may still write what it
    ends with.
    """

    writes: tuple[Write, ...]
    decision: Decision | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        trigger = draft.lifecycle.role("update")
        refusal = explain(draft.state, trigger, at=draft.at, lifecycle=draft.lifecycle)
        session_id, instant = draft.state.session_id, draft.at
        if self.decision is not None:
            self.decision(draft)
        if refusal is not None:
            raise refused(refusal, session_id)
        draft.writes = ItemWrites(instant, self.writes)


def with_writes(decision: Decision, writes: Iterable[Write]) -> Decision:
    """Return a decision with which some writes are made, or the decision itself if there are none.

    Raises:
        TypeError: One is no write.
    """
    made = tuple(writes)
    for each in made:
        if not isinstance(each, Write):
            raise TypeError(f"writes: expected Put, Delete or Clear, got {type(each).__name__}")
    return WriteItems(made, decision) if made else decision
