"""Managers of any lifecycle, on any store, driven by rules that Hypothesis picks.

`LifecycleRules` is for whoever writes guards, effects or a store: it does with them whatever a
manager can do, from two managers at once, and holds each answer against what the pure functions
say. What it finds is shrunk by Hypothesis to a few lines that do it again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from ..errors import (
    SessionExistsError,
    SessionFsmError,
    SessionNotFoundError,
    SessionStartError,
    TransitionError,
)
from ..explain import explain, next_timed, permitted
from ..manager import SessionManager
from ..session import Session
from .rules_driving import IDS, MANAGERS, NEW_SESSIONS, SESSIONS, UNKNOWN, nothing, same_fault
from .rules_moving import MovingRules
from .rules_oracle import Foreseen


class LifecycleRules(MovingRules):
    """A rule-based state machine that drives two managers over one store, and an oracle.

    Subclass it with a lifecycle, with strategies for what comes with its triggers, and with a
    store; what is left out is the session lifecycle, no strategies, and a store in memory:

        class OrderRules(LifecycleRules):
            lifecycle = ORDER
            arguments = {"pay": {"cents": st.integers(1, 900)}, "ship": {"parcel": st.text()}}
            def open_store(self):
                return MyStore(self.directory / "orders", ORDER)

        TestOrders = OrderRules.TestCase
        TestOrders.settings = settings(max_examples=50, stateful_step_count=40)

    The rules create sessions, fire every trigger, legal and illegal, play every role that the
    lifecycle has, ask what is permitted and why not, let time pass (by little, to the next
    deadline, just before it), sweep, end, fail, purge, close managers and open others in their
    place, and recover what the closed ones have left. What comes of each is told beforehand by
    `step`, `explain`, `permitted` and `next_timed`, at the same instant, and compared: the answer
    or the error with its refusal, every event, and the state. After each rule both managers must
    show the same sessions, histories, lists, counts and deadlines, and the store must verify.

    Attributes:
        lifecycle: The table that is obeyed, with guards and effects.
        arguments: For triggers, strategies of their arguments by name; or functions of the state,
            which give a strategy of one argument or of all. `task_id` and the fields of data have
            strategies already. What a function is asked for may be refused: that is a rule too.
        configs: How sessions may be used; where they are kept is not chosen.
        metadata: What sessions are created with.
        auto_idle: Whether the end of the last task puts a session to rest.
        clock: What both managers tell the time by.

    Raises:
        LifecycleError: A row needs an argument without a strategy, or there is a strategy for
            nothing.

    Example:
        >>> from hypothesis import settings
        >>> from hypothesis.stateful import run_state_machine_as_test
        >>> from session_fsm import SESSION_LIFECYCLE, Row
        >>> from session_fsm.stores import SqliteStore
        >>> class AgentRules(LifecycleRules):
        ...     lifecycle = SESSION_LIFECYCLE.extend(
        ...         name="agent", rows=[Row("think", "active", None, required="thought")]
        ...     )
        ...     arguments = {"think": {"thought": st.text()}}
        ...     def open_store(self):
        ...         return SqliteStore(self.directory / "agents.db", self.lifecycle)
        >>> short = settings(max_examples=2, stateful_step_count=5, derandomize=True, database=None)
        >>> run_state_machine_as_test(AgentRules, settings=short)
    """

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Open the managers, and create a session in each, so that there is something to do."""
        self.open_both()
        for number, session_id in zip(range(2), IDS, strict=False):
            self.create(number, session_id, data)
            self.walk(number, session_id, data)

    # --- rules: creating ----------------------------------------------------------------------

    @rule(number=MANAGERS, session_id=NEW_SESSIONS, data=st.data())
    def create(self, number: int, session_id: str, data: st.DataObject) -> None:
        """Create a session; it is activated in the same commit."""
        state, given = self.new(session_id, data)

        def verb(manager: SessionManager) -> Session:
            return manager.create(session_id, **given)

        if session_id in self.shadows:
            assert isinstance(self.refused(number, verb), SessionExistsError)
            return
        activate = self.lifecycle.roles.get("activate")
        story = nothing if activate is None else self.oracle().fire(activate, {})
        foreseen = self.oracle().foresee(state, story)
        if foreseen.fault is not None:
            same_fault(self.refused(number, verb), foreseen.fault)
            return
        session = verb(self.managers[number])
        self.born(number, state)
        self.absorb(number, session_id, foreseen)
        self.same_session(session)

    @rule(
        number=MANAGERS,
        session_id=NEW_SESSIONS,
        event=st.sampled_from(("none", "late", "swept", "updated", "raises", "dies")),
        data=st.data(),
    )
    def create_slowly(self, number: int, session_id: str, event: str, data: st.DataObject) -> None:
        """Create a session whose start takes until its deadline, fails, or is never finished."""
        activate = self.lifecycle.roles.get("activate")
        if session_id in self.shadows or activate is None:
            return
        state, given = self.new(session_id, data)

        def start(session: Session) -> None:
            with self.noted():
                started(session)

        def started(session: Session) -> None:
            self.born(number, state)
            self.same_session(session)
            self.compare(1 - number)
            timed = next_timed(session.state, self.lifecycle)
            if event in ("late", "swept") and timed is not None:
                self.clock.set(timed[1])
            if event == "swept":
                self.sweep_at(1 - number)
            elif event == "updated" and "update" in self.lifecycle.roles:
                self.update(1 - number, session_id, None, data)
            elif event == "raises":
                raise _StartFailedError("no disk")
            elif event == "dies":
                self.close(number)
                raise _StartFailedError("killed")

        def verb(manager: SessionManager) -> Session:
            return manager.create(session_id, start=start, **given)

        try:
            session = verb(self.managers[number])
        except SessionStartError as raised:
            self.raise_noted()
            fault = raised
        else:
            assert event not in ("raises", "dies"), "a start that failed was taken for one"
            self.absorb(number, session_id, self._activated(session_id, activate))
            self.same_session(session)
            return
        if event == "dies":
            self.open(number)
            return
        cause = f"{_StartFailedError.__name__}: no disk"
        if event != "raises":
            foreseen = self._activated(session_id, activate)
            assert isinstance(foreseen.fault, TransitionError), f"it could start, but {fault!r}"
            cause = foreseen.fault.refusal.headline
        assert cause in fault.cause, f"{fault.cause!r} does not say {cause!r}"
        self.failed(number, session_id, cause)

    def _activated(self, session_id: str, activate: str) -> Foreseen:
        oracle = self.oracle()
        return oracle.foresee(self.shadows[session_id].state, oracle.fire(activate, {}))

    @rule(number=MANAGERS, session_id=SESSIONS, data=st.data())
    def ask(self, number: int, session_id: str, data: st.DataObject) -> None:
        """Ask what is permitted, and why a trigger would be refused: nothing happens."""
        trigger = data.draw(st.sampled_from((*self.lifecycle.triggers, UNKNOWN)), "trigger")
        if session_id not in self.shadows:
            fault = self.refused(number, lambda manager: manager.explain(session_id, trigger))
            assert isinstance(fault, SessionNotFoundError), f"there is none, but: {fault!r}"
            return
        told = self.draw(data, trigger, session_id)
        for some in ({}, told):
            self._ask(number, session_id, trigger, some)

    def _ask(self, number: int, session_id: str, trigger: str, told: dict[str, Any]) -> None:
        manager, state = self.managers[number], self.shadows[session_id].state
        given = {"at": self.now, "lifecycle": self.lifecycle, **told}
        shown = _answer(partial(manager.explain, session_id, trigger, **told))
        due = _answer(partial(explain, state, trigger, **given))
        assert shown == due, f"why not {trigger!r}: {shown}, and it must be {due}"
        shown = _answer(partial(manager.permitted, session_id, **told))
        due = _answer(partial(permitted, state, **given))
        assert shown == due, f"permitted are {shown}, and must be {due}"

    # --- what must always hold ----------------------------------------------------------------

    @invariant()
    def both_managers_show_the_same(self) -> None:
        """Both show what the sessions must be, and the store is in order."""
        for number in range(2):
            self.compare(number)
        self.compare_tidings()


class _StartFailedError(Exception):
    """What a start raises that fails."""


def _answer(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except (SessionFsmError, TypeError) as fault:
        return type(fault), str(fault)
