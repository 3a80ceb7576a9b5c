"""The SQLite store: its file, its processes, what can't be read, and what goes wrong around it."""

import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from processes import Program

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    Lifecycle,
    LifecycleError,
    RevisionConflictError,
    Row,
    SchemaVersionError,
    SessionExistsError,
    SessionManager,
    StoreUnavailableError,
    open_store,
)
from session_fsm.history import audit
from session_fsm.stores import MemoryStore, SqliteStore
from session_fsm.stores.abc import Work
from session_fsm.stores.sqlite_commit import PreparedCommit
from session_fsm.stores.sqlite_connection import PAGE_BYTES
from session_fsm.testing.authors import END_OF_TIME, Author, everything, routes

OTHER = Lifecycle(
    statuses=("open", "idle", "shut"),
    initial="open",
    rows=[
        Row("lean", "open", "idle"),
        Row("close", ("open", "idle"), "shut", ending=True),
    ],
    name="door",
)
"""A lifecycle that shares a word with ours, and ends in one that ours does not know."""


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


def mode_of(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def plain(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's, which commits at once."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def tamper(path: Path, statement: str, *values: Any) -> None:
    """Change rows behind the back of the triggers, which are as before afterwards."""
    with plain(path) as connection:
        query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement, values).rowcount == 1
        for _, sql in triggers:
            connection.execute(sql)


# --- the file ----------------------------------------------------------------------------------


def test_sqlite_store_writes_durably(store: SqliteStore, path: Path) -> None:
    """The write-ahead log is on, for everybody, and each commit waits for the disk."""
    with plain(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for give in (store._connections.writing, store._connections.reading):
        with give() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_sqlite_store_is_for_its_user_alone(path: Path) -> None:
    """All that is made is closed to others, whatever the process's mask, and no more is made."""
    mask = os.umask(0)
    try:
        store = SqliteStore(path)
        author = Author(store, "somebody")
        store.enlist("somebody")
        author.write("a", "activate")
        names = {each.name: mode_of(each) for each in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(mask)
    assert names == {
        "sessions.db": 0o600,
        "sessions.db-wal": 0o600,
        "sessions.db-shm": 0o600,
        "sessions.db.owners": 0o700,
    }
    assert mode_of(path) == 0o600


def test_sqlite_store_outlives_its_process(path: Path) -> None:
    """What was written is there when the file is opened again, in every respect."""
    store = SqliteStore(path)
    author = Author(store, "somebody")
    store.enlist("somebody")
    for status, triggers in routes(store.lifecycle).items():
        author.write(f"in {status}", *triggers, claims=[Work("worker")])
    author.bury("in terminated")
    author.write("in active", "touch", stops_worker=True)
    store.set_mark("m", b"\x00")
    before = everything(store, "somebody")
    store.close()
    again = open_store(store.url)
    assert again.mark("m") == b"\x00"
    again.enlist("somebody")
    assert everything(again, "somebody") == before
    again.close()


@pytest.mark.parametrize("name", ["a b.db", "é\U0001f600.db", "100%.db", "a?b#c.db", "a'\";--.db"])
def test_sqlite_store_takes_any_file_name(tmp_path: Path, name: str) -> None:
    """A path is a path: no character of it means anything else."""
    with closing(SqliteStore(tmp_path / name)) as store:
        Author(store).write("a")
        assert {each.name for each in tmp_path.iterdir()} == {
            name,
            f"{name}-wal",
            f"{name}-shm",
            f"{name}.owners",
        }


def test_sqlite_store_takes_an_empty_file(path: Path) -> None:
    """A file that is there and empty becomes a store."""
    path.touch()
    with closing(SqliteStore(path)) as store:
        Author(store).write("a")
        assert store.check() == ()


# --- processes ---------------------------------------------------------------------------------

CREATING = """
    import sys
    from session_fsm.stores import SqliteStore
    from session_fsm.testing.authors import Author
    path, name = sys.argv[1:]
    print("ready", flush=True)
    input()
    store = SqliteStore(path)
    author = Author(store, name)
    store.enlist(name)
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
        with closing(SqliteStore(path)) as store:
            while not seen or max(seen) < last:
                stored = store.load("a")
                assert stored is not None
                seen.add(stored.revision)
                if stored.revision % (3 * at_once) == 3 and stored.revision < last:  # it waits here
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


# --- what the system does not give ---------------------------------------------------------------


def test_sqlite_store_needs_its_directory(tmp_path: Path) -> None:
    """A directory that is missing is not made, and is named."""
    with pytest.raises(StoreUnavailableError, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "sessions.db")
    assert list(tmp_path.iterdir()) == []


def test_sqlite_store_needs_a_file(tmp_path: Path) -> None:
    """A directory in the place of the file, or a file in the place of a directory, is told of."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "directory", tmp_path / "file" / "sessions.db"):
        with pytest.raises(StoreUnavailableError) as caught:
            SqliteStore(path)
        assert str(path) in str(caught.value)
        assert "nothing was changed" in str(caught.value)


READ_ONLY = """
    import os, sys
    import urllib.parse  # what Python itself loads late may be out of reach without the rights
    from session_fsm import StoreUnavailableError
    from session_fsm.stores import SqliteStore
    from session_fsm.testing.authors import Author
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        store = SqliteStore(sys.argv[1])
        assert store.load("a") is not None
        Author(store).write("b")
    except StoreUnavailableError as fault:
        assert fault.operation_id is None
        print(fault.problem)
    store = None
"""


@pytest.fixture
def common(tmp_path: Path) -> Iterator[Path]:
    """A directory that a user without rights can get to."""
    closed = [each for each in tmp_path.parents if not mode_of(each) & 0o001]
    modes = {each: mode_of(each) for each in (tmp_path, *closed) if each.owner() == _me()}
    for each, mode in modes.items():
        each.chmod(mode | 0o011)
    yield tmp_path
    for each, mode in modes.items():
        each.chmod(mode)


def _me() -> str:
    return Path.home().owner() if os.getuid() == 0 else Path("/proc/self").owner()


@pytest.mark.parametrize("what", ["file", "directory"])
def test_sqlite_store_needs_the_right_to_write(common: Path, what: str) -> None:
    """Where a file may only be read, that works and no more; in such a directory none is made."""
    path = common / "sessions.db"
    if what == "file":
        with closing(SqliteStore(path)) as store:
            Author(store).write("a")
        path.chmod(0o444)
        owners = path.with_name("sessions.db.owners")
        owners.chmod(0o777)
        (owners / "opening").chmod(0o666)
        common.chmod(0o777)
    else:
        common.chmod(0o555)
    with Program(READ_ONLY, path) as program:
        [problem] = program.rest()
    assert str(path) in problem
    assert ("readonly" if what == "file" else "Permission denied") in problem


FULL_DISK = """
    import resource, sys
    from session_fsm import StoreUnavailableError
    from session_fsm.stores import SqliteStore
    from session_fsm.testing.authors import Author, everything
    store = SqliteStore(sys.argv[1])
    author = Author(store)
    author.write("a", "activate")
    before = everything(store)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    draft = author.draft("b", metadata={"x": "x" * 1_000_000})
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        store.commit(draft)
    except StoreUnavailableError as fault:
        print(fault.problem)
    else:
        print("it was written")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert everything(store) == before
    assert not store.landed(draft.session_id, draft.operation_id)
    store.commit(draft)
    assert store.tail("b")[0] == 1
    assert store.check() == ()
    store.close()
"""


def test_sqlite_store_survives_a_full_disk(path: Path) -> None:
    """Where there is no room, nothing is written and it is told; with room it goes on."""
    with Program(FULL_DISK, path) as program:
        [problem] = program.rest()
    assert str(path) in problem


def test_sqlite_store_refuses_the_rest_of_a_batch_that_is_gone(
    store: SqliteStore, path: Path
) -> None:
    """Where the database itself undoes a batch, no later commit of it is made alone."""
    author = Author(store)
    author.write("a", "activate")
    with plain(path) as connection:
        connection.execute(
            "CREATE TRIGGER breaks BEFORE INSERT ON mark BEGIN SELECT RAISE(ROLLBACK, 'gone'); END"
        )
    before = everything(store)
    late = author.draft("c")

    def broken_batch() -> None:
        with store.batch():
            author.write("b", "activate")
            with pytest.raises(StoreUnavailableError, match="gone"):
                store.set_mark("m", b"")
            with pytest.raises(StoreUnavailableError, match="undone the whole batch"):
                store.commit(late)

    with pytest.raises(StoreUnavailableError):
        broken_batch()
    assert everything(store) == before
    store.commit(late)
    assert store.ids(9, None) == ("a", "c")


# --- other people's files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"no database", b"x" * 4096, b"SQLite format 3\x00" + b"\xff" * 4080, b"\x00" * 100],
    ids=["text", "page", "header", "zeros"],
)
def test_sqlite_store_refuses_what_is_no_database(path: Path, content: bytes) -> None:
    """A file that is no database is named as such, and stays as it is."""
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError) as caught:
        SqliteStore(path)
    assert str(path) in caught.value.record
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE notes (text)",
        "CREATE TABLE session (session_id TEXT PRIMARY KEY, state TEXT)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 1",
    ],
)
def test_sqlite_store_refuses_the_file_of_another_application(path: Path, script: str) -> None:
    """Somebody else's database is told to be that, and no byte of it changes."""
    with plain(path) as connection:
        connection.execute(script)
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError, match="of another application"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert not path.with_name("sessions.db-wal").exists()


@pytest.mark.parametrize("version", [0, 3, 99])
def test_sqlite_store_refuses_another_version_of_itself(path: Path, version: int) -> None:
    """A file of a version that is not known is refused, and can still be read by who knows it."""
    SqliteStore(path).close()
    with plain(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError) as caught:
        SqliteStore(path)
    assert caught.value.found == f"{version} of a session store"
    assert path.read_bytes() == before


def test_sqlite_store_tells_of_broken_pages(path: Path) -> None:
    """A database with broken pages is told of where it is read, and by its check."""
    with closing(SqliteStore(path)) as store:
        author = Author(store)
        for number in range(50):
            author.write(f"s{number}", "activate", metadata={"x": "x" * 1000})
    content = bytearray(path.read_bytes())
    for start in range(PAGE_BYTES * 60, len(content), PAGE_BYTES):
        content[start : start + PAGE_BYTES] = b"\xaa" * PAGE_BYTES
    path.write_bytes(content)
    with closing(SqliteStore(path)) as store:
        with pytest.raises(CorruptRecordError, match="the database"):
            [store.load(f"s{number}") for number in range(50)]
        try:
            assert store.check() != ()
        except CorruptRecordError as fault:
            assert str(path) in fault.record  # noqa: PT017 - either outcome is right


# --- lifecycles ----------------------------------------------------------------------------------


def test_sqlite_store_refuses_other_rows_under_one_name(path: Path) -> None:
    """A lifecycle that a file knows with other rows is refused until it has another name."""
    SqliteStore(path).close()
    changed = SESSION_LIFECYCLE.without("touch")
    before = path.read_bytes()
    with pytest.raises(LifecycleError) as caught:
        SqliteStore(path, changed)
    assert SESSION_LIFECYCLE.fingerprint[:12] in str(caught.value)
    assert changed.fingerprint[:12] in str(caught.value)
    assert path.read_bytes() == before
    for lifecycle in (
        SESSION_LIFECYCLE.without("touch", name="calm"),
        SESSION_LIFECYCLE.extend(graces={"start": 5.0}),
    ):
        with closing(SqliteStore(path, lifecycle)) as store:
            assert store.check() == ()


def test_sqlite_store_holds_lifecycles_side_by_side(path: Path) -> None:
    """Two lifecycles share a file; neither sees, counts or judges what is the other's."""
    with closing(SqliteStore(path)) as ours, closing(SqliteStore(path, OTHER)) as theirs:
        author, other = Author(ours, "ours"), Author(theirs, "theirs")
        ours.enlist("ours")
        for each, triggers in routes(SESSION_LIFECYCLE).items():
            author.write(f"our {each}", *triggers, claims=[Work("worker")])
        mine = everything(ours, "ours")
        for each, triggers in routes(OTHER).items():
            other.write(f"their {each}", *triggers, claims=[Work("worker")])
        assert everything(ours, "ours") == mine
        assert theirs.ids(99, None) == ("their idle", "their open", "their shut")
        assert theirs.counts() == {"open": 1, "idle": 1, "shut": 1}
        assert [each.state.session_id for each in theirs.page(("idle",), 9, None)] == ["their idle"]
        assert len(theirs.ended(END_OF_TIME, 9)) == 1
        assert theirs.next_deadline() is None
        assert {each.session_id for each in theirs.abandoned()} == set(theirs.ids(99, None))
        assert ours.abandoned() == ()
        for store, session_id in ((ours, "their idle"), (theirs, "our idle")):
            with pytest.raises(LifecycleError, match=session_id):
                store.load(session_id)
        with SessionManager(ours) as manager:
            for verb in (manager.get, manager.touch, manager.create):
                with pytest.raises(LifecycleError, match=r"'their idle' runs in .*'door'"):
                    verb("their idle")
        with pytest.raises(SessionExistsError):
            ours.commit(Author(MemoryStore()).draft("their idle"))
        other.bury("their shut")
        assert theirs.check() == ours.check() == ()


def test_sqlite_store_verifies_each_lifecycle_for_itself(path: Path) -> None:
    """A purge in one lifecycle is no problem of another one, and its id may be used there."""
    with closing(SqliteStore(path)) as ours, closing(SqliteStore(path, OTHER)) as theirs:
        other = Author(theirs, "theirs")
        for session_id in ("a", "b"):
            other.write(session_id, "close")
            other.bury(session_id)
        with SessionManager(ours) as manager:
            manager.create("a")
            assert manager.verify().problems == ()
            assert [event.kind for event in manager.history("a")] == ["purged", "created", "moved"]
        with SessionManager(theirs, lifecycle=OTHER) as manager:
            assert manager.verify().problems == ()


# --- rows that can't be read ---------------------------------------------------------------------

STATE = "UPDATE session SET state = ? WHERE session_id = 'a'"


def changed(**fields: Any) -> str:
    """The expression of a state with some fields changed."""
    pairs = ", ".join(f"'$.{name}', json('{value}')" for name, value in fields.items())
    return f"UPDATE session SET state = json_set(state, {pairs}) WHERE session_id = 'a'"


@pytest.mark.parametrize(
    ("statement", "values", "problem"),
    [
        (STATE, ("",), "not JSON"),
        (STATE, ("{",), "not JSON"),
        (STATE, ("null",), "expected a JSON object"),
        (STATE, ("{}",), "session_id: missing"),
        (STATE, ('{"session_id": "a", "session_id": "a"}',), "stands twice"),
        (STATE.replace("?", "CAST(x'7bff7d' AS TEXT)"), (), "not UTF-8"),
        (STATE.replace("?", "state || 'x'"), (), "not JSON: Extra data"),
        (changed(status='"asleep"'), (), "status: unknown status 'asleep'"),
        (changed(status='"idle"'), (), "is listed as 'active', its state as 'idle'"),
        (changed(session_id='"b"'), (), "holds the state of 'b'"),
        (changed(session_id='""'), (), "session_id: 0 characters"),
        (changed(conversation_count="1.5"), (), "conversation_count: expected an integer"),
        (changed(extra="1"), (), "extra: unknown field"),
        (changed(format='"1"'), (), 'format: unknown format "1"'),
        (
            "UPDATE session SET status = 'idle' WHERE session_id = 'a'",
            (),
            "is listed as 'idle', its state as 'active'",
        ),
    ],
)
def test_sqlite_store_names_sessions_that_can_not_be_read(
    store: SqliteStore, path: Path, statement: str, values: tuple[Any, ...], problem: str
) -> None:
    """A session that can't be read is named wherever it is met, and never taken for absent."""
    author = Author(store)
    for session_id in ("a", "c"):
        author.write(session_id, "activate")
    tamper(path, statement, *values)
    with SessionManager(store) as manager:
        calls: list[Callable[[], object]] = [
            lambda: store.load("a"),
            lambda: store.page(store.lifecycle.statuses, 9, None),
            lambda: manager.find("a"),
            lambda: manager.get("a"),
            lambda: manager.update("a", error=None),
            manager.list,
            lambda: manager.create("a"),
        ]
        for call in calls:
            with pytest.raises(CorruptRecordError) as caught:
                call()
            assert caught.value.record == "session 'a'"
            assert problem in caught.value.problems[0]
        assert manager.get("c").revision == 2
        report = manager.verify()
        assert not report.ok
        assert any("session 'a'" in found and problem in found for found in report.problems)
        assert not any("'c'" in found for found in report.problems)


def test_sqlite_store_names_sessions_of_another_format(store: SqliteStore, path: Path) -> None:
    """A state of a format that is not known here is told apart from a broken one."""
    Author(store).write("a", "activate")
    tamper(path, changed(format="2"))
    for call in (lambda: store.load("a"), lambda: store.page(("active",), 9, None)):
        with pytest.raises(SchemaVersionError) as caught:
            call()
        assert (caught.value.found, caught.value.supported) == ("2 of session 'a'", "1")
    with SessionManager(store) as manager:
        assert any("format 2 of session 'a'" in found for found in manager.verify().problems)


@pytest.mark.parametrize("text", ["soon", "", "2026-01-01", "0"])
def test_sqlite_store_names_deadlines_that_can_not_be_read(
    store: SqliteStore, path: Path, text: str
) -> None:
    """A deadline that is none is told of with its session."""
    Author(store).write("a", "activate")
    tamper(path, "UPDATE session SET deadline_at = ?", text)
    at = END_OF_TIME.replace(tzinfo=UTC)
    calls: list[Callable[[], object]] = [store.next_deadline]
    if text and text < "9":
        calls.append(lambda: store.due(at, 9, None))
    for call in calls:
        with pytest.raises(CorruptRecordError, match="session 'a'"):
            call()


EVENT = "UPDATE session_event SET body = {} WHERE session_id = 'a' AND revision = 2"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("x''", "not JSON"),
        ("x'ff'", "not UTF-8"),
        ("CAST('[]' AS BLOB)", "expected a JSON object"),
        ("CAST('{\"format\": 1}' AS BLOB)", "not the fields of an event"),
        ("CAST(json_set(body, '$.session_id', 'b') AS BLOB)", "holds event 2 of session 'b'"),
        ("CAST(json_set(body, '$.revision', 3) AS BLOB)", "holds event 3 of session 'a'"),
        ("CAST(json_set(body, '$.at', 'now') AS BLOB)", "at: expected an instant"),
    ],
)
def test_sqlite_store_names_events_that_can_not_be_read(
    store: SqliteStore, path: Path, body: str, problem: str
) -> None:
    """An event that can't be read is named with its session; the session itself can be."""
    Author(store).write("a", "activate", "touch")
    tamper(path, EVENT.format(body).replace("json_set(body", "json_set(CAST(body AS TEXT)"))
    with pytest.raises(CorruptRecordError) as caught:
        store.history("a")
    assert caught.value.record == "event 2 of session 'a'"
    assert problem in caught.value.problems[0]
    assert store.load("a") is not None
    with SessionManager(store) as manager:
        found = manager.verify().problems
        assert any("event 2 of session 'a'" in each for each in found)


def test_sqlite_store_names_events_of_another_format(store: SqliteStore, path: Path) -> None:
    """An event of a format that is not known here is told apart from a broken one."""
    Author(store).write("a", "activate")
    body = "CAST(json_set(CAST(body AS TEXT), '$.format', 2) AS BLOB)"
    tamper(path, EVENT.format(body))
    with pytest.raises(SchemaVersionError) as caught:
        store.history("a")
    assert caught.value.found == "event 2 (event 2 of session 'a')"
    assert caught.value.supported == "1"


COPIED_EVENT = """
    INSERT INTO session_event SELECT NULL, session_id, 4, at, body, digest, ''
    FROM session_event WHERE session_id = 'a' AND revision = 3
"""


@pytest.mark.parametrize(
    "statement",
    [
        EVENT.format("CAST(replace(CAST(body AS TEXT), 'activate', 'activatE') AS BLOB)"),
        "UPDATE session_event SET digest = 'x' WHERE session_id = 'a' AND revision = 1",
        "UPDATE session_event SET digest = 'x' WHERE session_id = 'a' AND revision = 3",
        "DELETE FROM session_event WHERE session_id = 'a' AND revision = 1",
        "DELETE FROM session_event WHERE session_id = 'a' AND revision = 2",
        COPIED_EVENT,
        "DELETE FROM session WHERE session_id = 'a'",
        changed(conversation_count="5"),
        changed(metadata='{"x": true}'),
        changed(error='"made up"'),
    ],
)
def test_sqlite_store_is_verified(store: SqliteStore, path: Path, statement: str) -> None:
    """Whatever was changed, removed or added behind the triggers is found, with its session."""
    author = Author(store)
    author.write("a", "activate", "touch", metadata={"x": 1})
    author.write("b", "activate")
    with SessionManager(store) as manager:
        assert manager.verify().ok
        tamper(path, statement)
        report = manager.verify()
        assert not report.ok
        assert any("session 'a'" in found for found in report.problems)
        assert not any("'b'" in found for found in report.problems)


# --- its own check -------------------------------------------------------------------------------


def test_sqlite_store_checks_its_schema(store: SqliteStore, path: Path) -> None:
    """Each table, index and trigger that is missing, or was made otherwise, is named."""
    with plain(path) as connection:
        query = (
            "SELECT type, name, sql FROM sqlite_schema"
            " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
        parts = connection.execute(query).fetchall()
        assert {kind for kind, _, _ in parts} == {"table", "index", "trigger"}
        for kind, name, sql in parts:
            if kind == "table":
                continue
            connection.execute(f"DROP {kind} {name}")
            assert store.check() == (f"database: {kind} {name} is missing",)
            if kind == "trigger":
                changed = sql.replace("session_fsm: ", "").replace("sessions + ", "sessions - ")
                changed = changed.replace("sessions - 1", "sessions - 2")
                changed = changed.replace("= OLD.session_id; END", "< OLD.session_id; END")
            else:
                changed = sql.replace("session_id)", "session_id DESC)").replace("(op", "(at, op")
            assert changed != sql, name
            connection.execute(changed)
            assert store.check() == (f"database: {kind} {name} is not as it was made",)
            connection.execute(f"DROP {kind} {name}")
            connection.execute(sql)
        assert store.check() == ()
        connection.execute("DROP TABLE mark")
        assert store.check() == ("database: table mark is missing",)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "INSERT INTO legal_move VALUES ('session', 'active', 'terminated')",
            "legal_move is not as lifecycle 'session' has it",
        ),
        (
            "DELETE FROM legal_move WHERE source = 'idle' AND target = 'active'",
            "legal_move is not as lifecycle 'session' has it",
        ),
        (
            "UPDATE lifecycle_status SET is_final = 0 WHERE status = 'terminated'",
            "lifecycle_status is not as lifecycle 'session' has it",
        ),
        (
            "UPDATE session_count SET sessions = sessions + 1 WHERE status = 'active'",
            "1 sessions are 'active', 2 counted",
        ),
        (
            "UPDATE session_count SET sessions = 3 WHERE status = 'idle'",
            "0 sessions are 'idle', 3 counted",
        ),
        ("DELETE FROM session_count WHERE status = 'active'", "1 sessions are 'active', 0 counted"),
    ],
)
def test_sqlite_store_checks_its_rules_and_counts(
    store: SqliteStore, path: Path, statement: str, problem: str
) -> None:
    """Rules that are not those of the lifecycle, and counts that have drifted, are named."""
    Author(store).write("a", "activate")
    assert store.check() == ()
    with plain(path) as connection:
        assert connection.execute(statement).rowcount == 1
    assert store.check() == (f"database: {problem}",)


# --- costs ---------------------------------------------------------------------------------------


def statements_of(store: SqliteStore, call: Callable[[], object]) -> list[str]:
    """Return the statements that a call has its connections run."""
    found: list[str] = []
    connections = store._connections
    with connections.reading() as reader:
        reader.set_trace_callback(found.append)
    connections._writer.connection.set_trace_callback(found.append)
    call()
    with connections.reading() as reader:
        reader.set_trace_callback(None)
    connections._writer.connection.set_trace_callback(None)
    words = ("SELECT", "INSERT", "UPDATE", "DELETE")
    return [each.strip() for each in found if each.strip().startswith(words)]


def test_sqlite_store_scans_no_table(store: SqliteStore, path: Path) -> None:
    """Whatever is asked for, or written, is found by an index; what is sorted is what is given."""
    author = Author(store)
    store.enlist("author")
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for status, triggers in routes(store.lifecycle).items():
        author.write(status, *triggers, claims=[Work("worker")])
    words = store.lifecycle.statuses
    due = now + timedelta(days=1)
    asked: dict[str, Callable[[], object]] = {
        "load": lambda: store.load("active"),
        "tail": lambda: store.tail("active"),
        "history": lambda: store.history("active"),
        "landed": lambda: store.landed("a", "author-1"),
        "page": lambda: store.page(words, 10, None),
        "next page": lambda: store.page(words[1:2], 10, "a"),
        "counts": store.counts,
        "due": lambda: store.due(due, 10, None),
        "more due": lambda: store.due(due, 10, (now, "active")),
        "next_deadline": store.next_deadline,
        "work_in": lambda: store.work_in("active"),
        "abandoned": lambda: store.abandoned("active"),
        "to_stop": lambda: store.to_stop("author"),
        "ended": lambda: store.ended(due, 10),
        "mark": lambda: store.mark("m"),
        "create": lambda: author.write("new", "activate"),
        "move": lambda: author.write("new", "terminate", "finish", claims=[Work("worker")]),
        "release": lambda: store.release("new", [Work("worker")], "author"),
        "bury": lambda: author.bury("new"),
        "set_mark": lambda: store.set_mark("m", b""),
    }
    in_order = {"due", "more due", "next_deadline", "ended", "history", "tail", "to_stop"}
    with plain(path) as connection:
        for what, call in asked.items():
            statements = statements_of(store, call)
            assert statements, what
            for statement in statements:
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                for *_, line in plan:
                    scanned = line.startswith("SCAN") and "subquery" not in line.lower()
                    assert not scanned, (what, statement, line)
                    assert not (what in in_order and "TEMP B-TREE" in line), (what, line)


# --- URLs ----------------------------------------------------------------------------------------


def test_sqlite_store_urls_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes are a path below the working directory, four are one from the root."""
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:///relative.db", tmp_path / "relative.db"),
        (f"sqlite:///{tmp_path}/absolute.db", tmp_path / "absolute.db"),
        ("sqlite:///./a%20b é.db", tmp_path / "a%20b é.db"),
    ):
        with closing(open_store(url)) as store:
            assert isinstance(store, SqliteStore)
            assert store.durable
            assert path.stat().st_size > 0
            again = open_store(store.url)
            assert isinstance(again, SqliteStore)
            assert again.path == store.path
            again.close()
    with closing(open_store("memory://")) as memory:
        assert isinstance(memory, MemoryStore)
        assert (memory.url, memory.durable) == ("memory://", False)
    door = open_store("memory://", lifecycle=OTHER)
    assert door.lifecycle is OTHER


SQLITE_FORMS = "a SQLite store is sqlite:///relative.db or sqlite:////absolute.db, not "


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "'' is no store; a store's URL begins with memory://, sqlite://"),
        ("sessions.db", "'sessions.db' is no store"),
        ("/var/sessions.db", "is no store"),
        ("sqlite", "is no store"),
        ("sqlite:", "is no store"),
        ("sqlite:/sessions.db", "is no store"),
        ("sqlite3:///sessions.db", "is no store"),
        (" sqlite:///sessions.db", "is no store"),
        ("SQLITE:///sessions.db", "is no store"),
        ("file:///sessions.db", "is no store"),
        ("://", "is no store"),
        ("redis://localhost", "is no store"),
        ("memory", "is no store"),
        ("memory://x", "memory:// takes nothing behind it, not 'x'"),
        ("memory:///", "memory:// takes nothing behind it, not '/'"),
        ("sqlite://", SQLITE_FORMS),
        ("sqlite:///", SQLITE_FORMS),
        ("sqlite:////", SQLITE_FORMS),
        ("sqlite://sessions.db", SQLITE_FORMS),
        ("sqlite://localhost/sessions.db", SQLITE_FORMS),
        ("sqlite:///:memory:", SQLITE_FORMS),
        ("sqlite:///sessions.db?mode=ro", SQLITE_FORMS),
        ("sqlite:///.", SQLITE_FORMS),
        ("sqlite:///..", SQLITE_FORMS),
        ("sqlite:///directory/", SQLITE_FORMS),
        ("sqlite:///a\x00b", SQLITE_FORMS),
    ],
)
def test_sqlite_store_urls_that_are_none_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    """What is no store's URL is refused with what is expected, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(problem)):
        open_store(url)
    assert list(tmp_path.iterdir()) == []
