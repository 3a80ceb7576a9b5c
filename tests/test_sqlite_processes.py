"""The SQLite store between processes: each has its turn, and sees whole commits."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from processes import Program
from sqlite_files import plain

from session_fsm import (
    SESSION_LIFECYCLE,
    RevisionConflictError,
    StoreUnavailableError,
)
from session_fsm.history import audit
from session_fsm.stores import SqliteStore
from session_fsm.stores.records import Work
from session_fsm.stores.sqlite_commit import PreparedCommit
from session_fsm.testing.authors import Author, everything


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file may be made."""
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An empty store in a new file."""
    store = SqliteStore(path)
    yield store
    store.close()


CREATING = """
    import sys
    from session_fsm.stores import SqliteStore
    from session_fsm.testing.authors import Author
    path, name = sys.argv[1:]
    print("ready", flush=True)
    input()
    store = SqliteStore(path)
    author = Author(store, name)
    for number in range(5):
        author.write(f"{name} {number}", "activate")
    store.close()
    print("done", flush=True)
"""


def test_sqlite_store_is_opened_by_ten_processes_at_once(path: Path) -> None:
    """Ten processes that open one new file in the same moment all work with it."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program(CREATING, path, f"process {number}"))
            for number in range(10)
        ]
        assert {program.hear() for program in programs} == {"ready"}
        for program in programs:
            program.say()
        assert [program.rest() for program in programs] == [["done"]] * 10
    with closing(SqliteStore(path)) as store:
        expected = {f"process {one} {two}" for one in range(10) for two in range(5)}
        assert set(store.ids(1000, None)) == expected
        assert store.counts() == {"active": 50}
        assert store.check() == ()


COMPETING = """
    import sys
    from session_fsm import RevisionConflictError
    from session_fsm.stores import SqliteStore
    from session_fsm.testing.authors import Author
    path, name, wins = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = SqliteStore(path)
    author = Author(store, name)
    print("ready", flush=True)
    input()
    lost = 0
    while wins:
        draft = author.draft("a", "touch", "touch")
        try:
            store.commit(draft)
        except RevisionConflictError:
            lost += 1
        else:
            wins -= 1
            print(draft.steps[-1].sealed.event.revision, flush=True)
    store.close()
"""


def test_sqlite_store_loses_no_update_of_two_processes(store: SqliteStore, path: Path) -> None:
    """Of processes that commit to one session each revision is one's, and none is lost."""
    Author(store).write("a", "activate")
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program(COMPETING, path, name, 20)) for name in ("one", "two")
        ]
        assert {program.hear() for program in programs} == {"ready"}
        for program in programs:
            program.say()
        revisions = [int(line) for program in programs for line in program.rest()]
    assert sorted(revisions) == list(range(4, 84, 2))
    assert store.tail("a")[0] == 82
    assert audit(store.history("a"), SESSION_LIFECYCLE)[0] == ()


WRITING = """
    import sys
    from session_fsm.stores import SqliteStore
    from session_fsm.testing.authors import Author
    store = SqliteStore(sys.argv[1])
    author = Author(store)
    author.write("a", "activate", "go_idle")
    print(3, flush=True)
    for number in range(int(sys.argv[2])):
        if number % int(sys.argv[3]) == 0:
            sys.stdin.readline()
        commit = author.write("a", "resume", "touch", "go_idle")
        print(commit.steps[-1].sealed.event.revision, flush=True)
    store.close()
"""


def test_sqlite_store_shows_other_processes_whole_commits(path: Path) -> None:
    """Whoever reads the file, by the store or not, meets no half of a composite commit."""
    rounds, at_once = 100, 10
    last = 3 + 3 * rounds
    with Program(WRITING, path, rounds, at_once) as program:
        assert program.hear() == "3"
        seen: set[int] = set()
        told = 0
        with closing(SqliteStore(path)) as store:
            while not seen or max(seen) < last:
                stored = store.load("a")
                assert stored is not None
                seen.add(stored.revision)
                waits = stored.revision % (3 * at_once) == 3 and stored.revision < last
                if waits and stored.revision != told:
                    told = stored.revision
                    program.say()
                with plain(path) as fresh:
                    [(revision, status)] = fresh.execute("SELECT revision, status FROM session")
                    assert (revision % 3, status) == (0, "idle")
                    [events] = fresh.execute("SELECT count(*) FROM session_event").fetchone()
                    assert events % 3 == 0
                    seen.add(revision)
        assert {revision % 3 for revision in seen} == {0}
        assert len(seen) > rounds // at_once
        assert len(program.rest()) == rounds


def test_sqlite_store_keeps_what_a_killed_process_was_told(path: Path) -> None:
    """A process that is killed between two answers leaves whole commits, all that were answered."""
    for number in (1, 10):
        with Program(WRITING, path, 1_000_000, 1_000_000) as program:
            program.say()
            for _ in range(number):
                answered = int(program.hear())
            program.kill()
            answered = max([answered, *map(int, program._out.read().split())])
        with closing(SqliteStore(path)) as store:
            revision, _ = store.tail("a")
            assert revision >= answered
            assert revision % 3 == 0
            assert store.check() == ()
            assert audit(store.history("a"), SESSION_LIFECYCLE)[0] == ()
            author = Author(store)
            author.write("a", "terminate", "finish")
            author.bury("a")
        path.unlink()


HOLDING = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    input()
    connection.execute("ROLLBACK")
    connection.close()
    print("released", flush=True)
"""


def test_sqlite_store_gives_up_on_a_lock_and_goes_on(path: Path) -> None:
    """A writer that holds the file beyond the time-out is told of; nothing is lost by it."""
    with closing(SqliteStore(path, busy_timeout_seconds=0.1)) as store:
        author = Author(store)
        author.write("a", "activate")
        before = everything(store)
        draft = author.draft("a", "touch")
        calls: list[Callable[[], object]] = [
            lambda: store.commit(draft),
            lambda: store.set_mark("m", b""),
            lambda: store.release("a", [Work("worker")], "author"),
            lambda: SqliteStore(path, busy_timeout_seconds=0.1),
        ]
        with Program(HOLDING, path) as program:
            assert program.hear() == "held"
            for call in calls:
                with pytest.raises(StoreUnavailableError) as caught:
                    call()
                assert "locked" in caught.value.problem
                assert caught.value.operation_id is None
            assert everything(store) == before
            program.say()
            assert program.rest() == ["released"]
        store.commit(draft)
        assert store.tail("a")[0] == 3
        SqliteStore(path).close()


OPENING = """
    import sys
    from filelock import FileLock
    with FileLock(sys.argv[1]):
        print("held", flush=True)
        input()
"""


def test_sqlite_store_gives_up_on_the_turn_to_open(store: SqliteStore, path: Path) -> None:
    """A process that stays in the middle of opening is told of by whoever waits for its turn."""
    with Program(OPENING, path.with_name("sessions.db.owners") / "opening") as program:
        assert program.hear() == "held"
        with pytest.raises(StoreUnavailableError, match="can't open"):
            SqliteStore(path, busy_timeout_seconds=0.1)
        Author(store).write("a")
        program.say()
        assert program.rest() == []
    SqliteStore(path).close()


def test_sqlite_store_compares_the_revision_where_it_writes(store: SqliteStore) -> None:
    """The update itself has the condition: a step from an old revision changes no row."""
    author = Author(store)
    author.write("a", "activate")
    late = PreparedCommit(author.draft("a", "touch"), store.lifecycle)
    author.write("a", "touch")
    before = everything(store)
    with store._connections.writing() as writer:
        with pytest.raises(RevisionConflictError) as caught:
            late.apply(writer)
        assert (caught.value.expected, caught.value.found) == (2, 3)
    assert everything(store) == before
