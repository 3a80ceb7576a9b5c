"""Decisions that end sessions, or work in them: by who asks for it, by a deadline, by a death.

As in `decisions`, no trigger and no status is named: ending rows, deadlines and roles say what to
fire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from .decisions import Draft, rest, settle
from .explain import next_timed
from .lifecycle import Row
from .state import SessionState
from .stores.records import Work
from .table import error_with
from .work import work_of

ENDED_BEFORE_START: Final = "ended before its start was done"
"""What is told of a session that somebody ends while it is being started."""


def _error_argument(row: Row, error: str | None) -> dict[str, str]:
    return {} if error is None or "error" not in row.optional else {"error": error}


@attrs.frozen
class Terminate:
    """Begin the way out, and go it as far as it is open; what is on it already is left to it."""

    reason: str | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        status, lifecycle = draft.state.status, draft.lifecycle
        if status in lifecycle.final:
            return
        if status not in lifecycle.drains:
            [first, *_] = lifecycle.way_out(status)
            cause = None
            if status == lifecycle.initial:
                cause = self.reason or ENDED_BEFORE_START
            draft.fire(first.trigger, reason=self.reason, **_error_argument(first, cause))
        settle(draft)


@attrs.frozen
class Fail:
    """Go the whole way out at once: tasks are dropped and named, the cause is kept."""

    error: str
    reason: str | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        lifecycle = draft.lifecycle
        dropped = draft.state.active_tasks
        cause = error_with(_without_error(draft.state), self.error, dropped)
        for row in lifecycle.way_out(draft.state.status):
            if row.target is not None and not lifecycle.holds_tasks(row.target):
                drop_tasks(draft, draft.state.active_tasks, reason=self.error)
            told = _error_argument(row, cause)
            draft.fire(row.trigger, reason=self.reason or self.error, **told)
            cause = None if told else cause


def _without_error(state: SessionState) -> SessionState:
    return state.derive({"error": None}, at=state.updated_at)


def drop_tasks(draft: Draft, tasks: tuple[str, ...], *, reason: str) -> None:
    """End tasks that nobody will end, each as a step that names it."""
    for task in tasks:
        draft.fire(draft.lifecycle.role("end_task"), reason=f"dropped: {reason}", task_id=task)


@attrs.frozen
class FireDue:
    """Fire the timed row that is due, if one is, and what follows from it."""

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        timed = next_timed(draft.state, draft.lifecycle)
        if timed is not None and timed[1] <= draft.at:
            had_tasks = bool(draft.state.active_tasks)
            draft.fire(timed[0])
            if draft.auto_idle and had_tasks:
                rest(draft)
        settle(draft)


@attrs.frozen
class StopDone:
    """Note that the worker has stopped, and go on with the way out.

    Attributes:
        error: What went wrong with stopping it; None if nothing did.
    """

    error: str | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        draft.let_go.add(Work("worker"))
        update = draft.row("update")
        if self.error is not None and update is not None and "error" in update.optional:
            error = error_with(draft.state, self.error)
            draft.fire(update.trigger, error=error)
        settle(draft)


@attrs.frozen
class Recover:
    """Clear away what dead owners left in a session, and nothing of anybody else.

    Attributes:
        left: Returns what they left; asked anew for each decision, because somebody alive may have
            taken it up since. Taking it up raises the revision, so the commit would see it.
        holder_id: In whose name it stands.
        error: What the session is ended with, if a worker is among it; None: it lives on.
    """

    left: Callable[[], tuple[Work, ...]]
    holder_id: str
    error: str | None = None

    def __call__(self, draft: Draft) -> None:
        """Decide."""
        draft.let_go.update(self.left())
        draft.holder_id = self.holder_id
        tasks = tuple(
            task for task in draft.state.active_tasks if Work("task", task) in draft.let_go
        )
        drop_tasks(draft, tasks, reason="its owner died")
        ran = Work("worker") in draft.let_go
        if Work("start") in draft.let_go and Work("start") in work_of(draft.state, draft.lifecycle):
            Fail("the owner died during the start")(draft)
        elif ran and self.error is not None:
            Fail(self.error)(draft)
        elif tasks or ran:
            rest(draft)
        settle(draft)
