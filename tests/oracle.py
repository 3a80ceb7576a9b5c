"""A second engine, that of python-statemachine, run on our export with a clock of the test."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import attrs
from statemachine import event_data
from statemachine.engines import sync
from statemachine.exceptions import TransitionNotAllowed
from statemachine.io import load
from statemachine.model import Model

from session_fsm import (
    Guard,
    Lifecycle,
    Row,
    SessionMachine,
    SessionState,
    TransitionError,
)
from session_fsm.diagrams.scxml import NAMESPACE, OWN_NAMESPACE
from session_fsm.guards import Attempt, Deadline, after_grace

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCXML, OWN = f"{{{NAMESPACE}}}", f"{{{OWN_NAMESPACE}}}"
TICK_SECONDS = 0.125
"""All times are whole multiples of it, which floats and microseconds both hold exactly."""
WAITS = (0, 0, 0, 0, 0, 0, 0, TICK_SECONDS, 1, 2.5, 9.875, 10, 60)
"""What passes before a trigger, in seconds."""


class Seconds:
    """The clock of the second engine: seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Engine(sync.SyncEngine):
    """Leaves what is not due yet in its queue, where the original one would wait for it."""

    def _take_due_external_event(self, first_result: Any) -> Any:
        waiting = self.external_queue.queue.queue
        now: float = vars(sync)["monotonic"]()
        if waiting and waiting[0].execution_time > now and not waiting[0].cancelled:
            return False, first_result
        taken: Any = super()._take_due_external_event(first_result)  # type: ignore[no-untyped-call]
        return taken


@contextmanager
def timed_by(clock: Seconds) -> Iterator[None]:
    """Let the second engine take the time from a clock."""
    with (
        mock.patch.object(event_data, "monotonic", clock),
        mock.patch.object(sync, "monotonic", clock),
    ):
        yield


class Other:
    """The second engine on a document."""

    def __init__(self, document: str) -> None:
        loaded = load(document, format="scxml")

        class Chart(loaded):  # type: ignore[misc, valid-type]  # made at run time
            allow_event_without_transition = False
            catch_errors_as_events = False

            def _get_engine(self) -> _Engine:
                return _Engine(self)

        self._chart = Chart
        self._run = Chart()
        self._variables = dict(vars(self._run.model))

    def begin(self) -> None:
        """Begin anew, in the initial status."""
        # A document declares its variables once, for the first run; the others are given them.
        model = Model()  # type: ignore[no-untyped-call]
        vars(model).update(self._variables | {"state": None})
        self._run = self._chart(model)

    @property
    def status(self) -> str:
        """The id of the state that is active."""
        [state] = self._run.configuration
        return str(state.id)

    def set(self, values: dict[str, int]) -> None:
        """Give variables of the document their values."""
        for variable, value in values.items():
            assert hasattr(self._run.model, variable)
            setattr(self._run.model, variable, value)

    def wait(self) -> bool:
        """Let what is due happen; whether each of its events was taken by a transition."""
        try:
            self._run._engine.processing_loop()
        except TransitionNotAllowed:
            return False
        return True

    def send(self, event: str) -> bool:
        """Send an event; whether a transition took it."""
        try:
            self._run.send(event)
        except TransitionNotAllowed:
            return False
        return True


def _nothing(attempt: Attempt) -> Mapping[str, Any]:
    return {}


class Ours:
    """Our machine on a lifecycle whose guards are set from outside.

    Deadlines that begin with the status stay what they are; the others are set too.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.values: dict[str, bool] = {}
        self.lifecycle = attrs.evolve(
            lifecycle,
            rows=[
                attrs.evolve(
                    row,
                    guards=[self._guard(guard) for guard in row.guards],
                    deadline=self._deadline(row),
                    effect=row.effect and _nothing,
                )
                for row in lifecycle.rows
            ],
        )

    def _guard(self, guard: Guard) -> Guard:
        return Guard(guard.name, lambda _: self.values[guard.name], "set so")

    def _deadline(self, row: Row) -> Deadline | None:
        if row.deadline is None or runs_with_status(row):
            return row.deadline

        def find(attempt: Attempt) -> datetime | None:
            return attempt.state.updated_at if self.values[f"due {row.trigger}"] else None

        return Deadline(row.deadline.name, find)

    def begin(self, at: datetime) -> None:
        """Begin anew, in the initial status."""
        first = SessionState.new("session", at=at, status=self.lifecycle.initial)
        self.machine = SessionMachine(first, self.lifecycle)

    @property
    def status(self) -> str:
        """The status of the session."""
        return str(self.machine.state.status)

    def send(self, trigger: str, at: datetime) -> bool:
        """Fire a trigger; whether it was accepted."""
        row = self.lifecycle.find(trigger, self.machine.state.status)
        given = dict.fromkeys(() if row is None else row.required, "given")
        try:
            self.machine.fire(trigger, at=at, **given)
        except TransitionError:
            return False
        return True

    def wait(self, at: datetime) -> None:
        """Fire what is due, as a manager does."""
        for row in self.lifecycle.timed(self.machine.state.status):
            if runs_with_status(row) and self.send(row.trigger, at):
                return


def runs_with_status(row: Row) -> bool:
    """Whether a row is due a grace after its status began."""
    deadline = row.deadline
    if deadline is None or deadline.grace is None:
        return False
    return deadline.name == after_grace(deadline.grace).name


@attrs.frozen
class Document:
    """What a document calls things.

    Attributes:
        text: The document.
        states: The status that each state stands for, by the id of the state.
        guards: The variable of each guard, by its name.
        due: The variable of each deadline, by the trigger of its row.
    """

    text: str
    states: Mapping[str, str]
    guards: Mapping[str, str]
    due: Mapping[str, str]


def read(text: str) -> Document:
    """Read what an export calls things."""
    root = ElementTree.fromstring(text)
    guards = {each.get(f"{OWN}guard"): each.get("id") for each in root.iter(f"{SCXML}data")}
    due = {
        str(each.get("event")).removeprefix("due-"): each.find(f"{SCXML}assign")
        for each in root.iter(f"{SCXML}transition")
        if str(each.get("event")).startswith("due-")
    }
    return Document(
        text,
        {str(each.get("id")): str(each.get(f"{OWN}status")) for each in states_of(root)},
        {name: str(variable) for name, variable in guards.items() if name is not None},
        {name: str(each.get("location")) for name, each in due.items() if each is not None},
    )


def states_of(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The elements of the states, in the order of the document."""
    return [each for each in root if each.tag in (f"{SCXML}state", f"{SCXML}final")]


@attrs.define
class Replay:
    """What came of the same random triggers in both engines.

    Attributes:
        steps: How many triggers were sent.
        fired: How often each (status, trigger) was accepted.
        refused: How often each was refused.
        timed: How often a status was left by time alone.
        difference: The first step at which the two differed, in words; None if none did.
    """

    steps: int = 0
    fired: Counter[tuple[str, str]] = attrs.Factory(Counter)
    refused: Counter[tuple[str, str]] = attrs.Factory(Counter)
    timed: Counter[str] = attrs.Factory(Counter)
    difference: str | None = None


def replay(lifecycle: Lifecycle, text: str, *, seed: int, steps: int) -> Replay:
    """Send random triggers, at random times and with random guards, to both engines.

    Returns:
        What came of it; it ends with the first difference.
    """
    chance = random.Random(seed)
    document = read(text)
    clock, ours, done = Seconds(), Ours(lifecycle), Replay()
    at = BEGINNING
    ours.begin(at)
    triggers = (*lifecycle.triggers, "unknown")
    # A life is longer, and more of it is seen, if what ends it is rarer.
    weights = [
        1 if any(r.ending for r in lifecycle.rows if r.trigger == t) else 6 for t in triggers
    ]
    opaque = [row.trigger for row in lifecycle.rows if row.deadline and not runs_with_status(row)]
    with timed_by(clock):
        other = Other(text)
        while done.steps < steps and done.difference is None:
            if ours.machine.state.status in lifecycle.final:
                ours.begin(at)
                other.begin()
            done.steps += 1
            waited = chance.choice(WAITS)
            clock.now += waited
            at += timedelta(seconds=waited)
            values = {name: chance.random() < 0.7 for name in document.guards}
            due = {name: chance.random() < 0.3 for name in opaque}
            ours.values = values | {f"due {name}": value for name, value in due.items()}
            before = ours.status
            ours.wait(at)
            done.timed[before] += ours.status != before
            said = f"after {waited} s in {before!r}"
            taken = other.wait()
            mine = theirs = taken
            if taken and document.states[other.status] == ours.status:
                other.set({document.guards[name]: int(value) for name, value in values.items()})
                other.set({document.due[name]: int(value) for name, value in due.items()})
                [trigger] = chance.choices(triggers, weights)
                before = ours.status
                mine, theirs = ours.send(trigger, at), other.send(trigger)
                (done.fired if mine else done.refused)[before, trigger] += 1
                said = f"{trigger!r} in {before!r} with {values}, due {due}: {mine}, {theirs}"
            found = document.states[other.status]
            if not taken or mine != theirs or found != ours.status:
                done.difference = f"step {done.steps}: {said}; now in {ours.status!r}, {found!r}"
    return done
