"""The rules by which time passes, sessions end, and managers are closed."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ..errors import LifecycleError, ManagerClosedError, SessionFsmError, TransitionError
from ..explain import next_timed
from ..lifecycle import Row
from .reachable import TICK
from .rules_driving import IDS, MANAGERS, SESSIONS, nothing
from .rules_showing import Shown

LONGEST_WAIT: Final = timedelta(minutes=1)
"""A wait looks at its session five times in a second of the clock: longer ones take too long."""


class EndingRules(Shown):
    """Time, sweeps, ends, restarts and recovery."""

    # --- rules: time, and what is due ---------------------------------------------------------

    @rule(step=st.sampled_from((TICK, timedelta(seconds=1), timedelta(minutes=1))))
    def wait(self, step: timedelta) -> None:
        """Let a little time pass."""
        self.clock.advance(step)

    @rule(off=st.sampled_from((-TICK, timedelta(0), timedelta(0), TICK)))
    def wait_for_a_deadline(self, off: timedelta) -> None:
        """Let time pass until just before the next deadline, to it, or just behind it."""
        due = self.next_deadline()
        if due is not None and due + off > self.now:
            self.clock.set(due + off)

    @rule()
    def turn_the_clock_back(self) -> None:
        """Set the clock back: what changes now changes at the instant of its last change."""
        self.clock.advance(-TICK)

    @rule(number=MANAGERS, ahead=st.booleans())
    def sweep(self, number: int, ahead: bool) -> None:
        """Fire what is due now, or what will be at the next deadline."""
        due = self.next_deadline()
        self.sweep_at(number, max(due, self.now) if ahead and due is not None else None)

    def sweep_at(self, number: int, at: datetime | None = None) -> None:
        """Sweep at an instant, or now, and compare what was fired with what was due."""
        oracle = self.oracle(at)
        foreseen = {
            each: oracle.foresee(shadow.state, oracle.sweep)
            for each, shadow in self.shadows.items()
        }
        report = self.managers[number].sweep(at=at)
        assert report.failed == ()
        for session_id, each in foreseen.items():
            events = self.absorb(number, session_id, each)
            told = tuple(event for event in report.fired if event.session_id == session_id)
            assert told == events, f"the sweep tells of {told}, and committed {events}"
        left = self.next_deadline()
        assert left is None or left > oracle.at, f"what is due at {left} was left by the sweep"
        assert report.next_deadline == left

    # --- rules: ends --------------------------------------------------------------------------

    @rule(number=MANAGERS, session_id=SESSIONS)
    def terminate(self, number: int, session_id: str) -> None:
        """End a session in good order, and leave its tasks to drain."""
        reason = None if self._is_over(session_id) else "no longer needed"
        self.drive(
            number,
            session_id,
            lambda manager: manager.terminate(session_id, reason=reason, wait=False),
            self.oracle().terminate("no longer needed"),
            reason=reason,
        )

    @rule(number=MANAGERS, session_id=SESSIONS)
    def terminate_and_wait(self, number: int, session_id: str) -> None:
        """End a session, and wait for its tasks until the deadline; nobody ends them meanwhile."""
        self.terminate(number, session_id)
        if session_id not in self.shadows:
            return
        state = self.shadows[session_id].state
        timed = next_timed(state, self.lifecycle)
        # Where the clock went back, the session is ahead of it for as long as it is waited for.
        ahead = max(timedelta(0), state.updated_at - self.now)
        if timed is None or timed[1] - self.now - ahead > LONGEST_WAIT:
            return
        session = self.managers[number].terminate(session_id)
        oracle = self.oracle(self.now + ahead)
        foreseen = oracle.foresee(self.shadows[session_id].state, oracle.sweep)
        self.absorb(number, session_id, foreseen)
        self.same_session(session)
        assert session.status in self.lifecycle.final, f"it was waited for, and is {session.status}"

    def _is_over(self, session_id: str) -> bool:
        """Tell whether a session is on its way out, or at its end."""
        shadow = self.shadows.get(session_id)
        if shadow is None:
            return True
        return shadow.state.status in (*self.lifecycle.final, *self.lifecycle.drains)

    @rule(number=MANAGERS, session_id=SESSIONS, cause=st.sampled_from(("boom", "no disk")))
    def fail(self, number: int, session_id: str, cause: str) -> None:
        """End a session at once."""
        if session_id not in self.shadows:
            self.drive(number, session_id, lambda it: it.fail(session_id, cause), nothing)
            return
        state, ways = self.shadows[session_id].state, self._way_out(session_id)
        fault: SessionFsmError | None = None
        try:
            session = self.managers[number].fail(session_id, cause)
        except (LifecycleError, TransitionError) as raised:
            fault = raised
        else:
            self.failed(number, session_id, cause)
            self.same_session(session)
        if isinstance(fault, LifecycleError):
            assert state.status not in self.lifecycle.final, f"it has ended: {fault}"
            assert not ways, f"there is a way out: {fault}"
        elif isinstance(fault, TransitionError):
            # Only a guard of a user may close the way out.
            refused = [row for row in ways if row.trigger == fault.refusal.trigger]
            assert any(row.guards for row in refused), f"the way out was closed: {fault}"

    def _way_out(self, session_id: str) -> tuple[Row, ...]:
        with contextlib.suppress(LifecycleError):
            return self.lifecycle.way_out(self.shadows[session_id].state.status)
        return ()

    def failed(self, number: int, session_id: str, cause: str) -> None:
        """Compare the steps by which a session failed with what must be made of it."""
        state, ways = self.shadows[session_id].state, self._way_out(session_id)
        told = self.oracle().retell(state, self.unseen(number, session_id))
        self.absorb(number, session_id, told)
        assert told.state.status in self.lifecycle.final, f"it failed, and is {told.state.status!r}"
        ends = self.lifecycle.roles.get("end_task")
        fired = [move.trigger for move in told.moves if move.trigger != ends]
        assert fired == [row.trigger for row in ways], f"{fired} is not the way out"
        assert not told.state.active_tasks
        if any("error" in row.optional for row in ways):
            kept = told.state.error or ""
            lost = [word for word in (cause, *state.active_tasks) if word not in kept]
            assert not lost, f"the error is {kept!r}, without {lost}"

    @rule(number=MANAGERS)
    def purge(self, number: int) -> None:
        """Remove what ended before now."""
        over = [
            each
            for each, shadow in self.shadows.items()
            if shadow.state.status in self.lifecycle.final and shadow.state.status_since < self.now
        ]
        assert self.managers[number].purge(ended_before=self.now) == len(over)
        for session_id in over:
            self.buried(number, session_id)

    # --- rules: restarts ----------------------------------------------------------------------

    @rule(number=MANAGERS)
    def restart(self, number: int) -> None:
        """Close a manager, and open another one in its place: it finds what there was."""
        closed = self.managers[number]
        self.close(number)
        assert isinstance(self.refused(number, lambda _: closed.get(IDS[0])), ManagerClosedError)
        self.open(number)

    @rule(number=MANAGERS)
    def recover(self, number: int) -> None:
        """Clear away what closed managers have left, and nothing else."""
        report = self.managers[number].recover()
        assert report.failed == ()
        dropped: list[str] = []
        ended: list[str] = []
        for session_id, shadow in self.shadows.items():
            before = shadow.state
            dropped += self._recovered(number, session_id)
            if shadow.state.status != before.status and shadow.state.status in self.lifecycle.final:
                ended.append(session_id)
        assert sorted(report.dropped_tasks) == sorted(dropped), f"{dropped} were dropped"
        assert sorted(report.ended) == sorted(ended), f"{ended} were ended"

    def _recovered(self, number: int, session_id: str) -> list[str]:
        """Compare what a recovery did with a session; the tasks that it dropped are returned."""
        shadow, lifecycle, oracle = self.shadows[session_id], self.lifecycle, self.oracle()
        before = shadow.state
        lost = [task for task in before.active_tasks if shadow.owners[task] in self._dead]
        unborn = before.status == lifecycle.initial and "activate" in lifecycle.roles
        unborn = unborn and shadow.starter in self._dead
        told = oracle.retell(before, self.unseen(number, session_id))
        assert not told.moves or lost or unborn, f"{session_id!r}: nothing had been left there"
        self.absorb(number, session_id, told)
        after = told.state
        kept = () if unborn else tuple(task for task in before.active_tasks if task not in lost)
        assert after.active_tasks == kept, f"{after.active_tasks} are left, not {kept}"
        assert not unborn or after.status in lifecycle.final, f"{session_id!r}: half-started still"
        # Nothing that follows by itself from what was dropped was forgotten.
        follows = oracle.foresee(after, oracle.follows(bool(lost)))
        assert not follows.moves, f"{session_id!r}: {follows.moves[0].trigger!r} was not fired"
        return lost
