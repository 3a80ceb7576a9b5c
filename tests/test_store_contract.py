"""Every store keeps to the one contract, and tells the same as the others."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from importlib import import_module
from itertools import cycle
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import PostgresServer

from session_fsm import (
    Clear,
    Delete,
    FencedError,
    ItemConflictError,
    Put,
    RevisionConflictError,
    SessionConfig,
    SessionNotFoundError,
    StoreUnavailableError,
    TransitionError,
    testing,
)
from session_fsm.stores import MemoryStore, PostgresStore, SessionStore, SqliteStore
from session_fsm.stores.records import Work
from session_fsm.stores.spanning import SpanningStore
from session_fsm.testing import StoreContract
from session_fsm.testing.authors import BEGINNING, Author, StoreRules, everything
from session_fsm.testing.store_batches import in_threads


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[SessionStore]:
        """A new store in memory."""
        store = MemoryStore()
        yield store
        store.close()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SessionStore]:
        """A new store in a new file."""
        store = SqliteStore(tmp_path / "sessions.db")
        yield store
        store.close()


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_store: PostgresStore) -> SessionStore:
        """A new store in a new schema of a real server."""
        return postgres_store


class TestSerializablePostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[SessionStore]:
        """A new store where transactions that depend on each other are undone, as some engines do.

        All are serializable: nothing of that may be noticed.
        """
        options = "-c%20default_transaction_isolation%3Dserializable"
        store = PostgresStore(f"{postgres_url}&options={options}")
        yield store
        store.close()

    def test_store_takes_commits_of_many_threads(self, store: SessionStore) -> None:
        """Threads lose nothing; of a batch that has met others nothing is kept, and that is told.

        A store can't do again what its caller does inside of a batch.
        """

        def work(number: int, barrier: threading.Barrier) -> None:
            author = self.author(store, f"thread {number}")
            barrier.wait()
            author.write(f"s{number}", "activate")
            for step in range(5):
                author.write(f"s{number}", ("begin_task", {"task_id": f"t{step}"}))
                while store.tail(f"s{number}")[0] < 5 + 3 * step:
                    with suppress(StoreUnavailableError), store.batch():
                        author.write(f"s{number}", "touch")
                        author.write(f"s{number}", "touch")

        assert in_threads(4, work) == [None] * 4
        assert [store.tail(f"s{number}")[0] for number in range(4)] == [17] * 4
        assert store.check() == ()


class _WholeStore(MemoryStore):
    """A store of somebody who has not heard of checkpoints."""

    compact = SessionStore.compact


class TestWholeStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[SessionStore]:
        """A new store that keeps histories whole."""
        store = _WholeStore()
        yield store
        store.close()


class TestSpanningMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[SessionStore]:
        """A new store in memory, behind the one that spans two."""
        store = SpanningStore(MemoryStore())
        yield store
        store.close()


class TestSpanningSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SessionStore]:
        """A new store in a new file, with memory beside it."""
        main = SqliteStore(tmp_path / "sessions.db")
        store = SpanningStore(main)
        yield store
        store.close()
        main.close()


class TestSpanningPostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_store: PostgresStore) -> Iterator[SessionStore]:
        """A new store in a new schema, with memory beside it."""
        store = SpanningStore(postgres_store)
        yield store
        store.close()


class TestSpanningBothStores(TestSpanningSqliteStore):
    """The same, where every other id is of a session that is not to be kept."""

    def config_of(self, session_id: str) -> SessionConfig:
        """Return a configuration that keeps a session or not, by its id."""
        return SessionConfig(persistence_enabled=sum(map(ord, session_id)) % 2 == 0)


def test_store_contract_has_every_part() -> None:
    """No part of the contract is written and left out of it."""
    parts = {
        part
        for name in (each.name for each in iter_modules(testing.__path__))
        if name.startswith("store_")
        for part in vars(import_module(f"{testing.__name__}.{name}")).values()
        if isinstance(part, type) and issubclass(part, StoreRules)
    }
    assert parts == set(StoreContract.__mro__) - {object}


# --- stores side by side ---------------------------------------------------------------------

IDS = st.sampled_from(("a", "b", "é", "\U0001f600"))
OWNERS = st.sampled_from(("one", "two"))
WORK = st.sampled_from((Work("task", "t"), Work("task", "u"), Work("start"), Work("worker")))
MOVES = st.sampled_from(
    (
        "activate",
        "go_idle",
        "resume",
        "touch",
        "terminate",
        "finish",
        "start_conversation",
        ("begin_task", {"task_id": "t"}),
        ("end_task", {"task_id": "t"}),
        ("update", {"metadata": {"x": True}}),
        ("update", {"metadata": {"x": 1}}),
    )
)
TABLES = st.sampled_from(("files", "notes"))
KEYS = st.sampled_from(("k", "l", "é"))
VERSIONS = st.none() | st.integers(0, 4)
VALUES = st.sampled_from((None, True, 1, 1.0, "\U0001f600", ["x", {}], {"a": [None]}))
LIVES = st.none() | st.sampled_from((1, 2.5, 10))
WRITES = st.lists(
    st.one_of(
        st.builds(Put, TABLES, KEYS, VALUES, expected_version=VERSIONS, ttl_seconds=LIVES),
        st.builds(Put, TABLES, KEYS, VALUES),
        st.builds(Delete, TABLES, KEYS, expected_version=VERSIONS),
        st.builds(Clear, TABLES),
    ),
    max_size=3,
)
SECONDS = st.integers(0, 5)
ACTIONS = st.one_of(
    st.tuples(st.just("put"), IDS, OWNERS, WRITES, SECONDS),
    st.tuples(st.just("put with"), IDS, OWNERS, MOVES, WRITES),
    st.tuples(st.just("drop"), SECONDS, st.integers(1, 3)),
    st.tuples(st.just("write"), IDS, OWNERS, st.lists(MOVES, max_size=3), st.lists(WORK), WORK),
    st.tuples(st.just("end"), IDS, OWNERS),
    st.tuples(st.just("bury"), IDS, OWNERS),
    st.tuples(st.just("compact"), IDS, OWNERS, st.integers(1, 3)),
    st.tuples(st.just("release"), IDS, OWNERS, st.lists(WORK)),
    st.tuples(st.just("dismiss"), OWNERS),
    st.tuples(st.just("enlist"), OWNERS),
)


class _UndoneError(Exception):
    """Ends a batch that is to be undone."""


def act(authors: dict[str, Author], store: SessionStore, action: tuple[Any, ...]) -> str:
    """Do one thing to a store; returns what it told, or the error that it met, if any."""
    kind, *rest = action
    try:
        match kind:
            case "write":
                session_id, owner, moves, claims, release = rest
                stops = len(moves) == 1
                more = {"claims": claims, "releases": [release], "stops_worker": stops}
                stored = store.load(session_id)
                if moves or stored is None:
                    authors[owner].write(session_id, *moves, **more)
            case "end":
                if (stored := store.load(rest[0])) is not None:
                    way = store.lifecycle.way_out(stored.state.status)
                    tasks = [("end_task", {"task_id": task}) for task in stored.state.active_tasks]
                    if way:
                        authors[rest[1]].write(rest[0], *tasks, *(row.trigger for row in way))
            case "bury":
                stored = store.load(rest[0])
                if stored is not None and stored.state.status in store.lifecycle.final:
                    authors[rest[1]].bury(rest[0])
            case "compact":
                session_id, owner, keep = rest
                older = {event.kind for _, event in store.history(session_id)[:-keep]}
                if older & {"created", "checkpoint"} and older != {"checkpoint"}:
                    authors[owner].compact(session_id, keep=keep)
            case "put":
                session_id, owner, writes, number = rest
                at = BEGINNING + timedelta(seconds=number)
                stored = store.load(session_id)
                if stored is None or stored.state.status not in store.lifecycle.final:
                    return repr(authors[owner].put(session_id, *writes, at=at))
            case "put with":
                session_id, owner, move, writes = rest
                if store.load(session_id) is not None:
                    authors[owner].write(session_id, move, writes=writes)
            case "drop":
                at = BEGINNING + timedelta(seconds=rest[0])
                return str(store.drop_expired_items(at, rest[1]))
            case "release":
                session_id, owner, work = rest
                store.release(session_id, work, owner)
            case "dismiss":
                store.dismiss(rest[0])
            case "enlist":
                store.dismiss(rest[0])  # an owner is enlisted once
                store.enlist(rest[0])
    except (TransitionError, RevisionConflictError, FencedError) as fault:
        return type(fault).__name__
    except (ItemConflictError, SessionNotFoundError) as fault:
        return str(fault)
    return ""


def by_turns() -> Callable[[str], SessionConfig]:
    """What makes every other session one that is not to be kept, so that lives of an id differ."""
    wishes = cycle((None, False))
    return lambda _: SessionConfig(persistence_enabled=next(wishes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths of files that are not there yet, one after the other."""
    root = tmp_path_factory.mktemp("stores")
    return iter(root / f"{number}.db" for number in range(1_000_000))


def assert_same_feed(*stores: SessionStore) -> None:
    """See that stores give everything the same position, and have removed as much."""
    for session_id in (None, "a", "b", "é", "nobody"):
        first, *others = (store.feed(0, 1000, session_id) for store in stores)
        assert all(other == first for other in others)


@settings(max_examples=30)
@given(batches=st.lists(st.tuples(st.booleans(), st.booleans(), st.lists(ACTIONS, max_size=6))))
def test_store_contract_stores_agree(
    directory: Iterator[Path],
    postgres: PostgresServer,
    batches: list[tuple[bool, bool, list[tuple[Any, ...]]]],
) -> None:
    """After any commits, burials and batches, kept or undone, all stores tell the same."""
    with ExitStack() as closing:
        stores: list[SessionStore] = [MemoryStore(), SqliteStore(next(directory))]
        stores.append(closing.enter_context(postgres.opened_store()))
        stores.append(SpanningStore(SqliteStore(next(directory))))
        for store in stores:
            closing.callback(store.close)
            closing.callback(getattr(store, "main", store).close)
        writers = [
            {name: Author(store, name, by_turns()) for name in ("one", "two")} for store in stores
        ]
        for batched, undone, actions in batches:
            met = []
            for store, authors in zip(stores, writers, strict=True):
                before = everything(store, "one", "two")
                if batched:
                    try:
                        with store.batch():
                            met.append([act(authors, store, action) for action in actions])
                            if undone:
                                raise _UndoneError
                    except _UndoneError:
                        if not any(kind in ("dismiss", "enlist") for kind, *_ in actions):
                            assert everything(store, "one", "two") == before
                else:
                    met.append([act(authors, store, action) for action in actions])
            assert met[0] == met[1] == met[2] == met[3]
            told = [everything(store, "one", "two") for store in stores]
            assert told[0] == told[1] == told[2] == told[3]
            assert_same_feed(*stores[:3])
            assert told[0]["problems"] == ()
