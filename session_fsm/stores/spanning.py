"""Two stores as one: sessions that are not to be kept live in memory, beside the durable ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from heapq import merge
from itertools import islice

import attrs

from ..compaction import Checkpoint
from ..errors import SessionExistsError, StateInvalidError, StoreUnavailableError
from ..history import Sealed
from ..items import Item, ItemWrites, Written
from ..session import SessionEvent
from ..sharing import own_copy
from ..state import SessionConfig
from .abc import NotTogetherError, Outcome, SessionStore
from .memory import MemoryStore
from .records import Abandoned, Commit, Fed, Stored, Taken, Work, ended_at


def check_persistence(config: SessionConfig, store: SessionStore) -> None:
    """Accept a configuration whose wish for persistence the store can grant.

    Raises:
        StateInvalidError: It wants to be durable, and the store is not.
    """
    if config.persistence_enabled and not store.durable:
        problem = f"config.persistence_enabled: true, but {store.url} keeps nothing"
        raise StateInvalidError(problems=(problem,))


class SpanningStore(SessionStore):
    """A store for most sessions, and memory for those with `persistence_enabled=False`.

    An id is unique over both. Owners, marks and the store's checks are the first store's.

    Args:
        main: Where sessions are kept; it stays its owner's, and is not closed here.
    """

    def __init__(self, main: SessionStore) -> None:
        self.url = main.url
        self.lifecycle = main.lifecycle
        self.durable = main.durable
        self.clock = main.clock
        self.lease_seconds = main.lease_seconds
        self.margin_seconds = main.margin_seconds
        self.commits_together = main.commits_together
        self.main = main
        # Far behind all positions of the first store: those of one are none of the other.
        self._passing = MemoryStore(main.lifecycle, start=1 << 62)
        self._closed = False

    def _home(self, session_id: str) -> SessionStore:
        used = self._used()
        if used[-1] is not self.main and used[-1].load(session_id) is not None:
            return used[-1]
        return self.main

    def _used(self) -> tuple[SessionStore, ...]:
        if self._closed:
            raise StoreUnavailableError(problem="the store is closed")
        # While memory is not used, nobody waits there for another thread's batch.
        return (self.main,) if self._passing.is_empty else (self.main, self._passing)

    # --- one session ----------------------------------------------------------------------

    def load(self, session_id: str) -> Stored | None:
        return self._home(session_id).load(session_id)

    def tail(self, session_id: str) -> tuple[int, str]:
        return max(store.tail(session_id) for store in self._used())

    def commit(self, commit: Commit) -> None:
        home = self._home(commit.session_id)
        if commit.creates:
            if self.load(commit.session_id) is not None:
                raise SessionExistsError(session_id=commit.session_id)
            config = commit.steps[0].state.config
            check_persistence(config, self.main)
            passing = config.persistence_enabled is False and self.main.durable
            home = self._passing if passing else self.main
            if commit.origin is None and commit.expected_revision:
                commit = attrs.evolve(commit, origin=self._tombstone(commit.session_id))
        home.commit(commit)

    def commit_all(self, commits: Sequence[Commit]) -> list[Outcome]:
        homes = [None if each.creates else self._home(each.session_id) for each in commits]
        outcomes: list[Outcome] = [NotTogetherError(problem="it creates a session")] * len(commits)
        # What is in memory first: it has no part in whatever the first store may have to say.
        for store in (self._passing, self.main):
            places = [place for place, home in enumerate(homes) if home is store]
            if not places:
                continue
            try:
                made = store.commit_all([commits[place] for place in places])
            except StoreUnavailableError as fault:
                made = [own_copy(fault) for _ in places]
            for place, outcome in zip(places, made, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _tombstone(self, session_id: str) -> Sealed | None:
        # The id may have had its last life in the other store than it will have the next.
        history = self.history(session_id)
        return Sealed(history[-1][1], history[-1][0]) if history else None

    def landed(self, session_id: str, operation_id: str) -> bool:
        return any(store.landed(session_id, operation_id) for store in self._used())

    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        return self._last_home(session_id).history(session_id)

    def chain(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        return self._last_home(session_id).chain(session_id)

    def _last_home(self, session_id: str) -> SessionStore:
        # Where its last life is, or was, is all that is left of those before.
        return max(self._used(), key=lambda store: store.tail(session_id)[0])

    # --- the feed -------------------------------------------------------------------------

    def feed(self, after: int, limit: int, session_id: str | None = None) -> Fed:
        """Return the events of one session, whichever store has it, or of all of the first store.

        What is not kept has no position that would hold: it is told to who asks for the session.
        """
        used = self._used()
        home = used[0] if session_id is None else self._last_home(session_id)
        return home.feed(after, limit, session_id)

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.main.watch(callback)

    # --- many sessions --------------------------------------------------------------------

    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        words = tuple(statuses)
        pages = [store.page(words, limit, after) for store in self._used()]
        by_id = merge(*pages, key=lambda stored: stored.state.session_id)
        return tuple(islice(by_id, limit))

    def counts(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for store in self._used():
            total.update(store.counts())
        return dict(total)

    def traffic(self) -> dict[tuple[str, str], int]:
        total: Counter[tuple[str, str]] = Counter()
        for store in self._used():
            total.update(store.traffic())
        return dict(total)

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        runs = [store.due(at, limit, after) for store in self._used()]
        return tuple(islice(merge(*runs), limit))

    def next_deadline(self) -> datetime | None:
        found = [store.next_deadline() for store in self._used()]
        return min((each for each in found if each is not None), default=None)

    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        both = {each for store in self._used() for each in store.ids(limit, after)}
        return tuple(sorted(both)[:limit])

    # --- tables of a session --------------------------------------------------------------

    def item(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        return self._home(session_id).item(session_id, table, key, at)

    def items(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> tuple[Item, ...]:
        return self._home(session_id).items(session_id, table, limit, after, at)

    def write_items(
        self,
        session_id: str,
        expected_revision: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        home = self._home(session_id)
        return home.write_items(session_id, expected_revision, writes, operation_id, owner_id)

    def drop_expired_items(self, at: datetime, limit: int) -> int:
        dropped = 0
        for store in self._used():
            dropped += store.drop_expired_items(at, limit - dropped)
        return dropped

    # --- work and its owners --------------------------------------------------------------

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        self.main.enlist(owner_id, lapsed)
        self._passing.enlist(owner_id)

    def dismiss(self, owner_id: str) -> None:
        self.main.dismiss(owner_id)
        self._passing.dismiss(owner_id)

    def is_alive(self, owner_id: str) -> bool:
        self._passing.check_open()
        return self.main.is_alive(owner_id)

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        return self._home(session_id).work_in(session_id)

    def work_of(self, session_id: str, owner_id: str) -> tuple[Work, ...]:
        return self._home(session_id).work_of(session_id, owner_id)

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        return tuple(left for store in self._used() for left in store.abandoned(session_id))

    def take_over(
        self, owner_id: str, limit: int, *, restarting: bool, passing_over: Collection[str] = ()
    ) -> tuple[Taken, ...]:
        return tuple(
            taken
            for store in self._used()
            for taken in store.take_over(
                owner_id, limit, restarting=restarting, passing_over=passing_over
            )
        )

    def give_back(self, taken: Taken) -> None:
        self._home(taken.session_id).give_back(taken)

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        return tuple(each for store in self._used() for each in store.to_stop(owner_id))

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        self._home(session_id).release(session_id, work, owner_id)

    # --- ends -----------------------------------------------------------------------------

    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        def end(stored: Stored) -> tuple[datetime, str]:
            at = ended_at(stored.state, self.lifecycle)
            assert at is not None  # both found it ended
            return at, stored.state.session_id

        runs = [store.ended(before, limit) for store in self._used()]
        return tuple(islice(merge(*runs, key=end), limit))

    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        self._home(session_id).bury(session_id, revision, tombstone)

    def compact(self, checkpoint: Checkpoint) -> int:
        return self._home(checkpoint.event.session_id).compact(checkpoint)

    # --- the store itself -----------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self._passing.batch(), self.main.batch():
            yield

    def mark(self, name: str) -> bytes | None:
        self._passing.check_open()
        return self.main.mark(name)

    def set_mark(self, name: str, body: bytes) -> None:
        self._passing.check_open()
        self.main.set_mark(name, body)

    def drop_mark(self, name: str) -> None:
        self._passing.check_open()
        self.main.drop_mark(name)

    def marks(self, prefix: str) -> tuple[tuple[str, bytes], ...]:
        self._passing.check_open()
        return self.main.marks(prefix)

    def check(self) -> tuple[str, ...]:
        return self.main.check() + self._passing.check()

    def close(self) -> None:
        self._closed = True
        self._passing.close()
