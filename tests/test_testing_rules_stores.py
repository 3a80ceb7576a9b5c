"""`LifecycleRules` finds each thing that a store can do wrong."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest
from rule_cases import found, run

from session_fsm import (
    SessionManager,
    SessionState,
)
from session_fsm.stores import MemoryStore, SessionStore
from session_fsm.stores.records import Abandoned, Commit, Stored, Work
from session_fsm.testing import LifecycleRules


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
            del self._lives[commit.session_id].history[-2]


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
        before = self.load(commit.session_id)
        super().commit(commit)
        life = self._lives[commit.session_id]
        if before is not None and life.state is not None:
            count = {"conversation_count": before.state.conversation_count}
            life.state = life.state.derive(count, at=life.state.updated_at)


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
        del self._lives[session_id]


class ForgetsOwners(MemoryStore):
    """Knows of nothing that was left behind."""

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        return ()


class TakesLivingForDead(MemoryStore):
    """Takes every owner for dead."""

    take_over = SessionStore.take_over

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        owners, self._owners = self._owners, set()
        try:
            return super().abandoned(session_id)
        finally:
            self._owners = owners


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
