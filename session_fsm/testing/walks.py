"""Going a path through a lifecycle: by a session machine, or by a manager on its store.

What a path leaves open is filled in on the way. Arguments are given by trigger; a row that fires by
itself is waited for; and for a guard that would not hold, a hook does beforehand what makes it
hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..clock import ManualClock
from ..errors import LifecycleError, SessionStartError
from ..explain import attempt, next_timed
from ..lifecycle import Lifecycle
from ..machine import SessionMachine
from ..manager import SessionManager
from ..session import Session, SessionEvent
from ..state import SessionConfig, SessionState
from .authors import BEGINNING
from .paths import LifecyclePath, PathStep

Given = Mapping[str, Mapping[str, Any] | Callable[[SessionState], Mapping[str, Any]]]
"""The arguments of triggers, or functions of the state that give them."""
Before = Mapping[str, Callable[["Walk"], object]]
"""What is done before a trigger is fired, by trigger."""


class Walk(ABC):
    """A path on its way, as hooks are shown it.

    Attributes:
        path: The path.
        lifecycle: Its table, with the graces of whoever makes the steps.
        clock: What tells the time; hooks may move it.
        made: How many of its steps were made.
    """

    def __init__(
        self,
        path: LifecyclePath,
        lifecycle: Lifecycle,
        clock: ManualClock,
        arguments: Given,
        before: Before,
    ) -> None:
        self.path = path
        self.lifecycle = lifecycle
        self.clock = clock
        self.made = 0
        self._arguments = arguments
        self._before = before
        for what, given in (("arguments", arguments), ("before", before)):
            if unknown := sorted(set(given).difference(lifecycle.triggers)):
                problem = f"{what}: there is no trigger {', '.join(map(repr, unknown))}"
                raise LifecycleError(problem=problem, lifecycle=lifecycle.name)

    @property
    @abstractmethod
    def state(self) -> SessionState:
        """The state that the session is in."""

    @property
    def ahead(self) -> tuple[PathStep, ...]:
        """The steps that are still to be made, in order; the first is the next one."""
        return self.path.steps[self.made :]

    @abstractmethod
    def fire(self, trigger: str, **arguments: Any) -> SessionState:
        """Make a step that is not on the path, and leave the status as it is; for hooks.

        Raises:
            TransitionError: It is refused.
        """

    @abstractmethod
    def _step(self, step: PathStep) -> None:
        """Make the next step of the path."""

    def _went_on(self) -> bool:
        """Take the next step for made, if it was made by itself already."""
        return False

    def go(self, *, until: Callable[[PathStep], bool] = lambda _: False) -> None:
        """Make the steps of the path, up to one where it stops.

        Raises:
            AssertionError: The session is not where the path leads to.
            TransitionError: A step is refused; a note of the error tells which.
        """
        while self.ahead and not until(self.ahead[0]):
            step = self.ahead[0]
            try:
                if not self._went_on():
                    if (hook := self._before.get(step.trigger)) is not None:
                        hook(self)
                    if not self._went_on():
                        self._make(step)
            except Exception as fault:
                told = f"{step.trigger!r} from {str(step.source)!r}"
                fault.add_note(f"at step {self.made + 1}, {told}, of the path {self.path}")
                raise
            self.made += 1

    def _make(self, step: PathStep) -> None:
        self._is_in(step.source)
        if step.timed:
            self._wait_for(step)
        self._step(step)
        self._is_in(step.target)

    def _is_in(self, status: str) -> None:
        found = self.state.status
        assert found == status, f"the session is {str(found)!r}, not {str(status)!r}"

    def _wait_for(self, step: PathStep) -> None:
        """Move the clock to the deadline of a row that fires by itself."""
        row, state = self.lifecycle.find(step.trigger, step.source), self.state
        assert row is not None
        assert row.deadline is not None
        shown = attempt(state, state.updated_at, {}, self.lifecycle)
        due = row.deadline.at(shown, step.trigger)
        assert due is not None, f"no clock runs for {step.trigger!r} ({row.deadline.name})"
        if due > self.clock.now():
            self.clock.set(due)

    def _arguments_for(self, step: PathStep) -> Mapping[str, Any]:
        given = self._arguments.get(step.trigger, {})
        return given(self.state) if callable(given) else given


class _MachineWalk(Walk):
    """A walk by a session machine."""

    def __init__(self, machine: SessionMachine, *rest: Any) -> None:
        super().__init__(*rest)
        self.machine = machine

    @property
    def state(self) -> SessionState:
        return self.machine.state

    def fire(self, trigger: str, **arguments: Any) -> SessionState:
        return self.machine.fire(trigger, at=self.clock.now(), **arguments)

    def _step(self, step: PathStep) -> None:
        self.fire(step.trigger, **self._arguments_for(step))


class _ManagerWalk(Walk):
    """A walk by a manager; steps that it makes by itself are taken for made."""

    def __init__(self, manager: SessionManager, session_id: str, *rest: Any) -> None:
        super().__init__(*rest)
        self.manager = manager
        self._session_id = session_id
        self._seen = 0

    @property
    def state(self) -> SessionState:
        return self.manager.get(self._session_id).state

    def fire(self, trigger: str, **arguments: Any) -> SessionState:
        unseen = self._unseen()
        assert not unseen, f"{_told(unseen[0])}: nothing else can be fired before the path goes on"
        self.manager.fire(self._session_id, trigger, **arguments)
        self._seen += 1
        return self.state

    def begin(self) -> None:
        """Count the creation for seen."""
        self._seen = 1

    def _step(self, step: PathStep) -> None:
        timed = next_timed(self.state, self.lifecycle)
        if step.timed and timed is not None and timed[0] == step.trigger:
            self.manager.sweep()
        else:
            self.manager.fire(self._session_id, step.trigger, **self._arguments_for(step))
        assert self._went_on(), "the manager made no step"

    def _is_in(self, status: str) -> None:
        """Leave it to the events, which are looked at one by one: a manager goes on by itself."""

    def _went_on(self) -> bool:
        unseen = self._unseen()
        if not unseen:
            return False
        made, step = unseen[0], self.ahead[0]
        due = (step.trigger, step.source, step.target)
        told = f"{_told(made)}: a hook may hold it back, by a task in flight for one"
        assert (made.trigger, made.source, made.target) == due, told
        self._seen += 1
        return True

    def _unseen(self) -> tuple[SessionEvent, ...]:
        return self.manager.history(self._session_id)[self._seen :]


def _told(event: SessionEvent) -> str:
    return f"the manager itself fired {event.trigger!r} from {str(event.source)!r}"


def walk(
    path: LifecyclePath,
    *,
    state: SessionState | None = None,
    arguments: Given | None = None,
    before: Before | None = None,
    at: datetime | None = None,
) -> SessionMachine:
    """Go a path with a session machine; every step is fired, and must lead where the path says.

    Time stands still, but for rows that fire by themselves: the clock is moved to their deadline.

    Args:
        path: The way.
        state: Where the walk begins, in the initial status; None: a new session.
        arguments: What comes with a trigger: its arguments by name, or a function of the state
            that returns them.
        before: What is done before a trigger of the path is fired, called with the `Walk`: a hook
            sees its `state` and what is `ahead`, may `fire` steps that are not on the path as long
            as they keep the status, and may move its `clock`.
        at: When it begins, aware; never before the last change of `state`, and None: just then.

    Returns:
        The machine, at the end of the path.

    Raises:
        TransitionError: A step is refused. A note of the error tells which step of which path.
        AssertionError: No clock runs for a row that fires by itself, or a hook left the status.
        LifecycleError: Arguments or a hook are for a trigger that there is not.

    Example:
        >>> from session_fsm.testing.paths import simple_paths
        >>> for path in simple_paths(to="idle"):
        ...     machine = walk(path)
        ...     print(path, "leads to", machine.state.status, "at", machine.revision)
        activate -> go_idle leads to idle at 2
    """
    if state is None:
        begun = BEGINNING if at is None else at
        state = SessionState.new("walker", at=begun, status=path.lifecycle.initial)
    machine = SessionMachine(state, path.lifecycle)
    clock = ManualClock(state.updated_at if at is None else max(at, state.updated_at))
    _MachineWalk(machine, path, path.lifecycle, clock, arguments or {}, before or {}).go()
    return machine


def walk_managed(
    path: LifecyclePath,
    manager: SessionManager,
    clock: ManualClock,
    *,
    session_id: str = "walker",
    config: SessionConfig | None = None,
    metadata: Mapping[str, Any] | None = None,
    arguments: Given | None = None,
    before: Before | None = None,
) -> Session:
    """Go a path with a manager, on its store; see `walk`.

    A row that fires by itself is left to a sweep. What else a manager does by itself, such as to
    activate a session that was created, or to go on with a way out that waits for nothing, must be
    the next step of the path; where it is not, a hook holds it back. Steps before a session is
    activated are made while it starts.

    Args:
        path: The way, in the lifecycle of the manager.
        manager: What creates the session and makes the steps.
        clock: The clock of the manager.
        session_id: The id of the session, which must be free.
        config: How it may be used; None: the defaults.
        metadata: What it is created with; None: nothing.
        arguments: As for `walk`.
        before: As for `walk`.

    Returns:
        The session, at the end of the path. A path that ends before the session is activated
        goes one step further than it says: a manager activates what it creates.

    Raises:
        TransitionError: A step is refused. A note of the error tells which step of which path.
        AssertionError: The manager did something else by itself, or no clock runs for a row that
            fires by itself.
        LifecycleError: Arguments or a hook are for a trigger that there is not, or the manager has
            sessions of another lifecycle.
    """
    lifecycle = manager.lifecycle
    if path.lifecycle.fingerprint != lifecycle.fingerprint:
        problem = f"the manager has sessions of {lifecycle.name!r}"
        raise LifecycleError(problem=problem, lifecycle=path.lifecycle.name)
    given = (arguments or {}, before or {})
    walking = _ManagerWalk(manager, session_id, path, lifecycle, clock, *given)
    activate = lifecycle.roles.get("activate")
    faults: list[BaseException] = []

    def start(_: Session) -> None:
        walking.begin()
        try:
            walking.go(until=lambda step: step.trigger == activate)
        except BaseException as fault:
            faults.append(fault)
            raise

    created: dict[str, Any] = {"config": config, "metadata": metadata}
    if path.steps and activate is not None and path.steps[0].trigger != activate:
        try:
            manager.create(session_id, start=start, **created)
        except SessionStartError:
            if faults:
                raise faults[0] from None
            # The path has led elsewhere meanwhile, so that there was nothing left to activate.
            if walking.ahead:
                raise
    else:
        manager.create(session_id, **created)
        walking.begin()
    walking.go()
    return manager.get(session_id)
