"""`LifecycleRules` finds each thing that a manager, or a lifecycle, can do wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest
from rule_cases import found, run, with_row

from session_fsm import (
    SESSION_LIFECYCLE,
    Attempt,
    Guard,
    Lifecycle,
    RecoveryReport,
    Refusal,
    Row,
    Session,
    SessionManager,
    SweepReport,
)
from session_fsm.clock import Clock, ManualClock
from session_fsm.core import Core
from session_fsm.stores import SessionStore
from session_fsm.stores.records import Stored
from session_fsm.testing import LifecycleRules

# --- managers that are wrong -----------------------------------------------------------------


class SweepsNothing(SessionManager):
    """Leaves what is due."""

    def sweep(self, *, at: datetime | None = None) -> SweepReport:
        return SweepReport((), self.next_deadline())


class SweepsTooMuch(SessionManager):
    """Sweeps as of an hour later."""

    def sweep(self, *, at: datetime | None = None) -> SweepReport:
        return super().sweep(at=(at or self._core.clock.now()) + timedelta(hours=1))


class RecoversNothing(SessionManager):
    """Leaves what the dead have left."""

    def recover(self, **_: Any) -> RecoveryReport:
        return RecoveryReport()


class PurgesNothing(SessionManager):
    """Says that it removed nothing, and does not lie."""

    def purge(self, *, ended_before: datetime) -> int:
        return 0


class ForgetsReason(SessionManager):
    """Does not keep why something was done."""

    def fire(self, session_id: str, trigger: str, **more: Any) -> Session:
        return super().fire(session_id, trigger, **{**more, "reason": None})


class IgnoresRevision(SessionManager):
    """Takes whatever revision is expected for the right one."""

    def fire(self, session_id: str, trigger: str, **more: Any) -> Session:
        return super().fire(session_id, trigger, **{**more, "expected_revision": None})


class SaysYes(SessionManager):
    """Has nothing against anything, if only asked."""

    def explain(self, session_id: str, trigger: str, **arguments: Any) -> Refusal | None:
        return None


class PermitsTheTable(SessionManager):
    """Asks no guard what is permitted."""

    def permitted(self, session_id: str, **arguments: Any) -> tuple[str, ...]:
        rows = self.lifecycle.leaving(self.get(session_id).status)
        return tuple(row.trigger for row in rows)


class ShowsOldNews(SessionManager):
    """Shows a session as it saw it first."""

    def get(self, session_id: str) -> Session:
        seen: dict[str, Session] = self.__dict__.setdefault("seen", {})
        return seen.setdefault(session_id, super().get(session_id))


class EndsByUpdate(SessionManager):
    """Fails a session without a word of it in the error."""

    def fail(self, session_id: str, error: str | BaseException) -> Session:
        return super().terminate(session_id, wait=False)


class WakesNobody(SessionManager):
    """Lets a session at rest sleep on when work comes."""

    def begin_task(
        self, session_id: str, task_id: str, *, timeout_seconds: float | None = None
    ) -> Session:
        return self.fire(session_id, self.lifecycle.role("begin_task"), task_id=task_id)


class StaysOpen(SessionManager):
    """Does not let go of what it did when it is closed."""

    def close(self) -> None:
        pass


WRONG_MANAGERS = (
    SweepsNothing,
    SweepsTooMuch,
    RecoversNothing,
    PurgesNothing,
    ForgetsReason,
    IgnoresRevision,
    SaysYes,
    PermitsTheTable,
    ShowsOldNews,
    EndsByUpdate,
    WakesNobody,
    StaysOpen,
)


@pytest.mark.parametrize("manager", WRONG_MANAGERS, ids=lambda manager: manager.__name__)
def test_rules_find_what_a_manager_does_wrong(manager: type[SessionManager]) -> None:
    """Each thing that a manager can do wrong is found."""

    class Rules(LifecycleRules):
        def open_manager(self, store: SessionStore, clock: Clock) -> SessionManager:
            return manager(store, clock=clock)

    with found():
        run(Rules, examples=3000)


def _lenient(lifecycle: Lifecycle, name: str) -> Lifecycle:
    """Return a lifecycle in which the guards of a name let everything pass."""

    def eased(guard: Guard) -> Guard:
        return attrs.evolve(guard, check=lambda _: True) if guard.name == name else guard

    rows = [attrs.evolve(row, guards=tuple(map(eased, row.guards))) for row in lifecycle.rows]
    return attrs.evolve(lifecycle, rows=rows)


GUARDS = sorted({guard.name for row in SESSION_LIFECYCLE.rows for guard in row.guards})


@pytest.mark.parametrize("guard", GUARDS)
def test_rules_find_a_guard_that_is_skipped(guard: str) -> None:
    """A manager that skips a guard is found, whichever it is."""

    class Rules(LifecycleRules):
        def open_manager(self, store: SessionStore, clock: Clock) -> SessionManager:
            return SessionManager(store, lifecycle=_lenient(self.lifecycle, guard), clock=clock)

    with found():
        run(Rules, examples=3000)


class _Shifted:
    """A clock that goes wrong by so much."""

    def __init__(self, clock: Clock, by: timedelta) -> None:
        self._clock, self._by = clock, by
        self.wait = clock.wait

    def now(self) -> datetime:
        return self._clock.now() + self._by


class _Backwards(ManualClock):
    """A clock that runs backwards from where another one stood."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.now(), autojump=True)

    def now(self) -> datetime:
        return self.advance(timedelta(seconds=-1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda clock: _Shifted(clock, timedelta(seconds=-1)),
        lambda clock: _Shifted(clock, timedelta(microseconds=1)),
        _Backwards,
    ],
    ids=["behind", "ahead", "backwards"],
)
def test_rules_find_a_clock_that_is_wrong(wrong: Callable[[Clock], Clock]) -> None:
    """A manager that goes by a clock of its own is found."""

    class Rules(LifecycleRules):
        def open_manager(self, store: SessionStore, clock: Clock) -> SessionManager:
            return SessionManager(store, clock=wrong(clock))

    with found():
        run(Rules, examples=2000)


@pytest.mark.parametrize(
    "what",
    [
        "session_fsm.decisions.rest",
        "session_fsm.endings.drop_tasks",
        "session_fsm.work.work_of",
        "session_fsm.telling.Subscribers.tell",
    ],
)
def test_rules_find_what_is_not_done(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from a verb, and is not done, is found."""

    def nothing(*_: object, **__: object) -> Any:
        return frozenset()

    monkeypatch.setattr(what, nothing)
    name = what.rpartition(".")[2]
    if name in ("rest", "work_of"):
        monkeypatch.setattr(f"session_fsm.endings.{name}", nothing)
    with found():
        run(LifecycleRules, examples=2000)


def test_rules_find_a_way_out_that_is_not_gone_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that leaves a session waiting for nothing is found."""
    for module in ("decisions", "endings", "core"):
        monkeypatch.setattr(f"session_fsm.{module}.settle", lambda _: None)
    with found():
        run(LifecycleRules, examples=2000)


def test_rules_find_a_refusal_on_old_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that refuses on what it remembers, as it does every other time, is found."""
    read = Core.read

    def remembered(core: Core, session_id: str) -> Stored:
        seen: dict[str, Stored] = core.__dict__.setdefault("seen", {})
        if session_id in seen:
            return seen.pop(session_id)  # once: whoever loses a race to it would do so for ever
        return seen.setdefault(session_id, read(core, session_id))

    monkeypatch.setattr(Core, "read", remembered)
    with found():
        run(LifecycleRules, examples=2000)


# --- lifecycles that are wrong ---------------------------------------------------------------


def test_rules_find_a_guard_with_a_mind_of_its_own() -> None:
    """A guard that answers otherwise from one call to the next is found."""
    asked = itertools.count()
    moody = Guard("moody", lambda _: next(asked) % 3 == 0, "not now")

    class Rules(LifecycleRules):
        lifecycle = with_row(Row("try_it", "active", None, guards=moody))

        def __init__(self) -> None:
            nonlocal asked
            asked = itertools.count()  # or Hypothesis would find that no run is like another
            super().__init__()

    with found():
        run(Rules, examples=2000)


def test_rules_find_an_effect_that_is_not_pure() -> None:
    """An effect that depends on how often it was asked is found."""
    numbers = itertools.count()

    def numbered(_: Attempt) -> dict[str, Any]:
        return {"metadata": {"number": next(numbers)}}

    class Rules(LifecycleRules):
        lifecycle = with_row(Row("number_it", "active", None, effect=numbered))

    with found():
        run(Rules, examples=2000)
