"""`LifecycleRules` drives our own lifecycles without a find, and finds every fault planted."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from rule_cases import AgentRules, Counted, OnSqlite, OrderRules, found, run

from session_fsm import (
    SESSION_LIFECYCLE,
    Attempt,
    Guard,
    Lifecycle,
    LifecycleError,
    RecoveryReport,
    Refusal,
    Row,
    Session,
    SessionManager,
    SessionState,
    SweepReport,
)
from session_fsm.clock import Clock, ManualClock
from session_fsm.core import Core
from session_fsm.stores import MemoryStore, SessionStore
from session_fsm.stores.abc import Abandoned, Commit, Stored, Work
from session_fsm.testing import LifecycleRules
from session_fsm.testing.arguments import Arguments


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Starts that fail on purpose are logged; thousands of them would fill the report."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# --- our own lifecycles ----------------------------------------------------------------------


class SessionsInMemory(Counted):
    fired: ClassVar[Counter[tuple[str, str]]] = Counter()


class AgentsInMemory(Counted, AgentRules):
    fired: ClassVar[Counter[tuple[str, str]]] = Counter()


class OrdersInMemory(Counted, OrderRules):
    fired: ClassVar[Counter[tuple[str, str]]] = Counter()


class SessionsOnSqlite(OnSqlite):
    """Sessions in a file."""


class AgentsOnSqlite(OnSqlite, AgentRules):
    """Agents in a file."""


class OrdersOnSqlite(OnSqlite, OrderRules):
    """Orders in a file."""


@pytest.mark.parametrize("rules", [SessionsInMemory, AgentsInMemory, OrdersInMemory])
def test_rules_lead_through_the_rows(rules: type[Counted]) -> None:
    """The rules find nothing wrong with our lifecycles, and fire four rows of five at least."""
    run(rules, examples=120, steps=40)
    rows = [(row.trigger, str(source)) for row, source in rules.lifecycle.moves()]
    fired = {(trigger, str(source)) for trigger, source in rules.fired}
    missing = [row for row in rows if row not in fired]
    assert len(missing) <= len(rows) / 5, missing


TestSessionsOnSqlite = SessionsOnSqlite.TestCase
TestAgentsOnSqlite = AgentsOnSqlite.TestCase
TestOrdersOnSqlite = OrdersOnSqlite.TestCase
_FEW = settings(max_examples=12, stateful_step_count=30)
TestSessionsOnSqlite.settings = TestAgentsOnSqlite.settings = TestOrdersOnSqlite.settings = _FEW


# --- stores that are wrong -------------------------------------------------------------------


class DropsUpdate(MemoryStore):
    """Says that a change was written, and does not write it."""

    def commit(self, commit: Commit) -> None:
        if commit.creates or commit.steps[0].sealed.event.kind == "moved":
            super().commit(commit)


class ForgetsToCompare(MemoryStore):
    """Writes whatever revision was decided from."""

    def commit(self, commit: Commit) -> None:
        tail, _ = self.tail(commit.session_id)
        super().commit(attrs.evolve(commit, expected_revision=tail))


class LosesEvent(MemoryStore):
    """Keeps the last event alone of a commit that has several."""

    def commit(self, commit: Commit) -> None:
        super().commit(commit)
        if len(commit.steps) > 1 and not commit.creates:
            del self._events[commit.session_id][-2]


class KeepsAnotherStatus(MemoryStore):
    """Takes the initial status for that of a session which has just come to rest."""

    def load(self, session_id: str) -> Stored | None:
        stored = super().load(session_id)
        if stored is None or not stored.state.error:
            return stored
        first = SessionState.new("x", status=self.lifecycle.initial).status
        at = stored.state.updated_at
        return attrs.evolve(stored, state=stored.state.derive({}, at=at, status=first))


class KeepsOldState(MemoryStore):
    """Goes on showing the data that a session had before its last change."""

    def commit(self, commit: Commit) -> None:
        before = self._records.get(commit.session_id)
        super().commit(commit)
        after = self._records[commit.session_id].stored
        if before is not None:
            count = before.stored.state.conversation_count
            state = after.state.derive({"conversation_count": count}, at=after.state.updated_at)
            self._records[commit.session_id].stored = attrs.evolve(after, state=state)


class ForgetsDeadlines(MemoryStore):
    """Never has anything that is due."""

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        return ()


class IsLate(MemoryStore):
    """Tells of the next deadline a moment too late."""

    def next_deadline(self) -> datetime | None:
        due = super().next_deadline()
        return None if due is None else due + timedelta(microseconds=1)


class CountsWrong(MemoryStore):
    """Does not count those that ended."""

    def counts(self) -> dict[str, int]:
        final = self.lifecycle.final
        return {status: each for status, each in super().counts().items() if status not in final}


class ListsTooFew(MemoryStore):
    """Leaves out the last session of a page."""

    def page(self, statuses: Any, limit: int, after: str | None) -> tuple[Stored, ...]:
        return super().page(statuses, limit, after)[: limit - 1]


class CreatesTwice(MemoryStore):
    """Lets a session be created in the place of another one that has ended."""

    def load(self, session_id: str) -> Stored | None:
        stored = super().load(session_id)
        ended = stored is not None and stored.state.status in self.lifecycle.final
        return None if ended else stored


class ForgetsRevisions(MemoryStore):
    """Leaves no trace of a buried session."""

    def bury(self, session_id: str, revision: int, tombstone: Any) -> None:
        super().bury(session_id, revision, tombstone)
        del self._events[session_id]


class ForgetsOwners(MemoryStore):
    """Knows of nothing that was left behind."""

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        return ()


class TakesLivingForDead(MemoryStore):
    """Takes every owner for dead."""

    def enlist(self, owner_id: str) -> None:
        pass


class ForgetsClaims(MemoryStore):
    """Does not know whose a task is."""

    def commit(self, commit: Commit) -> None:
        claims = tuple(work for work in commit.claims if work.kind != "task")
        super().commit(attrs.evolve(commit, claims=claims))


class ClaimsForEver(MemoryStore):
    """Lets nobody go: what was released is taken for work in progress."""

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        return (*super().work_in(session_id), Work("worker"))


class CountsTrafficWrong(MemoryStore):
    """Counts a row once that was fired many times."""

    def traffic(self) -> dict[tuple[str, str], int]:
        return dict.fromkeys(super().traffic(), 1)


class ClaimsToBeDurable(MemoryStore):
    """Says that it keeps what it does not."""

    durable = True


WRONG_STORES = (
    DropsUpdate,
    ForgetsToCompare,
    LosesEvent,
    KeepsAnotherStatus,
    KeepsOldState,
    ForgetsDeadlines,
    IsLate,
    CountsWrong,
    ListsTooFew,
    CreatesTwice,
    ForgetsRevisions,
    ForgetsOwners,
    TakesLivingForDead,
    ForgetsClaims,
    ClaimsForEver,
    CountsTrafficWrong,
    ClaimsToBeDurable,
)


@pytest.mark.parametrize("store", WRONG_STORES, ids=lambda store: store.__name__)
def test_rules_find_what_a_store_does_wrong(store: type[MemoryStore]) -> None:
    """Each thing that a store can do wrong is found."""

    class Rules(LifecycleRules):
        def open_store(self) -> SessionStore:
            return store(self.lifecycle)

    with found():
        run(Rules, examples=3000)


def test_rules_find_a_store_that_is_not_empty() -> None:
    """A store that holds something at first is named, before it is taken for a fault."""

    class Rules(LifecycleRules):
        def open_store(self) -> SessionStore:
            store = MemoryStore()
            with SessionManager(store) as manager:
                manager.create("before")
            return store

    with found() as caught:
        run(Rules, examples=1)
    assert "open_store must give an empty store" in str(caught[0])


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

    def recover(self) -> RecoveryReport:
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

    def begin_task(self, session_id: str, task_id: str) -> Session:
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
        "session_fsm.decisions.drop_tasks",
        "session_fsm.decisions.work_of",
        "session_fsm.core.Core._tell",
    ],
)
def test_rules_find_what_is_not_done(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from a verb, and is not done, is found."""

    def nothing(*_: object, **__: object) -> Any:
        return frozenset()

    monkeypatch.setattr(what, nothing)
    if what.endswith("work_of"):
        monkeypatch.setattr("session_fsm.core.work_of", nothing)
    with found():
        run(LifecycleRules, examples=2000)


def test_rules_find_a_way_out_that_is_not_gone_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that leaves a session waiting for nothing is found."""
    monkeypatch.setattr("session_fsm.decisions.settle", lambda _: None)
    monkeypatch.setattr("session_fsm.core.settle", lambda _: None)
    with found():
        run(LifecycleRules, examples=2000)


def test_rules_find_a_refusal_on_old_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that refuses on what it remembers, without looking again, is found."""
    read = Core.read

    def remembered(core: Core, session_id: str) -> Stored:
        seen: dict[str, Stored] = core.__dict__.setdefault("seen", {})
        return seen.setdefault(session_id, read(core, session_id))

    monkeypatch.setattr(Core, "read", remembered)
    with found():
        run(LifecycleRules, examples=2000)


# --- lifecycles that are wrong ---------------------------------------------------------------


def _with_row(row: Row) -> Lifecycle:
    return SESSION_LIFECYCLE.extend(name="own", rows=(row,))


def test_rules_find_a_guard_with_a_mind_of_its_own() -> None:
    """A guard that answers otherwise from one call to the next is found."""
    asked = itertools.count()
    moody = Guard("moody", lambda _: next(asked) % 3 == 0, "not now")

    class Rules(LifecycleRules):
        lifecycle = _with_row(Row("try_it", "active", None, guards=moody))

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
        lifecycle = _with_row(Row("number_it", "active", None, effect=numbered))

    with found():
        run(Rules, examples=2000)


# --- what a user may say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "needs 'by', 'note': give a strategy for it"),
        ({"sign": {"by": st.text()}}, "needs 'note': give a strategy for it"),
        ({"sign": {"by": st.text(), "note": st.text(), "no": st.text()}}, "'sign' takes no 'no'"),
        ({"sing": {}}, "there is no trigger 'sing'"),
    ],
)
def test_rules_name_what_arguments_lack(arguments: Any, problem: str) -> None:
    """An argument without a strategy, and a strategy for nothing, are named before anything."""
    given = arguments

    class Rules(LifecycleRules):
        lifecycle = _with_row(Row("sign", "active", None, required=("by", "note")))
        arguments = given

    with pytest.raises(LifecycleError) as caught:
        Rules()
    assert problem in str(caught.value)


def test_rules_take_functions_of_the_state() -> None:
    """Strategies may depend on the state: for one argument, or for all of a trigger."""
    seen: list[tuple[object, object]] = []

    def noted(attempt: Attempt) -> dict[str, Any]:
        seen.append((attempt.arguments["by"], attempt.arguments["note"]))
        return {}

    row = Row("sign", "active", None, required=("by", "note"), effect=noted)

    class OneByOne(LifecycleRules):
        lifecycle = _with_row(row)
        arguments: ClassVar[Arguments] = {
            "sign": {"by": lambda state: st.just(state.session_id), "note": st.just(1)}
        }

    class AllAtOnce(LifecycleRules):
        lifecycle = _with_row(row)
        arguments: ClassVar[Arguments] = {
            "sign": lambda state: st.just({"by": state.session_id, "note": 1})
        }

    for rules in (OneByOne, AllAtOnce):
        seen.clear()
        run(rules, examples=20)
        assert {by for by, _ in seen} <= {"a", "b", "c", "d"}
        assert seen
