"""A day of a thousand sessions whose children go wrong in every way."""

from __future__ import annotations

import logging

import pytest
from chaos import HABITS, one_day
from hypothesis import HealthCheck, event, given, settings
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


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 60), st.integers(0, 2**32), st.sampled_from((0.001, 0.05, 1.0)))
def test_aio_chaos_of_any_kind(sessions: int, seed: int, days: float) -> None:
    """However many sessions there are, whatever happens when, and however fast."""
    clock = ManualClock(START)
    findings = run_simulated(one_day(clock, sessions=sessions, seed=seed, days=days), clock)
    assert findings.problems == []
    assert sum(findings.ended.values()) + findings.alive == sessions
    event(f"ended by {sorted(findings.ended)}")
