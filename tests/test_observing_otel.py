"""Metrics and spans of OpenTelemetry, as its own readers and exporters get them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from managing import House
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from session_fsm import (
    ManagerClosedError,
    SessionManager,
    SessionNotFoundError,
    TransitionError,
)
from session_fsm.clock import ManualClock
from session_fsm.observing import instrument

pytest_plugins = ("manager_fixtures",)


@attrs.frozen
class Watched:
    """A manager that is instrumented, and what came of that."""

    manager: SessionManager
    end: Callable[[], None]
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter

    def points(self, name: str) -> list[Any]:
        """Return the points of a metric as they are collected now."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Return the values of a metric by the values of its attributes, in the order of names."""
        return {
            tuple(value for _, value in sorted(point.attributes.items())): point.value
            for point in self.points(name)
        }

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended, and forget them."""
        found = self.exporter.get_finished_spans()
        self.exporter.clear()
        return found


@pytest.fixture
def watched(manager: SessionManager) -> Watched:
    """A manager that is instrumented."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    end = instrument(manager, MeterProvider([reader]), tracers)
    return Watched(manager, end, reader, exporter)


def test_observing_otel_counts_moves_by_edge(watched: Watched) -> None:
    """Each move is counted by source, target and trigger; changes within a status are not."""
    for session_id in "ab":
        watched.manager.create(session_id)
        watched.manager.touch(session_id)
    watched.manager.fire("a", "go_idle")
    watched.manager.terminate("a")
    assert watched.values("session_fsm.moves") == {
        ("initializing", "active", "activate"): 2,
        ("active", "idle", "go_idle"): 1,
        ("idle", "terminating", "terminate"): 1,
        ("terminating", "terminated", "finish"): 1,
    }


def test_observing_otel_counts_refusals_by_kind(watched: Watched) -> None:
    """Each refusal is counted by its kind; a trigger that somebody made up is not told."""
    watched.manager.create("a", config={"max_conversations": 1})
    watched.manager.start_conversation("a")
    for trigger in ("resume", "resume", "start_conversation", "fly-1", "fly-2"):
        with pytest.raises(TransitionError):
            watched.manager.fire("a", trigger)
    with pytest.raises(TransitionError):
        watched.manager.transition("a", "terminated")
    with pytest.raises(SessionNotFoundError):
        watched.manager.touch("nobody")
    assert watched.values("session_fsm.refusals") == {
        ("wrong_status", "resume"): 2,
        ("guard", "start_conversation"): 1,
        ("unknown_trigger",): 2,
        ("no_edge",): 1,
    }


def test_observing_otel_tells_sessions_by_status(watched: Watched, house: House) -> None:
    """They are read from the store, so what another manager did is among them."""
    watched.manager.create("a")
    house.open().create("b")
    watched.manager.fire("a", "go_idle")
    assert watched.values("session_fsm.sessions") == {
        ("initializing",): 0,
        ("active",): 1,
        ("idle",): 1,
        ("terminating",): 0,
        ("terminated",): 0,
    }


def test_observing_otel_measures_time_in_status(watched: Watched, clock: ManualClock) -> None:
    """The time is that of the status that was left, by the manager's clock."""
    watched.manager.create("a", config={"timeout_minutes": None})
    clock.advance(30)
    watched.manager.touch("a")
    clock.advance(12)
    watched.manager.fire("a", "go_idle")
    clock.advance(7.5)
    watched.manager.fire("a", "resume")
    sums = {
        point.attributes["session_fsm.status"]: (point.count, point.sum)
        for point in watched.points("session_fsm.status.duration")
    }
    assert sums == {"initializing": (1, 0), "active": (1, 42), "idle": (1, 7.5)}


def test_observing_otel_measures_commits(watched: Watched) -> None:
    """Each commit is measured in seconds, writes too; what is refused or of a batch is not."""
    watched.manager.create("a")
    [before] = watched.points("session_fsm.commit.duration")
    watched.manager.touch("a")
    with pytest.raises(TransitionError):
        watched.manager.fire("a", "resume")
    with watched.manager.batch():
        watched.manager.touch("a")
    [point] = watched.points("session_fsm.commit.duration")
    assert point.count == before.count + 1
    assert 0 < point.sum < 60
    assert min(point.explicit_bounds) == 0.00001
    watched.manager.table("a", "notes").put("k", 1)
    watched.manager.context("a").add_message("user", "hello")
    with watched.manager.batch():
        watched.manager.table("a", "notes").put("k", 2)
    [point] = watched.points("session_fsm.commit.duration")
    assert point.count == before.count + 3


def test_observing_otel_counts_a_batch_once_it_is_durable(watched: Watched) -> None:
    """What a batch undoes has never been."""
    watched.manager.create("a")
    with pytest.raises(RuntimeError, match="undone"), watched.manager.batch():
        watched.manager.fire("a", "go_idle")
        raise RuntimeError("undone")
    edge = ("active", "idle", "go_idle")
    assert edge not in watched.values("session_fsm.moves")
    with watched.manager.batch():
        watched.manager.fire("a", "go_idle")
        assert edge not in watched.values("session_fsm.moves")
    assert watched.values("session_fsm.moves")[edge] == 1


def test_observing_otel_has_a_span_for_each_change(watched: Watched) -> None:
    """A span is called after the trigger that was fired, and tells the way of the session."""
    secret = {"token": "s3cret"}
    watched.manager.create("a", metadata=secret, llm_config=secret)
    watched.manager.transition("a", "idle")
    watched.manager.begin_task("a", "t")
    watched.manager.update("a", metadata=secret)
    spans = watched.spans()
    assert [span.name for span in spans] == ["create", "go_idle", "resume", "update"]
    assert dict(spans[1].attributes or {}) == {
        "session.id": "a",
        "session_fsm.trigger": "go_idle",
        "session_fsm.source": "active",
        "session_fsm.status": "idle",
        "session_fsm.revision": 3,
    }
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    assert "s3cret" not in "".join(span.to_json() for span in spans)


def test_observing_otel_records_errors_in_spans(watched: Watched) -> None:
    """A refusal, and any other error, is recorded in its span and raised all the same."""
    watched.manager.create("a")
    watched.spans()
    with pytest.raises(TransitionError):
        watched.manager.fire("a", "resume")
    with pytest.raises(SessionNotFoundError):
        watched.manager.touch("nobody")
    refused, missing = watched.spans()
    assert [refused.name, missing.name] == ["resume", "touch"]
    for span, kind in ((refused, "InvalidTransitionError"), (missing, "SessionNotFoundError")):
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == kind
        assert [event.name for event in span.events] == ["exception"]
    assert (refused.attributes or {})["session_fsm.refusal"] == "wrong_status"


def test_observing_otel_puts_what_follows_into_the_span(watched: Watched) -> None:
    """What a subscriber does is a child of the change that it was told of."""
    watched.manager.create("b")
    watched.manager.on_enter("idle", lambda event: watched.manager.touch("b"))
    watched.manager.create("a")
    watched.spans()
    watched.manager.fire("a", "go_idle")
    inner, outer = watched.spans()
    assert [inner.name, outer.name] == ["touch", "go_idle"]
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id


def test_observing_otel_ends(watched: Watched) -> None:
    """Once ended nothing more is told, and the manager may be instrumented anew."""
    watched.manager.create("a")
    with pytest.raises(ValueError, match="being observed already"):
        instrument(watched.manager)
    before = watched.values("session_fsm.moves")
    watched.spans()
    watched.end()
    watched.end()
    watched.manager.fire("a", "go_idle")
    assert watched.values("session_fsm.moves") == before
    assert watched.values("session_fsm.sessions") == {}
    assert watched.spans() == ()
    again = instrument(watched.manager)
    watched.end()
    assert watched.manager._core.observer is not None
    again()


def test_observing_otel_after_the_manager_was_closed(watched: Watched) -> None:
    """What is collected then has no sessions; nothing fails."""
    watched.manager.create("a")
    watched.manager.close()
    assert watched.values("session_fsm.sessions") == {}
    assert watched.values("session_fsm.moves") != {}
    with pytest.raises(ManagerClosedError):
        instrument(watched.manager)


@pytest.mark.parametrize("module", ["session_fsm", "session_fsm.observing", "session_fsm.aio"])
def test_observing_otel_is_loaded_when_asked_for(module: str) -> None:
    """Importing the package loads nothing of OpenTelemetry."""
    script = f"import {module}, sys; print('opentelemetry' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"
