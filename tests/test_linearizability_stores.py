"""Callers on one store are told one story, and a store that is broken is found out by them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from linear_process import Driver
from linearizability import Call, check
from managing import together

from session_fsm import SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore, SessionStore, SqliteStore
from session_fsm.stores.abc import all_ids
from session_fsm.stores.records import Commit, Stored


class NoCompare(MemoryStore):
    """A store that forgets to compare the revision that was decided from with its own."""

    def commit(self, commit: Commit) -> None:
        """Write, whoever wrote meanwhile."""
        if not commit.creates:
            found, _ = self.tail(commit.session_id)
            commit = attrs.evolve(commit, expected_revision=found)
        super().commit(commit)


class OldNews(MemoryStore):
    """A store that reads, now and then, what was there before the last write."""

    def __init__(self) -> None:
        super().__init__()
        self._reads = itertools.count()
        self._before: dict[str, Stored | None] = {}

    def load(self, session_id: str) -> Stored | None:
        """Read; each fifth time, too late."""
        stored = super().load(session_id)
        old = next(self._reads) % 5 == 4
        return self._before.get(session_id, stored) if old else stored

    def commit(self, commit: Commit) -> None:
        """Write, and keep what was there."""
        before = super().load(commit.session_id)
        super().commit(commit)
        self._before[commit.session_id] = before


class NoAnswer(MemoryStore):
    """A store that acknowledges, now and then, what it does not write."""

    def __init__(self) -> None:
        super().__init__()
        self._commits = itertools.count()

    def commit(self, commit: Commit) -> None:
        """Write, but for each fiftieth time."""
        if next(self._commits) % 50 != 49:
            super().commit(commit)


def called(store: SessionStore, callers: int = 2, calls: int = 400) -> list[str]:
    """Have callers take turns at a store, each with a manager of its own; returns the faults."""
    ticks = itertools.count()
    clock = ManualClock(SessionManager().create().state.created_at)
    managers = [SessionManager(store, clock=clock) for _ in range(callers)]
    drivers = [
        Driver(manager, f"{number}", 3, lambda: next(ticks))
        for number, manager in enumerate(managers)
    ]
    made = [driver.call() for _ in range(calls) for driver in drivers]
    histories = {each: managers[0].history(each) for each in all_ids(store)}
    for manager in managers:
        manager.close()
    return check(made, histories)


def test_linearizability_of_callers_in_turn() -> None:
    """Managers that take turns at one store are told one story."""
    assert called(MemoryStore()) == []


BROKEN: dict[type[MemoryStore], str] = {
    NoCompare: "stands at place",
    OldNews: "had been told before it began",
    NoAnswer: "it is not in the history",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_linearizability_finds_a_broken_store(kind: type[MemoryStore]) -> None:
    """A store that does not compare, reads old news, or does not write is found out."""
    assert any(BROKEN[kind] in fault for fault in called(kind()))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_linearizability_of_threads(tmp_path: Path, kind: str) -> None:
    """Threads with managers of their own on one store, all at once, are told one story."""
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "s.db")
    ticks, turn = itertools.count(), threading.Lock()

    def now() -> int:
        with turn:
            return next(ticks)

    managers = [SessionManager(store) for _ in range(4)]

    def caller(number: int) -> Callable[[], list[Call]]:
        driver = Driver(managers[number], str(number), 3, now)
        return lambda: [driver.call() for _ in range(60)]

    made = [call for each in together(*(caller(number) for number in range(4))) for call in each]
    histories = {each: managers[0].history(each) for each in all_ids(store)}
    for manager in managers:
        manager.close()
    store.close()
    assert len(made) == 240
    assert check(made, histories) == []
