"""The rules by which sessions are moved and worked with, rightly and wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ..errors import LifecycleError, RevisionConflictError, SessionFsmError
from ..explain import next_timed, permitted
from ..manager import SessionManager
from ..session import Session
from .rules_driving import MANAGERS, REASONS, SESSIONS, UNKNOWN, same_fault
from .rules_ending import EndingRules
from .rules_oracle import Story


class MovingRules(EndingRules):
    """Triggers, targets, and the verbs that play a role."""

    # --- rules: moving ------------------------------------------------------------------------

    @rule(number=MANAGERS, session_id=SESSIONS, reason=REASONS, data=st.data())
    def fire(self, number: int, session_id: str, reason: str | None, data: st.DataObject) -> None:
        """Fire any trigger, or one that there is not."""
        self._fire(number, session_id, data, (*self.lifecycle.triggers, UNKNOWN), reason)

    @rule(number=MANAGERS, session_id=SESSIONS, data=st.data())
    def walk(self, number: int, session_id: str, data: st.DataObject) -> None:
        """Fire some triggers that would be accepted, or let a deadline pass, by turns.

        Without this, no life that takes more than a few steps would be led to its end.
        """
        for _ in range(data.draw(st.integers(0, 8), "steps") if session_id in self.shadows else 0):
            state = self.shadows[session_id].state
            allowed = permitted(state, at=self.now, lifecycle=self.lifecycle)
            rows = [self.lifecycle.find(trigger, state.status) for trigger in allowed]
            onward = [row for row in rows if row is not None and not row.ending]
            moves = [row.trigger for row in onward if row.target is not None]
            timed = next_timed(state, self.lifecycle)
            if timed is not None and data.draw(st.integers(0, 4), "waits") == 4:
                self.clock.set(max(self.now, timed[1]))
                self.sweep_at(number)
            elif onward:
                triggers = (*moves, *moves, *moves, *(row.trigger for row in onward))
                self._fire(number, session_id, data, triggers, None)
            number = 1 - number

    def _fire(
        self,
        number: int,
        session_id: str,
        data: st.DataObject,
        triggers: tuple[str, ...],
        reason: str | None,
    ) -> None:
        trigger = data.draw(st.sampled_from(triggers), "trigger")
        self._fire_told(number, session_id, trigger, self.draw(data, trigger, session_id), reason)

    def _fire_told(
        self,
        number: int,
        session_id: str,
        trigger: str,
        told: dict[str, Any],
        reason: str | None = None,
    ) -> None:
        self.drive(
            number,
            session_id,
            lambda manager: manager.fire(session_id, trigger, reason=reason, **told),
            self.oracle().fire(trigger, told),
            reason=reason,
        )

    @rule(number=MANAGERS, session_id=SESSIONS, data=st.data())
    def fire_with_wrong_arguments(self, number: int, session_id: str, data: st.DataObject) -> None:
        """Fire a trigger with an argument that no row takes: an error, and nothing happens."""
        trigger = data.draw(st.sampled_from(self.lifecycle.triggers), "trigger")
        told = {**self.draw(data, trigger, session_id), "no_such_argument": 1}
        self._fire_told(number, session_id, trigger, told)

    @rule(number=MANAGERS, session_id=SESSIONS, off=st.sampled_from((-1, 0, 1)), data=st.data())
    def fire_at_revision(self, number: int, session_id: str, off: int, data: st.DataObject) -> None:
        """Fire a trigger if the session is at a revision: another one is told before a refusal."""
        shadow = self.shadows.get(session_id)
        if shadow is None:
            return
        revision = shadow.revision + off
        trigger = data.draw(st.sampled_from(self.lifecycle.triggers), "trigger")
        told = self.draw(data, trigger, session_id)

        def verb(manager: SessionManager) -> Session:
            return manager.fire(session_id, trigger, expected_revision=revision, **told)

        if off:
            due = RevisionConflictError(
                session_id=session_id, expected=revision, found=shadow.revision
            )
            same_fault(self.refused(number, verb), due)
        else:
            self.drive(number, session_id, verb, self.oracle().fire(trigger, told))

    @rule(number=MANAGERS, session_id=SESSIONS, reason=REASONS, data=st.data())
    def transition(
        self, number: int, session_id: str, reason: str | None, data: st.DataObject
    ) -> None:
        """Move a session to any status, or to one that there is not."""
        to = data.draw(st.sampled_from((*self.lifecycle.statuses, UNKNOWN)), "to")
        shadow = self.shadows.get(session_id)
        told: dict[str, Any] = {}
        if shadow is not None and to in self.lifecycle:
            with contextlib.suppress(LifecycleError):  # two rows: that is told by the story too
                row = self.lifecycle.by_hand(shadow.state.status, to)
                told = {} if row is None else self.draw(data, row.trigger, session_id)
        self.drive(
            number,
            session_id,
            lambda manager: manager.transition(session_id, to, reason=reason, **told),
            self.oracle().move_to(to, told),
            reason=reason,
        )

    # --- rules: the roles ---------------------------------------------------------------------

    def _play(
        self,
        role: str,
        number: int,
        session_id: str,
        verb: Callable[[SessionManager], Session],
        story: Callable[[str], Story],
    ) -> None:
        """Play a role, by the trigger that the lifecycle has for it; without one, there is no way.

        Args:
            role: Which role.
            number: Which manager.
            session_id: The session that the verb is about; it may be absent.
            verb: Calls the manager.
            story: Tells, of the trigger, what the verb does.
        """
        trigger = self.lifecycle.roles.get(role)
        if trigger is None:
            fault = self.refused(number, verb)
            absent = session_id not in self.shadows
            assert absent or isinstance(fault, LifecycleError), f"nobody plays {role!r}: {fault!r}"
            return
        self.drive(number, session_id, verb, story(trigger))

    @rule(number=MANAGERS, session_id=SESSIONS, data=st.data())
    def begin_task(self, number: int, session_id: str, data: st.DataObject) -> None:
        """Begin a task; it wakes a session at rest."""
        task = self._task(data, "begin_task", session_id)
        self._play(
            "begin_task",
            number,
            session_id,
            lambda manager: manager.begin_task(session_id, task),
            lambda _: self.oracle().begin_task(task),
        )

    @rule(number=MANAGERS, session_id=SESSIONS, data=st.data())
    def end_task(self, number: int, session_id: str, data: st.DataObject) -> None:
        """End a task; with the last one a session rests, or goes on with its way out."""
        task = self._task(data, "end_task", session_id)
        self._play(
            "end_task",
            number,
            session_id,
            lambda manager: manager.end_task(session_id, task),
            lambda trigger: self.oracle().fire(trigger, {"task_id": task}),
        )

    def _task(self, data: st.DataObject, role: str, session_id: str) -> str:
        trigger = self.lifecycle.roles.get(role, "")
        task: str = self.draw(data, trigger, session_id).get("task_id", "t")
        return task

    @rule(number=MANAGERS, session_id=SESSIONS)
    def start_conversation(self, number: int, session_id: str) -> None:
        """Count one more conversation."""
        self._play(
            "count",
            number,
            session_id,
            lambda manager: manager.start_conversation(session_id),
            lambda trigger: self.oracle().fire(trigger, {}),
        )

    @rule(number=MANAGERS, session_id=SESSIONS)
    def touch(self, number: int, session_id: str) -> None:
        """Note that somebody is there."""
        self._play(
            "touch",
            number,
            session_id,
            lambda manager: manager.touch(session_id),
            lambda trigger: self.oracle().fire(trigger, {}),
        )

    @rule(
        number=MANAGERS,
        session_id=SESSIONS,
        overtaken=st.sampled_from((None, None, "by an update", "by its end")),
        data=st.data(),
    )
    def update(
        self, number: int, session_id: str, overtaken: str | None, data: st.DataObject
    ) -> None:
        """Change data, by values, or by functions while another manager is faster."""
        trigger = self.lifecycle.roles.get("update", "")
        told = self.draw(data, trigger, session_id)
        if overtaken is not None and session_id in self.shadows and told:
            self._update_overtaken(number, session_id, told, overtaken)
            return
        self._play(
            "update",
            number,
            session_id,
            lambda manager: manager.update(session_id, **told),
            lambda _: self.oracle().fire(trigger, told),
        )

    def _update_overtaken(
        self, number: int, session_id: str, told: dict[str, Any], overtaken: str
    ) -> None:
        """Update by functions, of which the first called has another manager commit something."""
        trigger = self.lifecycle.role("update")
        shadow = self.shadows[session_id]
        before, oracle, calls = shadow.state, self.oracle(), []

        def overtake(other: int) -> None:
            if overtaken == "by its end":
                self.terminate(other, session_id)
            else:
                self._fire_told(other, session_id, trigger, told)

        def function_of(value: Any) -> Any:
            def change(_: Any) -> Any:
                calls.append(value)
                if len(calls) == 1:
                    with self.noted():
                        overtake(1 - number)
                return value

            return value if value is None else change

        try:
            asked = {name: function_of(value) for name, value in told.items()}
            session = self.managers[number].update(session_id, **asked)
        except (SessionFsmError, TypeError) as fault:
            self.raise_noted()
            # On the newest state, or on that which was read when the call began.
            faults = [
                oracle.foresee(state, oracle.fire(trigger, told)).fault
                for state in (shadow.state, before)
            ]
            same_fault(fault, next(filter(None, faults), None))
        else:
            self.raise_noted()
            self.absorb(
                number, session_id, oracle.foresee(shadow.state, oracle.fire(trigger, told))
            )
            self.same_session(session)
