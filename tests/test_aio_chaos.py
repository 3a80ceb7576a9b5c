"""A day of a thousand sessions whose children go wrong in every way."""

from __future__ import annotations

import logging
import tempfile

import pytest
from chaos import HABITS, one_day
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from managing import START

from session_fsm.clock import ManualClock
from session_fsm.testing import run_simulated


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep thousands of tracebacks from being kept."""
    caplog.set_level(logging.CRITICAL)


def test_aio_chaos_for_a_day() -> None:
    """After a day no session is stuck, none is a zombie, no task is left, and all is verified."""
    clock = ManualClock(START)
    findings = run_simulated(one_day(clock, sessions=1000, seed=1), clock)
    assert findings.problems == []
    assert (clock.now() - START).total_seconds() >= 86_400
    assert {"finish", "abort"} <= findings.ended.keys()
    assert sum(findings.ended.values()) + findings.alive == 1000
    assert findings.alive > len(HABITS)
    assert findings.abandoned > 0


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=2, deadline=None, suppress_health_check=QUIET, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_aio_chaos_of_a_thousand(seed: int) -> None:
    """Whatever happens to a thousand sessions, and when."""
    clock = ManualClock(START)
    findings = run_simulated(one_day(clock, sessions=1000, seed=seed, days=0.05), clock)
    assert findings.problems == []
    assert sum(findings.ended.values()) + findings.alive == 1000


@settings(max_examples=15, deadline=None, suppress_health_check=QUIET)
@given(
    st.integers(1, 60),
    st.integers(0, 2**32),
    st.sampled_from((0.001, 0.05, 1.0)),
    st.sampled_from(("memory", "sqlite")),
)
def test_aio_chaos_of_any_kind(sessions: int, seed: int, days: float, kind: str) -> None:
    """However many sessions there are, whatever happens when, how fast, and wherever it is kept."""
    clock = ManualClock(START)
    with tempfile.TemporaryDirectory() as directory:
        store = "memory://" if kind == "memory" else f"sqlite:///{directory}/a.db"
        work = one_day(clock, sessions=sessions, seed=seed, days=days, store=store)
        findings = run_simulated(work, clock)
    assert findings.problems == []
    assert sum(findings.ended.values()) + findings.alive == sessions
    event(f"ended by {sorted(findings.ended)}")
