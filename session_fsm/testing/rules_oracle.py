"""What must come of a manager's verbs, told by the pure functions alone.

A *story* is what the documents say that a verb does: a generator that yields one trigger with its
arguments after the other, and is sent the state that each leads to. `Oracle.foresee` walks through
a story by `step`, and gives the moves, or the fault that the story ends with. Where only the order
of the moves is a manager's own choice (`fail`, `recover`), what was committed is told again:
`Oracle.retell` makes every step of it anew, by `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from ..errors import SessionFsmError, TransitionError
from ..explain import explain, next_timed
from ..lifecycle import Lifecycle
from ..machine import step, transition
from ..session import SessionEvent
from ..state import SessionState
from ..table import dropped_in_words

Telling = Generator[tuple[str, Mapping[str, Any]], SessionState, None]
"""Yields a trigger and its arguments, and is sent the state that they lead to."""
_Settling = Generator[tuple[str, Mapping[str, Any]], SessionState, SessionState]
Story = Callable[[SessionState], Telling]
"""Tells, from a state on, what a verb does."""


@attrs.frozen
class Move:
    """One step that must be made."""

    trigger: str
    before: SessionState
    after: SessionState


@attrs.frozen
class Foreseen:
    """What must come of a verb.

    Attributes:
        state: The state that it ends in; the one that it began in, if there is a fault.
        moves: The steps, in order; empty if there is nothing to do, or a fault.
        fault: What it must raise; None if it must succeed.
    """

    state: SessionState
    moves: tuple[Move, ...] = ()
    fault: Exception | None = None


@attrs.frozen
class Oracle:
    """Foresees what comes of verbs at one instant.

    Attributes:
        lifecycle: The table.
        at: The instant.
        auto_idle: Whether the end of the last task puts a session to rest.
    """

    lifecycle: Lifecycle
    at: datetime
    auto_idle: bool = True

    def foresee(self, state: SessionState, story: Story) -> Foreseen:
        """Walk through a story from a state on."""
        moves: list[Move] = []
        now = state
        telling = story(state)
        try:
            trigger, arguments = next(telling)
            while True:
                after = self._step(now, trigger, arguments)
                moves.append(Move(trigger, now, after))
                now = after
                trigger, arguments = telling.send(now)
        except StopIteration:
            return Foreseen(now, tuple(moves))
        except (SessionFsmError, TypeError) as fault:
            return Foreseen(state, fault=fault)

    def _step(
        self, state: SessionState, trigger: str, arguments: Mapping[str, Any]
    ) -> SessionState:
        try:
            return step(state, trigger, at=self.at, lifecycle=self.lifecycle, **arguments)
        except TransitionError as raised:
            fault = raised
        dry = explain(state, trigger, at=self.at, lifecycle=self.lifecycle, **arguments)
        assert dry == fault.refusal, f"a dry run says {dry}, and the move {fault.refusal}"
        raise fault

    def accepts(self, state: SessionState, trigger: str) -> bool:
        """Tell whether a bare trigger would be accepted."""
        return explain(state, trigger, at=self.at, lifecycle=self.lifecycle) is None

    # --- stories ----------------------------------------------------------------------------

    def fire(self, trigger: str, arguments: Mapping[str, Any]) -> Story:
        """A trigger is fired, and what follows from it."""

        def story(state: SessionState) -> Telling:
            state = yield trigger, arguments
            yield from self._follow(state, trigger)

        return story

    def move_to(self, to: str, arguments: Mapping[str, Any]) -> Story:
        """The one hand-fired row to a status is fired, and what follows from it."""

        def story(state: SessionState) -> Telling:
            # For its refusal, of words and edges that there are not.
            transition(state, to, at=self.at, lifecycle=self.lifecycle, **arguments)
            row = self.lifecycle.by_hand(state.status, to)
            assert row is not None
            state = yield row.trigger, arguments
            yield from self._follow(state, row.trigger)

        return story

    def begin_task(self, task_id: str) -> Story:
        """A task begins; a session at rest wakes first."""

        def story(state: SessionState) -> Telling:
            trigger = self.lifecycle.role("begin_task")
            wake = self.lifecycle.roles.get("wake", "")
            rests = self.lifecycle.find(trigger, state.status) is None
            if rests and self.lifecycle.find(wake, state.status) is not None:
                yield wake, {}
            state = yield trigger, {"task_id": task_id}
            yield from self._settle(state)

        return story

    def terminate(self, reason: str) -> Story:
        """The way out is begun, and gone as far as it is open."""

        def story(state: SessionState) -> Telling:
            lifecycle = self.lifecycle
            if state.status in lifecycle.final:
                return
            if state.status not in lifecycle.drains:
                first = lifecycle.way_out(state.status)[0]
                # Who never began to live has an error, because it never did.
                unborn = state.status == lifecycle.initial and "error" in first.optional
                state = yield first.trigger, {"error": reason} if unborn else {}
            yield from self._settle(state)

        return story

    def sweep(self, state: SessionState) -> Telling:
        """Rows that are due are fired, and what follows from each."""
        while (timed := next_timed(state, self.lifecycle)) is not None and timed[1] <= self.at:
            worked = bool(state.active_tasks)
            state = yield timed[0], {}
            rest = self.lifecycle.roles.get("rest", "")
            if self.auto_idle and worked and not state.active_tasks and self.accepts(state, rest):
                state = yield rest, {}
            state = yield from self._settle(state)

    def follows(self, task_ended: bool) -> Story:
        """What follows by itself is done, after the end of a task or of anything else."""
        ended = self.lifecycle.roles.get("end_task", "") if task_ended else ""
        return lambda state: self._follow(state, ended)

    def _follow(self, state: SessionState, trigger: str) -> Telling:
        rest, roles = self.lifecycle.roles.get("rest", ""), self.lifecycle.roles
        ended = self.auto_idle and trigger == roles.get("end_task") and not state.active_tasks
        if ended and self.accepts(state, rest):
            state = yield rest, {}
        yield from self._settle(state)

    def _settle(self, state: SessionState) -> _Settling:
        """Go on with a way out that waits for no task; returns the state that this leads to."""
        while state.status in self.lifecycle.drains and not state.active_tasks:
            ending = self.lifecycle.way_out(state.status)[0].trigger
            if not self.accepts(state, ending):
                break
            state = yield ending, {}
        return state

    # --- what was told ------------------------------------------------------------------------

    def retell(self, state: SessionState, events: Iterable[SessionEvent]) -> Foreseen:
        """Make the steps of an ending or a recovery again, in the order of its events.

        Tasks end as the events tell. The first row on the way out that takes an error is given the
        reason of its event, with the tasks that were in flight at the start.

        Raises:
            AssertionError: An event is no step that may be part of an ending or a recovery.
        """
        lifecycle = self.lifecycle
        known = [lifecycle.roles.get(role) for role in ("end_task", "rest")]
        dropped, moves, told = state.active_tasks, [], False
        for event in events:
            assert event.trigger is not None, f"{event} is no step"
            row = lifecycle.find(event.trigger, state.status)
            assert row is not None, f"{event.trigger!r} can't be fired in {state.status!r}"
            ends = row.trigger == known[0]
            assert row.ending or row.trigger in known, f"{row} ends nothing"
            arguments: dict[str, Any] = {}
            if ends:
                left = event.changes.get("active_tasks", ())
                gone = [task for task in state.active_tasks if task not in left]
                assert len(gone) == 1, f"one task ends at a time, not {gone}"
                arguments["task_id"] = gone[0]
            elif event.reason is not None and "error" in row.optional and not told:
                told = True
                tail = (dropped_in_words(dropped),) if dropped else ()
                arguments["error"] = "; ".join((event.reason, *tail))
            after = self._step(state, row.trigger, arguments)
            moves.append(Move(row.trigger, state, after))
            state = after
        return Foreseen(state, tuple(moves))
