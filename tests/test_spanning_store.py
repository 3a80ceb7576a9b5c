"""The store that spans two: what is not to be kept lives beside what is, and is told of with it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from session_fsm import (
    SessionConfig,
    SessionExistsError,
    SessionManager,
    StateInvalidError,
    StoreUnavailableError,
)
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore, SqliteStore
from session_fsm.stores.abc import all_ids
from session_fsm.stores.records import Work
from session_fsm.stores.spanning import SpanningStore, check_persistence
from session_fsm.testing.authors import BEGINNING, END_OF_TIME, Author, everything

KEPT, PASSING = SessionConfig(persistence_enabled=True), SessionConfig(persistence_enabled=False)
ENDING = ("activate", "terminate", "finish")


def by_name(session_id: str) -> SessionConfig:
    """Sessions whose id begins with a p are not to be kept."""
    return PASSING if session_id.startswith("p") else SessionConfig()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file lies."""
    return tmp_path / "sessions.db"


@pytest.fixture
def main(path: Path) -> Iterator[SqliteStore]:
    """The durable store."""
    main = SqliteStore(path)
    yield main
    main.close()


@pytest.fixture
def store(main: SqliteStore) -> Iterator[SpanningStore]:
    """The store that spans the durable one and memory."""
    store = SpanningStore(main)
    yield store
    store.close()


@pytest.fixture
def author(store: SpanningStore) -> Author:
    """Who writes into both."""
    store.enlist("author")
    return Author(store, "author", by_name)


# --- where a session lives -----------------------------------------------------------------------


def test_spanning_store_shows_what_the_durable_one_shows(
    store: SpanningStore, main: SqliteStore
) -> None:
    """It stands for its first store: same place, same lifecycle, same durability."""
    assert store.main is main
    assert (store.url, store.durable, store.lifecycle) == (main.url, True, main.lifecycle)
    memory = SpanningStore(MemoryStore())
    assert (memory.url, memory.durable) == ("memory://", False)


def test_spanning_store_writes_nothing_of_what_is_not_kept(
    store: SpanningStore, main: SqliteStore, author: Author, path: Path
) -> None:
    """No table of the file gets a trace of a session that is not to be kept, nor of its end."""
    author.write("d", "activate")
    with closing(sqlite3.connect(path)) as connection:

        def rows() -> list[list[tuple[Any, ...]]]:
            tables = ("session", "session_event", "work", "session_count", "mark")
            return [connection.execute(f"SELECT * FROM {each}").fetchall() for each in tables]

        before = rows()
        author.write("p", "activate", claims=[Work("task", "t"), Work("worker")])
        author.write("p", ("begin_task", {"task_id": "t"}))
        author.write("p", ("end_task", {"task_id": "t"}), "terminate", "finish", stops_worker=True)
        store.release("p", [Work("worker")], "author")
        author.bury("p")
        author.write("p", "activate")
        assert rows() == before
    assert main.load("p") is None
    assert list(all_ids(main)) == ["d"]


def test_spanning_store_keeps_the_rest(store: SpanningStore, path: Path, author: Author) -> None:
    """What is to be kept, or says nothing, outlives the process; the other sessions don't."""
    author.write("d", "activate")
    author.write("p", "activate")
    store.close()
    store.main.close()
    with closing(SqliteStore(path)) as main, closing(SpanningStore(main)) as again:
        assert list(all_ids(again)) == ["d"]
        assert again.load("p") is None
        assert again.tail("p") == (0, "")


def test_spanning_store_over_memory_keeps_nothing_apart() -> None:
    """Over memory there is but one place: not to be kept is what every session is."""
    main = MemoryStore()
    store = SpanningStore(main)
    Author(store, "author", by_name).write("p", "activate")
    assert main.load("p") == store.load("p")
    assert main.load("p") is not None


def test_spanning_store_checks_what_is_wished_for(main: SqliteStore) -> None:
    """To be durable is granted by a durable store only; nothing is stored where it is not."""
    memory = MemoryStore()
    for wish in (None, False):
        check_persistence(SessionConfig(persistence_enabled=wish), memory)
        check_persistence(SessionConfig(persistence_enabled=wish), main)
    check_persistence(KEPT, main)
    with pytest.raises(StateInvalidError, match="persistence_enabled: true, but memory://"):
        check_persistence(KEPT, memory)
    store = SpanningStore(memory)
    with pytest.raises(StateInvalidError):
        Author(store, "author", lambda _: KEPT).write("a")
    assert store.ids(9, None) == ()


def test_spanning_store_gives_an_id_once(store: SpanningStore, author: Author) -> None:
    """An id that lives in one place can't be created in the other."""
    author.write("d")
    author.write("p")
    kept = Author(MemoryStore(), "kept", lambda _: SessionConfig())
    passing = Author(MemoryStore(), "passing", lambda _: PASSING)
    before = everything(store)
    for draft in (passing.draft("d"), kept.draft("p"), kept.draft("d"), passing.draft("p")):
        with pytest.raises(SessionExistsError):
            store.commit(draft)
    assert everything(store) == before


def test_spanning_store_knows_every_operation(
    store: SpanningStore, main: SqliteStore, author: Author
) -> None:
    """Whether a commit landed is known, wherever it did."""
    commits = [author.write("d", "activate"), author.write("p", "activate")]
    assert [store.landed(each.session_id, each.operation_id) for each in commits] == [True, True]
    assert [main.landed(each.session_id, each.operation_id) for each in commits] == [True, False]


# --- both together -------------------------------------------------------------------------------


def test_spanning_store_lists_both(store: SpanningStore, author: Author) -> None:
    """Pages, ids, counts, deadlines and ends are merged in their order."""
    names = ("p3", "d1", "p1", "d2", "a", "p2", "z")
    for minute, name in enumerate(names):
        author.write(name, "activate", at=BEGINNING + timedelta(minutes=minute))
    for limit in (1, 2, 3, 9):
        found: list[str] = []
        after: str | None = None
        while page := store.page(("active",), limit, after):
            assert len(page) <= limit
            found += [stored.state.session_id for stored in page]
            after = found[-1]
        assert found == sorted(names)
        assert list(all_ids(store, limit)) == sorted(names)
    assert store.counts() == {"active": len(names)}
    due = store.due(END_OF_TIME, 99, None)
    assert [session_id for _, session_id in due] == list(names)
    assert store.next_deadline() == due[0][0]
    assert store.due(END_OF_TIME, 2, due[2]) == due[3:5]
    for minute, name in enumerate(reversed(names)):
        author.write(name, "terminate", "finish", at=BEGINNING + timedelta(hours=1, minutes=minute))
    for limit in (1, 3, 4, 99):
        ended = [stored.state.session_id for stored in store.ended(END_OF_TIME, limit)]
        assert ended == list(reversed(names))[:limit]


def test_spanning_store_tells_of_work_in_both(store: SpanningStore, author: Author) -> None:
    """What an owner left, or has to stop, is told of both places."""
    worker = Work("worker")
    for name in ("d", "p"):
        author.write(name, "activate", claims=[worker])
        author.write(name, "touch", stops_worker=True)
    assert set(store.to_stop("author")) == {"d", "p"}
    assert store.abandoned() == ()
    store.dismiss("author")
    assert {each.session_id for each in store.abandoned()} == {"d", "p"}
    assert [each.session_id for each in store.abandoned("p")] == ["p"]
    for name in ("d", "p"):
        store.release(name, [worker], "author")
    assert store.abandoned() == ()


def test_spanning_store_undoes_both(store: SpanningStore, author: Author) -> None:
    """A batch over both places is kept or undone in both."""
    author.write("d", *ENDING)
    author.write("p", *ENDING)
    author.write("d2", "activate")
    before = everything(store)

    def batch(fault: Exception | None) -> None:
        with store.batch():
            author.bury("d")
            author.bury("p")
            author.write("p", "activate")
            author.write("p2", "activate")
            author.write("d2", "touch")
            store.set_mark("m", b"1")
            if fault is not None:
                raise fault

    with pytest.raises(LookupError):
        batch(LookupError())
    assert everything(store) == before
    assert store.mark("m") is None
    batch(None)
    assert store.counts() == {"active": 3}
    assert store.mark("m") == b"1"


def test_spanning_store_undoes_memory_where_the_disk_fails(
    store: SpanningStore, author: Author, path: Path
) -> None:
    """Where the durable half of a batch can't be committed, the other half is undone with it."""
    author.write("p", "activate")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER breaks BEFORE INSERT ON mark BEGIN SELECT RAISE(ROLLBACK, 'gone'); END"
        )
    before = everything(store)

    def batch() -> None:
        with store.batch():
            author.write("p", "touch")
            author.write("p2", "activate")
            with pytest.raises(StoreUnavailableError):
                store.set_mark("m", b"")

    with pytest.raises(StoreUnavailableError):
        batch()
    assert everything(store) == before
    author.write("p", "touch")


def test_spanning_store_leaves_the_durable_one_open(
    store: SpanningStore, main: SqliteStore, author: Author
) -> None:
    """Closing it lets go of memory alone; the other store is its owner's."""
    author.write("d")
    store.close()
    assert main.load("d") is not None
    with pytest.raises(StoreUnavailableError):
        store.load("d")


# --- lives of one id in both places --------------------------------------------------------------


def test_spanning_store_lets_an_id_change_its_place(path: Path) -> None:
    """An id that was purged is free for a life elsewhere, which goes on from the tombstone."""
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    with SessionManager(f"sqlite:///{path}", clock=clock) as manager:
        revision = 0
        for wish in (None, False, None, None, False, False, True, False):
            session = manager.create("a", config=SessionConfig(persistence_enabled=wish))
            assert session.revision > revision
            manager.touch("a")
            manager.terminate("a")
            revision = manager.get("a").revision
            history = manager.history("a")
            assert [event.revision for event in history[-5:]] == list(
                range(revision - 4, revision + 1)
            )
            assert len({event.revision for event in history}) == len(history)
            assert manager.verify().problems == ()
            clock.advance(10)
            assert manager.purge(ended_before=clock.now()) == 1
            [stone] = manager.history("a")
            revision += 1
            assert (stone.kind, stone.revision) == ("purged", revision)
            assert manager.verify().problems == ()
    with SessionManager(f"sqlite:///{path}", clock=clock) as manager:
        # The last life was not kept; that of the one before it was.
        [stone] = manager.history("a")
        assert stone.kind == "purged"
        assert manager.create("a").revision == stone.revision + 2
        assert manager.verify().problems == ()


def test_spanning_store_passes_a_given_tombstone_on(store: SpanningStore, author: Author) -> None:
    """The tombstone that a commit goes on from is the newest of both places."""
    author.write("p", *ENDING)
    stone = author.bury("p")
    kept = Author(store, "kept", lambda _: SessionConfig())
    draft = kept.draft("p")
    assert draft.expected_revision == stone.event.revision
    store.commit(draft)
    assert [event for _, event in store.main.history("p")] == [
        stone.event,
        draft.steps[0].sealed.event,
    ]
    assert store.history("p") == store.main.history("p")
    with pytest.raises(SessionExistsError):
        store.commit(attrs.evolve(draft, operation_id="again"))
