"""Metrics and spans of OpenTelemetry; the only module that imports its API.

Names and units follow OpenTelemetry's conventions; what is ours begins with `session_fsm.`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Final, Protocol

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import Span, Status, StatusCode, TracerProvider, get_tracer

from ..changes import Change, Observer
from ..errors import SessionFsmError, TransitionError
from ..lifecycle import Lifecycle
from ..stores.records import StoredStep

NAME: Final = "session_fsm"
STATUS_SECONDS: Final = (0.1, 1, 5, 15, 60, 300, 900, 1800, 3600, 14_400, 86_400, 604_800)
"""Bounds of the times that sessions spend in a status."""
COMMIT_SECONDS: Final = (0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
"""Bounds of the times that commits take."""


class Observable(Protocol):
    """A manager, of threads or of a loop."""

    @property
    def lifecycle(self) -> Lifecycle:
        """The table that its sessions obey."""
        ...

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Have each change made by an observer; returns what ends that."""
        ...


def instrument(
    manager: Observable,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Callable[[], None]:
    """Have OpenTelemetry told what a manager does to sessions.

    Metrics, with their attributes:

    - `session_fsm.moves` (counter): `session_fsm.source`, `.target`, `.trigger`
    - `session_fsm.refusals` (counter): `session_fsm.refusal`, its kind; `session_fsm.trigger`, if
      the lifecycle has it
    - `session_fsm.sessions` (up-down counter, read from the store): `session_fsm.status`
    - `session_fsm.status.duration` (histogram, seconds): `session_fsm.status`, which was left
    - `session_fsm.commit.duration` (histogram, seconds): none; writes to tables and contexts are
      among them, batches are not

    Each change is a span, called after the trigger that was fired, with `session.id`, the status
    before and after, and the revision; an error is recorded in it. Nothing of `metadata` or
    `llm_config` is told. What other processes do is in `session_fsm.sessions` only.

    Args:
        manager: Whose changes; one is instrumented once at a time.
        meter_provider: Takes the metrics; None: the global one.
        tracer_provider: Takes the spans; None: the global one.

    Returns:
        A function that ends it; twice is harmless.

    Raises:
        ValueError: The manager is being observed already.
        ManagerClosedError: It was closed.
    """
    observer = _Observer(manager, meter_provider, tracer_provider)
    unobserve = manager.observe(observer)

    def uninstrument() -> None:
        observer.ended = True
        unobserve()

    return uninstrument


class _Observer:
    """Tells OpenTelemetry of one manager.

    Attributes:
        ended: Whether nothing more is told. Callbacks of instruments can't be taken back.
    """

    def __init__(
        self,
        manager: Observable,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
    ) -> None:
        self.ended = False
        self._count: Callable[[], dict[str, int]] = dict
        self._triggers = {row.trigger for row in manager.lifecycle.rows}
        meter = get_meter(NAME, version(NAME), meter_provider)
        self._tracer = get_tracer(NAME, version(NAME), tracer_provider)
        self._moves = meter.create_counter(
            "session_fsm.moves", "{move}", "Moves of sessions from one status to another"
        )
        self._refusals = meter.create_counter(
            "session_fsm.refusals", "{refusal}", "Changes that the lifecycle refused"
        )
        meter.create_observable_up_down_counter(
            "session_fsm.sessions", [self._counts], "{session}", "Stored sessions"
        )
        self._status_duration = meter.create_histogram(
            "session_fsm.status.duration",
            "s",
            "Time that a session was in the status that it left",
            explicit_bucket_boundaries_advisory=STATUS_SECONDS,
        )
        self._commit_duration = meter.create_histogram(
            "session_fsm.commit.duration",
            "s",
            "Time that it took to write a change durably",
            explicit_bucket_boundaries_advisory=COMMIT_SECONDS,
        )

    def _counts(self, _: CallbackOptions) -> Iterable[Observation]:
        if self.ended:
            return []
        try:
            counts = self._count()
        except SessionFsmError:  # closed, or not to be reached for the moment
            return []
        return [
            Observation(number, {"session_fsm.status": str(status)})
            for status, number in counts.items()
        ]

    def begin(self, counts: Callable[[], dict[str, int]]) -> None:
        """Count sessions from now on."""
        self._count = counts

    def around(self, session_id: str, decision: object, make: Callable[[], Change]) -> Change:
        """Make a change inside a span."""
        with self._tracer.start_as_current_span(
            _name(decision), record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("session.id", session_id)
            try:
                change = make()
            except BaseException as fault:
                self._failed(span, fault)
                raise
            self._made(span, change)
            return change

    def _failed(self, span: Span, fault: BaseException) -> None:
        span.record_exception(fault)
        span.set_attribute("error.type", type(fault).__qualname__)
        span.set_status(Status(StatusCode.ERROR, type(fault).__name__))
        if isinstance(fault, TransitionError):
            refusal = fault.refusal
            told = {"session_fsm.refusal": str(refusal.kind)}
            # Words that somebody made up would be as many time series.
            if refusal.trigger is not None and refusal.trigger in self._triggers:
                told["session_fsm.trigger"] = refusal.trigger
            span.set_attributes(told | {"session_fsm.status": str(refusal.status)})
            self._refusals.add(1, told)

    def _made(self, span: Span, change: Change) -> None:
        span.set_attribute("session_fsm.status", str(change.state.status))
        span.set_attribute("session_fsm.revision", change.revision)
        if not change.steps:
            return
        first = change.steps[0].step
        if first.trigger is not None:
            span.update_name(first.trigger)
            span.set_attribute("session_fsm.trigger", first.trigger)
        if first.before is not None:
            span.set_attribute("session_fsm.source", str(first.before.status))

    def committed(self, steps: Sequence[StoredStep], seconds: float | None) -> None:
        """Count what was committed."""
        if seconds is not None:
            self._commit_duration.record(seconds)
        for step in (each.step for each in steps):
            if step.before is None or not step.moves:
                continue
            source, target = str(step.before.status), str(step.after.status)
            self._moves.add(
                1,
                {
                    "session_fsm.source": source,
                    "session_fsm.target": target,
                    "session_fsm.trigger": str(step.trigger),
                },
            )
            stayed = step.after.status_since - step.before.status_since
            self._status_duration.record(stayed.total_seconds(), {"session_fsm.status": source})


def _name(decision: object) -> str:
    """Return what a change is called until it is known what was fired."""
    trigger = getattr(decision, "trigger", None)
    if isinstance(trigger, str):
        return trigger
    name = decision if isinstance(decision, str) else getattr(decision, "__name__", None)
    if not isinstance(name, str):
        name = type(decision).__name__
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
