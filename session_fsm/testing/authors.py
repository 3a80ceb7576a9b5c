"""Whoever writes into a store in a test: commits as a manager makes them, without a manager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

from ..changes import stored_steps
from ..compaction import Checkpoint, checkpoint_of
from ..history import Sealed, Step, tombstone
from ..items import Item, ItemWrites, Write, Written
from ..jsontext import dump_json
from ..lifecycle import Lifecycle
from ..machine import SessionMachine
from ..serialization import dumps
from ..state import SessionConfig, SessionState
from ..stores.abc import SessionStore, all_ids
from ..stores.records import Commit, Stored, Work

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""When the sessions of an author are created."""
END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
"""Behind every deadline and every end."""

TABLES = ("files", "notes", "é")
"""The tables that tests of stores write to."""

Move = str | tuple[str, Mapping[str, Any]]
"""A trigger, alone or with its arguments."""
Fault = TypeVar("Fault", bound=BaseException)


class Author:
    """Makes commits for a store, and writes them; known to it as alive from the beginning.

    Args:
        store: Where the sessions are kept.
        name: In whose name work is claimed; no two authors of a store share one.
        config_of: Returns the configuration of a session that is created, by its id.
    """

    def __init__(
        self,
        store: SessionStore,
        name: str = "author",
        config_of: Callable[[str], SessionConfig] = lambda _: SessionConfig(),
    ) -> None:
        self.store = store
        self.name = name
        self._config_of = config_of
        self._numbers = count(1)
        if not store.is_alive(name):
            store.enlist(name)

    def draft(
        self,
        session_id: str,
        *moves: Move,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        claims: Iterable[Work] = (),
        releases: Iterable[Work] = (),
        stops_worker: bool = False,
        writes: Iterable[Write] = (),
    ) -> Commit:
        """Make a commit from what the store has now; nothing is written.

        Args:
            session_id: Whose steps; created by the first of them if it is not there.
            *moves: What is fired, in order.
            at: When; None: a second after the last change, or at `BEGINNING`.
            metadata: Of the session, where it is created.
            claims: Work that the author takes upon itself.
            releases: Work that nobody answers for any longer.
            stops_worker: Whether a worker of the session is to be stopped.
            writes: What is written to tables of the session, at the instant of the first step.
        """
        store, lifecycle = self.store, self.store.lifecycle
        stored = store.load(session_id)
        revision, digest = store.tail(session_id)
        steps: list[Step] = []
        if stored is None:
            state = SessionState.new(
                session_id,
                config=self._config_of(session_id),
                metadata=metadata,
                at=BEGINNING if at is None else at,
                status=lifecycle.initial,
            )
            steps.append(Step(before=None, after=state, trigger=None, moves=False))
        else:
            state = stored.state
            at = state.updated_at + timedelta(seconds=1) if at is None else at
        machine = SessionMachine(state, lifecycle)
        for move in moves:
            trigger, arguments = (move, {}) if isinstance(move, str) else move
            before = machine.state
            after = machine.fire(trigger, at=BEGINNING if at is None else at, **arguments)
            row = lifecycle.find(trigger, before.status)
            moved = row is not None and row.target is not None
            steps.append(Step(before=before, after=after, trigger=trigger, moves=moved))
        instant = steps[0].after.updated_at if steps else BEGINNING
        made = ItemWrites(instant, tuple(writes))
        return Commit(
            session_id=session_id,
            operation_id=self._operation_id(),
            owner_id=self.name,
            expected_revision=revision,
            creates=stored is None,
            steps=stored_steps(steps, revision, digest, lifecycle),
            claims=tuple(claims),
            releases=tuple(releases),
            stops_worker=stops_worker,
            writes=made if made.writes else None,
        )

    def _operation_id(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    def write(self, session_id: str, *moves: Move, **more: Any) -> Commit:
        """Make a commit as `draft` does, write it, and return it."""
        commit = self.draft(session_id, *moves, **more)
        self.store.commit(commit)
        return commit

    def put(
        self, session_id: str, *writes: Write, at: datetime = BEGINNING, revision: int | None = None
    ) -> tuple[Written, ...]:
        """Write to tables of a session without a step.

        Args:
            session_id: The session.
            *writes: What is written, in order.
            at: When.
            revision: The revision that it was decided from; None: the stored one.
        """
        expected = self.store.tail(session_id)[0] if revision is None else revision
        made = ItemWrites(at, writes)
        return self.store.write_items(session_id, expected, made, self._operation_id(), self.name)

    def bury(self, session_id: str) -> Sealed:
        """Remove a final session, and return the tombstone that is left."""
        stored = self.store.load(session_id)
        assert stored is not None
        sealed = grave(stored)
        self.store.bury(session_id, stored.revision, sealed)
        return sealed

    def shorter(self, session_id: str, *, keep: int) -> Checkpoint:
        """Make a checkpoint for all events of a session but the newest; nothing is written."""
        events = [event for _, event in self.store.history(session_id)]
        checkpoint = checkpoint_of(events, keep, self.store.lifecycle)
        assert checkpoint is not None
        return checkpoint

    def compact(self, session_id: str, *, keep: int) -> Checkpoint:
        """Put a checkpoint in the place of all events of a session but the newest; returns it."""
        checkpoint = self.shorter(session_id, keep=keep)
        self.store.compact(checkpoint)
        return checkpoint


def grave(stored: Stored) -> Sealed:
    """Return the tombstone of a session, set a day after its last change."""
    return tombstone(
        stored.state,
        revision=stored.revision + 1,
        previous=stored.digest,
        at=stored.state.updated_at + timedelta(days=1),
    )


def routes(lifecycle: Lifecycle) -> dict[str, tuple[str, ...]]:
    """Return shortest triggers that lead a new session to each status, by hand and bare."""
    found: dict[str, tuple[str, ...]] = {lifecycle.initial: ()}
    waiting = [lifecycle.initial]
    for status in waiting:
        for row in lifecycle.leaving(status):
            if row.target is None or row.target in found or row.deadline or row.required:
                continue
            found[row.target] = (*found[status], row.trigger)
            waiting.append(row.target)
    return {status: found[status] for status in lifecycle.statuses}


def exact_item(item: Item) -> tuple[Any, ...]:
    """Return an item as something that no other one equals."""
    # As bytes: 1, 1.0 and true are equal in Python, and 0.0 equals -0.0.
    return item.key, dump_json(item.value), item.version, item.expires_at, item.updated_at


def everything(store: SessionStore, *owners: str) -> dict[str, Any]:
    """Return all that a store tells of its sessions, comparable with another store's.

    Args:
        store: The store.
        *owners: Whose workers are asked for.
    """

    def exact(stored: Stored) -> tuple[bytes, int, str]:
        # As bytes: 1, 1.0 and true are equal in Python, and 0.0 equals -0.0.
        return dumps(stored.state, store.lifecycle), stored.revision, stored.digest

    ids = tuple(all_ids(store))
    loaded = {each: stored for each in ids if (stored := store.load(each)) is not None}
    return {
        "ids": ids,
        "sessions": {each: exact(stored) for each, stored in loaded.items()},
        "tails": {each: store.tail(each) for each in ids},
        "histories": {each: store.history(each) for each in ids},
        "pages": {
            status: [exact(stored) for stored in store.page((status,), 1000, None)]
            for status in store.lifecycle.statuses
        },
        "counts": {status: number for status, number in store.counts().items() if number},
        "due": store.due(END_OF_TIME, 1000, None),
        "next_deadline": store.next_deadline(),
        "items": {
            (each, table): [
                exact_item(item) for item in store.items(each, table, 1000, None, BEGINNING)
            ]
            for each in loaded
            for table in TABLES
        },
        "work": {each: set(work) for each in ids if (work := store.work_in(each))},
        "abandoned": {
            (each.session_id, each.owner_id): set(each.work) for each in store.abandoned()
        },
        "to_stop": {owner: set(store.to_stop(owner)) for owner in owners},
        "ended": [exact(stored) for stored in store.ended(END_OF_TIME, 1000)],
        "problems": store.check(),
    }


class StoreRules:
    """A part of the contract of stores.

    Its tests take a fixture `store`, which a subclass defines.
    """

    def config_of(self, session_id: str) -> SessionConfig:
        """Return the configuration of a session that a test creates."""
        return SessionConfig()

    def author(self, store: SessionStore, name: str = "author") -> Author:
        """Return somebody who writes into the store."""
        return Author(store, name, self.config_of)


@contextmanager
def refused(kind: type[Fault]) -> Iterator[list[Fault]]:
    """Expect an error inside; it is in the list that is given, once it was raised."""
    caught: list[Fault] = []
    try:
        yield caught
    except kind as fault:
        caught.append(fault)
    else:
        raise AssertionError(f"{kind.__name__} was not raised")
