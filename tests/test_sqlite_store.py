"""The SQLite store: its file, its URLs, its costs, and what goes wrong around it."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from processes import Program
from sqlite_files import plain

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    Lifecycle,
    LifecycleError,
    Row,
    SchemaVersionError,
    SessionExistsError,
    SessionManager,
    StoreUnavailableError,
    open_store,
)
from session_fsm.stores import MemoryStore, SqliteStore
from session_fsm.stores.records import Work
from session_fsm.stores.sqlite_connection import PAGE_BYTES
from session_fsm.stores.sqlite_schema import SCHEMA_VERSION
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


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 99])
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
        theirs.dismiss("theirs")
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
            ours.commit(Author(MemoryStore(), "ours").draft("their idle"))
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
